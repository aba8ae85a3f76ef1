"""Transfer jobs counted together. Responsible for the call and for what only the mover knows of
what runs; the counting is `store.summaries`'.
"""

from typing import Final

from gridlane.transfer.v1 import transfer_job_pb2, transfer_service_pb2, transfer_summary_pb2
from gridlane.type.v1 import failure_pb2
from gridlane_kit.call import Call
from gridlane_kit.clock import given_us, now_us
from gridlane_kit.database import Database
from gridlane_kit.filters import Field, FilterRules
from gridlane_transfer import messages
from gridlane_transfer.backends.base import TransferBackend
from gridlane_transfer.jobs.reach import uuid_of
from gridlane_transfer.jobs.transfer_jobs import COMBINATIONS, FIELDS
from gridlane_transfer.states import FILE_FINAL
from gridlane_transfer.store import summaries
from gridlane_transfer.store.summaries import Asked, Counted


def _name(text: str) -> str:
    if not text.startswith(messages.PREFIX):
        raise ValueError('"transfers/{uuid}"')
    return uuid_of(text)


FILTER: Final = FilterRules(
    {**FIELDS, "name": Field(_name)}, combinations=[*COMBINATIONS, {"name"}]
)
"""What is counted: what can be listed, or one job."""


class Summaries:
    """The call."""

    def __init__(self, db: Database, backend: TransferBackend) -> None:
        self._db = db
        self._backend = backend

    async def summarize(
        self, request: transfer_service_pb2.SummarizeTransferJobsRequest, call: Call
    ) -> transfer_summary_pb2.TransferSummary:
        """Count what the caller would be listed.

        Raises:
            GridlaneError: FILTER_UNSUPPORTED.
        """
        window = request.window
        asked = Asked(
            call.visibility,
            FILTER.parse(request.filter),
            given_us(window, "start_time"),
            given_us(window, "end_time"),
        )
        counted = await self._db.read(lambda conn: summaries.count(conn, asked))
        return self._message(counted)

    def _message(self, counted: Counted) -> transfer_summary_pb2.TransferSummary:
        now = now_us()
        moved, speed = counted.moved_bytes, 0
        for number, start_us in counted.moving:
            progress = self._backend.progress(number) or 0
            moved += progress
            speed += messages.bytes_per_second(progress, start_us, now)
        files = counted.files.total()
        ended = sum(count for state, count in counted.files.items() if state in FILE_FINAL)
        return transfer_summary_pb2.TransferSummary(
            job_count=counted.jobs.total(),
            file_count=files,
            jobs=[
                transfer_summary_pb2.JobStateCount(
                    state=transfer_job_pb2.TransferJobState.ValueType(state), count=count
                )
                for state, count in sorted(counted.jobs.items())
            ],
            files=[
                transfer_job_pb2.FileStateCount(
                    state=transfer_job_pb2.FileTransferState.ValueType(state), count=count
                )
                for state, count in sorted(counted.files.items())
            ],
            completeness_percent=ended * 100 // files if files else 0,
            total_bytes=counted.total_bytes,
            transferred_bytes=moved,
            throughput_bytes_per_second=speed,
            failures=[
                transfer_summary_pb2.FailureCount(
                    failure_class=failure_pb2.FailureClass.ValueType(failure_class),
                    count=count,
                    examples=[
                        f"{messages.PREFIX}{uuid}/files/{n}"
                        for uuid, n in counted.examples[failure_class]
                    ],
                )
                for failure_class, count in counted.failures.most_common()
            ],
        )
