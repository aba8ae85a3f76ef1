"""Submissions that are repeated: known by their request ids.

Responsible for the key of a call, and for what it made when it came before. The transaction that
stores a job asks again; it is asked here for calls that would be refused by now, since what they
were judged by has changed: a time has come, a storage element is banned, a file is another's.
"""

from collections.abc import Sequence
from typing import Final

from gridlane.transfer.v1 import transfer_service_pb2
from gridlane_kit import errors, request_ids
from gridlane_kit.call import Call
from gridlane_kit.clock import now_us
from gridlane_kit.database import Database
from gridlane_kit.errors import ErrorReason, GridlaneError
from gridlane_kit.request_ids import Conflict, Replay, RequestKey
from gridlane_transfer.store.tables import REQUEST_ID

Request = (
    transfer_service_pb2.SubmitTransferJobRequest
    | transfer_service_pb2.SubmitDeletionJobRequest
    | transfer_service_pb2.RetryTransferJobRequest
)

_JUDGED_ANEW: Final = frozenset(
    {ErrorReason.PRECONDITION, ErrorReason.INVALID_FIELDS, ErrorReason.NO_STORAGE_ELEMENT}
)
"""What a call that was good may be refused with when it is repeated. That the caller lacks the
right by now is told all the same.
"""


def key_of(request: Request, call: Call) -> RequestKey | None:
    """What a call with an id is known by; None for one without.

    Raises:
        GridlaneError: INVALID_FIELDS, REQUEST_ID_TOO_OLD.
    """
    if not request.request_id:
        return None
    request_ids.check(request.request_id, now_us())
    digest = request_ids.digest(request)
    return RequestKey(call.principal.owner, call.method, request.request_id, digest)


class EarlierCalls:
    """What calls made that came before."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def made(self, key: RequestKey | None) -> str | None:
        """The name of the job that the call made when it came before; None when it did not.

        Raises:
            GridlaneError: REQUEST_ID_REUSED.
        """
        if key is None:
            return None
        (claim,) = await self._db.read(lambda conn: request_ids.claim(conn, REQUEST_ID, [key]))
        if isinstance(claim, Conflict):
            raise errors.request_id_reused()
        return claim.resource if isinstance(claim, Replay) else None

    async def made_by(
        self, refused: Sequence[tuple[Request, GridlaneError]], call: Call
    ) -> list[str | None]:
        """The names of the jobs that calls made before they were refused with these errors, in
        order; None where the error holds.
        """
        keys = [_key_of_refused(request, error, call) for request, error in refused]
        if not any(keys):
            return [None] * len(keys)
        claims = await self._db.read(lambda conn: request_ids.claim(conn, REQUEST_ID, keys))
        return [claim.resource if isinstance(claim, Replay) else None for claim in claims]


def _key_of_refused(request: Request, error: GridlaneError, call: Call) -> RequestKey | None:
    if error.reason not in _JUDGED_ANEW:
        return None
    try:
        return key_of(request, call)
    except GridlaneError:  # the id itself is wrong
        return None
