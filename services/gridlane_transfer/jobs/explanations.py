"""Explanations of what waits: gathers the facts of a moment for the files of a page.

Responsible for the call and for what is read, all of it in one snapshot. The rules are `waiting`'s.
"""

from sqlalchemy import Connection

from gridlane.transfer.v1 import file_explanation_pb2, transfer_service_pb2
from gridlane_kit.call import Call
from gridlane_kit.clock import now_us
from gridlane_kit.database import Database
from gridlane_kit.pages import Page, page_request
from gridlane_kit.policy import PolicyHolder
from gridlane_transfer.backends.base import TransferBackend
from gridlane_transfer.channels.channels import Channels
from gridlane_transfer.jobs import waiting
from gridlane_transfer.jobs.reach import Reach
from gridlane_transfer.jobs.waiting import Facts
from gridlane_transfer.moving.file_transfers import is_logical, source_of
from gridlane_transfer.storage.storage_elements import StorageElements
from gridlane_transfer.store import catalogue, jobs, places, queues
from gridlane_transfer.store.tables import FileRow, JobRow


class Explanations:
    """The call.

    Parameters:
        policy: what the owners may do now.
    """

    def __init__(
        self,
        db: Database,
        channels: Channels,
        elements: StorageElements,
        backend: TransferBackend,
        policy: PolicyHolder,
        reach: Reach,
    ) -> None:
        self._db = db
        self._channels = channels
        self._elements = elements
        self._backend = backend
        self._policy = policy
        self._reach = reach

    async def explain(
        self, request: transfer_service_pb2.ExplainTransferJobRequest, call: Call
    ) -> tuple[list[file_explanation_pb2.FileExplanation], str]:
        """A page of a job's files that wait, each with everything that holds it up, and the next
        page's token.

        Raises:
            GridlaneError: NOT_FOUND, TOKEN_NOT_OURS.
        """
        (job,) = await self._reach.all_of([request.name], call)
        page = page_request(
            jobs.IN_ORDER,
            page_size=request.page_size,
            page_token=request.page_token,
            binding=("ExplainTransferJob", request.name, call.principal.owner),
        )
        return await self._db.read(lambda conn: self._read(conn, job, page))

    def _read(
        self, conn: Connection, job: JobRow, page: Page
    ) -> tuple[list[file_explanation_pb2.FileExplanation], str]:
        states = [int(state) for state in waiting.WAITING]
        rows, token = jobs.files_in(conn, job, states, page)
        facts = self._facts(conn, rows)
        return [waiting.explain(row, job, facts) for row in rows], token

    def _facts(self, conn: Connection, rows: list[FileRow]) -> Facts:
        lfns = sorted({name for name in map(source_of, rows) if is_logical(name)})
        uids = sorted({row.channel_uid for row in rows})
        known = catalogue.files(conn, lfns) if lfns else {}
        return Facts(
            channels={uid: self._channels.by_uid(uid) for uid in uids if self._knows(uid)},
            elements=self._elements,
            known=known,
            running=queues.running(conn, uids, elements=True),
            running_of_vos=queues.running_of_vos(conn, uids),
            policy=self._policy.current,
            backend=self._backend.report(),
            capacity=self._backend.capacity(),
            in_work=places.in_work(conn, self._elements, rows, known),
            time_us=now_us(),
        )

    def _knows(self, uid: str) -> bool:
        return bool(self._channels.name_of(uid))
