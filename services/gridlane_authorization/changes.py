"""Changes of the policy: one way for every verb that makes one.

Responsible for what all of them share: the writers' order, the request id, the check that stores
nothing, the revision and what followers are told, the entry in the audit, and the policy in force
here before the caller is answered. What a verb does and when it is refused is its noun's (`roles`,
`vos`, `groups`, `user_tokens`, `signing_keys`).
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from google.protobuf.message import Message
from sqlalchemy import Connection

from gridlane_authorization.messages import refuse_nul
from gridlane_authorization.store import policy
from gridlane_authorization.store.tables import AUDIT, REQUEST_ID
from gridlane_kit import audit, errors, request_ids
from gridlane_kit.audit import AuditEntry
from gridlane_kit.call import Call
from gridlane_kit.clock import now_us
from gridlane_kit.database import Database
from gridlane_kit.errors import ErrorReason, GridlaneError
from gridlane_kit.failpoints import failpoint
from gridlane_kit.logs import logger
from gridlane_kit.policy import PolicyChange
from gridlane_kit.request_ids import RequestKey

M = TypeVar("M", bound=Message)
T = TypeVar("T")
_log = logger("authorization")
_MOST_DENIALS: Final = 100

CHANGED: Final = failpoint("authorization.change.committed")
REFUSED: Final = failpoint("authorization.refusal.committed")

# What is kept of an attempt that was refused for what it wanted; the rest says something of the
# request's form or of the server.
_KEPT: Final = frozenset(
    {
        ErrorReason.PERMISSION_DENIED,
        ErrorReason.NOT_FOUND,
        ErrorReason.ALREADY_EXISTS,
        ErrorReason.PRECONDITION,
        ErrorReason.REVISION_CONFLICT,
        ErrorReason.LAST_ADMIN,
        ErrorReason.IN_USE,
    }
)


@dataclass(frozen=True, slots=True)
class Attempt:
    """A call that wants to change the policy.

    Parameters:
        call: of whom.
        resource: the name of what is to be changed; empty for what has none yet.
        reason: why, by the caller's words.
        time_us: when, microseconds since 1970-01-01 UTC.
        request: its request id; None when it has none.
        validate_only: check everything, store nothing.
        revision_read: the resource's, when the caller read it; 0: whatever it is.
    """

    call: Call
    resource: str
    reason: str
    time_us: int
    request: RequestKey | None = None
    validate_only: bool = False
    revision_read: int = 0

    @classmethod
    def of(cls, call: Call, request: Any, resource: str) -> "Attempt":
        """Reads what all requests that change the policy say alike.

        Raises:
            GridlaneError: INVALID_FIELDS, REQUEST_ID_TOO_OLD.
        """
        refuse_nul(reason=request.reason)
        now = now_us()
        given = getattr(request, "request_id", "")
        key = None
        if given:
            request_ids.check(given, now)
            key = RequestKey(call.principal.owner, call.method, given, _digest(request))
        only = getattr(request, "validate_only", False)
        read = getattr(request, "revision", 0)
        return cls(call, resource, request.reason, now, key, only, read)

    def require_revision(self, stored: int) -> None:
        """Refuses to change a resource that is not what the caller read any more.

        Parameters:
            stored: the resource's revision now.

        Raises:
            GridlaneError: REVISION_CONFLICT.
        """
        if self.revision_read and self.revision_read != stored:
            raise errors.revision_conflict(self.resource)


@dataclass(frozen=True, slots=True)
class Changed(Generic[M]):
    """What a verb did to the rows.

    Parameters:
        resource: the name of what was changed, its `vo` when it is one's.
        before, after: it; None for one that was made, or deleted.
        change: for followers; None when all was so already.
    """

    resource: str
    vo: str
    before: M | None
    after: M | None
    change: PolicyChange | None

    def left(self) -> M:
        """Returns the resource as it is after a verb that leaves one."""
        if self.after is None:
            raise TypeError(f"nothing was left of {self.resource}")
        return self.after


class Changes:
    """Makes changes of the policy.

    Parameters:
        refresh: puts what was committed in force in this process.
    """

    def __init__(self, db: Database, refresh: Callable[[], Awaitable[None]]) -> None:
        self._db = db
        self._refresh = refresh

    async def create(
        self,
        attempt: Attempt,
        act: Callable[[Connection, int], Changed[M]],
        read: Callable[[Connection, str], M],
    ) -> M:
        """Makes a resource; durable, and in force in this process, when this returns.

        Parameters:
            act: does it, given the revision that it leads to; raises when it must not be. It does
                nothing but statements.
            read: the resource of that name as it is now, for a repetition; raises NOT_FOUND.

        Raises:
            GridlaneError: REQUEST_ID_REUSED, what `act` and `read` raise, those of the store.
        """

        checked: list[M] = []

        def transact(conn: Connection) -> M:
            revision = policy.lock(conn) + 1
            if attempt.request is not None:
                (claim,) = request_ids.claim(conn, REQUEST_ID, [attempt.request])
                if isinstance(claim, request_ids.Conflict):
                    raise errors.request_id_reused()
                if isinstance(claim, request_ids.Replay):
                    return read(conn, claim.resource)
            changed = act(conn, revision)
            made = changed.left()
            if attempt.validate_only:
                checked.append(made)
                raise _OnlyCheckedError
            if attempt.request is not None:
                request_ids.remember(conn, REQUEST_ID, [(attempt.request, changed.resource)])
            self._store(conn, attempt, changed)
            return made

        try:
            return await self._run(attempt, transact)
        except _OnlyCheckedError:
            return _without_identity(checked[-1])

    async def change(self, attempt: Attempt, act: Callable[[Connection, int], Changed[M]]) -> M:
        """Changes a resource, as `create` makes one; returns it as it is then."""
        changed, _ = await self._change(attempt, act)
        return changed.left()

    async def delete(self, attempt: Attempt, act: Callable[[Connection, int], Changed[M]]) -> int:
        """Deletes a resource, as `create` makes one; returns the policy's revision without it."""
        _, revision = await self._change(attempt, act)
        return revision

    async def _change(
        self, attempt: Attempt, act: Callable[[Connection, int], Changed[M]]
    ) -> tuple[Changed[M], int]:
        def transact(conn: Connection) -> tuple[Changed[M], int]:
            before = policy.lock(conn)
            changed = act(conn, before + 1)
            self._store(conn, attempt, changed)
            return changed, before if changed.change is None else before + 1

        return await self._run(attempt, transact)

    async def _run(self, attempt: Attempt, transact: Callable[[Connection], T]) -> T:
        try:
            answer = await self._db.write_after_lock(transact)
        except GridlaneError as error:
            if error.reason in _KEPT and not attempt.validate_only:
                await self._keep_refusal(attempt, error)
            raise
        CHANGED()
        # Committed is committed: when the database cannot be read just now, the feed's next look
        # takes it over.
        with suppress(GridlaneError):
            await self._refresh()
        return answer

    def _store(self, conn: Connection, attempt: Attempt, changed: Changed[M]) -> None:
        revision = 0
        if changed.change is not None:
            policy.record(conn, changed.change, attempt.time_us)
            revision = changed.change.revision
        entry = audit.entry(
            attempt.call,
            resource=changed.resource,
            vo=changed.vo,
            reason=attempt.reason,
            before=changed.before,
            after=changed.after,
            time_us=attempt.time_us,
            policy_revision=revision,
        )
        audit.append(conn, AUDIT, [entry])

    async def _keep_refusal(self, attempt: Attempt, error: GridlaneError) -> None:
        entry = audit.entry(
            attempt.call,
            resource=attempt.resource,
            reason=attempt.reason,
            time_us=attempt.time_us,
            refused=error,
        )
        try:
            await self._db.write(lambda conn: audit.append(conn, AUDIT, [entry]))
        except GridlaneError as unkept:
            # The caller is refused all the same.
            _log.error("a refused attempt is not in the audit", reason=unkept.reason.value)
        REFUSED()


class Denials:
    """Keeps attempts to change something that were denied before what they named was looked at.

    They are written behind the answers, and not all when they come in a flood.
    """

    def __init__(self, db: Database) -> None:
        self._db = db
        self._writes: set[asyncio.Task[None]] = set()

    def keep(self, permission: str, call: Call, error: GridlaneError) -> None:
        """Keeps an attempt, unless it was only to look at something."""
        if permission.endswith(".view"):
            return
        if len(self._writes) >= _MOST_DENIALS:
            _log.warning("a denied attempt is not in the audit: there are too many")
            return
        entry = audit.entry(call, resource="", refused=error)
        entry = entry._replace(permission=permission, rule="denied")
        write = asyncio.create_task(self._write(entry), name="authorization-denial")
        self._writes.add(write)
        write.add_done_callback(self._writes.discard)

    async def drain(self) -> None:
        """Waits for those under way."""
        if self._writes:
            await asyncio.wait(self._writes)

    async def _write(self, entry: AuditEntry) -> None:
        try:
            await self._db.write(lambda conn: audit.append(conn, AUDIT, [entry]))
        except GridlaneError as error:
            _log.error("a denied attempt is not in the audit", reason=error.reason.value)


class _OnlyCheckedError(Exception):
    """Everything was found good, and nothing is to be stored."""


def _without_identity(message: M) -> M:
    """What would be stored: without the fields that only what is stored has."""
    for field in ("name", "revision", "create_time", "update_time"):
        if field in message.DESCRIPTOR.fields_by_name:
            message.ClearField(field)
    return message


def _digest(request: Any) -> str:
    """The digest of what is asked for, whether it is to be done or only to be checked."""
    if not getattr(request, "validate_only", False):
        return request_ids.digest(request)
    asked = type(request)()
    asked.CopyFrom(request)
    asked.validate_only = False
    return request_ids.digest(asked)
