"""Jobs within a caller's reach, by name: what of them a call may see, and how it is refused.

Responsible for the order of the two answers: what a caller may not see is NOT_FOUND, as what does
not exist; what it may see and not touch is PERMISSION_DENIED.
"""

from collections.abc import Callable, Iterable, Sequence

from gridlane_kit import audit, errors
from gridlane_kit.audit import AuditEntry
from gridlane_kit.call import Call
from gridlane_kit.clock import now_us
from gridlane_kit.database import Database
from gridlane_kit.decision import decide
from gridlane_kit.errors import ErrorReason, GridlaneError
from gridlane_kit.policy import PolicyHolder
from gridlane_transfer import messages
from gridlane_transfer.store import jobs
from gridlane_transfer.store.tables import JobRow

_VIEW = "transfer.jobs.view"


class Reach:
    """Finds jobs by name.

    Parameters:
        policy: who may see what a call may not touch.
    """

    def __init__(self, db: Database, policy: PolicyHolder) -> None:
        self._db = db
        self._policy = policy

    async def all_of(self, names: Sequence[str], call: Call) -> Sequence[JobRow]:
        """The jobs of the names, in order.

        Raises:
            GridlaneError: NOT_FOUND: one of them is not within the call's reach.
        """
        uuids = [uuid_of(name) for name in names]
        found = await self._db.read(lambda conn: jobs.visible(conn, uuids, call.visibility))
        for name, uuid in zip(names, uuids, strict=True):
            if uuid not in found:
                raise errors.not_found(name)
        return [found[uuid] for uuid in uuids]

    async def one(self, name: str, call: Call) -> JobRow:
        """The job of a name, for what changes it.

        Raises:
            GridlaneError: PERMISSION_DENIED: the caller may only see it; NOT_FOUND.
        """
        try:
            return (await self.all_of([name], call))[0]
        except GridlaneError as error:
            raise await self.refusal(error, name, call) from error

    async def refusal(self, error: GridlaneError, name: str, call: Call) -> GridlaneError:
        """What a caller is told of a job that is not within the call's reach."""
        if error.reason is ErrorReason.NOT_FOUND and await self._sees(name, call):
            return errors.permission_denied(call.decision.permission, name)
        return error

    async def _sees(self, name: str, call: Call) -> bool:
        viewing = decide(call.principal, _VIEW, self._policy.current, now_us())
        if not viewing.allowed:
            return False
        uuid = uuid_of(name)
        found = await self._db.read(lambda conn: jobs.visible(conn, [uuid], viewing.visibility))
        return bool(found)


def if_anothers(call: Call, reason: str = "") -> Callable[[JobRow], AuditEntry | None]:
    """What makes a call's entry in the audit for a job; None of the caller's own.

    Parameters:
        reason: why, by the caller's words.
    """

    def entry(job: JobRow) -> AuditEntry | None:
        if job.owner == call.principal.owner:
            return None
        return audit.entry(call, resource=messages.PREFIX + job.uuid, vo=job.vo, reason=reason)

    return entry


def uuid_of(name: str) -> str:
    """The uuid of a job, or of a file's job, by the resource's name."""
    return name.removeprefix(messages.PREFIX).partition("/")[0]


def place_of(name: str) -> int:
    """The number of a file in its job, by its name."""
    return int(name.rpartition("/")[2])


def job_of(name: str) -> str:
    """The name of the job of a file."""
    return name.partition("/files/")[0]


def require_its_files(job: str, field: str, files: Iterable[str]) -> None:
    """Refuse files of another job.

    Parameters:
        job: its name.
        field: that of the request which names the files.

    Raises:
        GridlaneError: INVALID_FIELDS that names each.
    """
    wrong = [
        (f"{field}[{index}]", f"a file of {job}")
        for index, file in enumerate(files)
        if job_of(file) != job
    ]
    if wrong:
        raise errors.invalid(wrong)
