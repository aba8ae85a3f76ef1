"""Signing keys as their callers see them: the rules of `SigningKeyService`.

Responsible for who is answered what, and for the order of a rotation: the new key's private half is
on disk before its row is committed, and the files follow the row (`key_upkeep`). Killed anywhere,
either nothing has happened or the next look at the rows ends it. Not for the lives of keys
(`key_lives`), nor for the `rotate-key` command, which needs no server (`key_files`).
"""

import asyncio
from functools import partial
from typing import Final

from sqlalchemy import Connection

from gridlane.authorization.v1 import signing_key_pb2, signing_key_service_pb2
from gridlane_authorization import key_lives, messages
from gridlane_authorization.changes import Attempt, Changed, Changes
from gridlane_authorization.key_files import SigningKeyError
from gridlane_authorization.key_upkeep import KeyUpkeep
from gridlane_authorization.store import signing_keys
from gridlane_authorization.store.signing_keys import NEWEST_FIRST, PREFIX, KeyState, StoredKey
from gridlane_kit import errors
from gridlane_kit.call import Call
from gridlane_kit.clock import now_us, to_timestamp
from gridlane_kit.data_directory import LockedError
from gridlane_kit.database import Database
from gridlane_kit.errors import ErrorReason, GridlaneError
from gridlane_kit.failpoints import failpoint
from gridlane_kit.jwks import MAX_KEYS
from gridlane_kit.logs import logger
from gridlane_kit.pages import page_request
from gridlane_kit.tokens import new_key

STAGED: Final = failpoint("authorization.signing_key.staged")

Rotate = signing_key_service_pb2.RotateSigningKeyRequest
_log = logger("authorization.keys")


class SigningKeys:
    """Shows the keys, and makes new ones."""

    def __init__(self, db: Database, changes: Changes, upkeep: KeyUpkeep) -> None:
        self._db = db
        self._changes = changes
        self._upkeep = upkeep
        self._rotations: set[asyncio.Task[signing_key_pb2.SigningKey]] = set()

    async def list(
        self, request: signing_key_service_pb2.ListSigningKeysRequest, call: Call
    ) -> signing_key_service_pb2.ListSigningKeysResponse:
        """Lists the keys that sign, will sign, or did and are needed still.

        Raises:
            GridlaneError: TOKEN_NOT_OURS.
        """
        page = page_request(
            NEWEST_FIRST,
            page_size=request.page_size,
            page_token=request.page_token,
            binding=(call.method, call.principal.owner),
        )
        rows, token = await self._db.read(lambda conn: signing_keys.page(conn, page, now_us()))
        return signing_key_service_pb2.ListSigningKeysResponse(
            signing_keys=map(messages.signing_key, rows), next_page_token=token
        )

    async def rotate(self, request: Rotate, call: Call) -> signing_key_pb2.SigningKey:
        """Makes a new key.

        Raises:
            GridlaneError: PRECONDITION: a key waits already, or the files cannot be written;
                REQUEST_ID_REUSED; OVERLOADED: another process has the files; STORE_UNAVAILABLE.
        """
        attempt = Attempt.of(call, request, "")
        rotation = asyncio.create_task(self._rotate(attempt, request), name="rotation of the key")
        self._rotations.add(rotation)
        rotation.add_done_callback(self._rotations.discard)
        # A caller that leaves does not cut it off between its steps.
        return await asyncio.shield(rotation)

    async def drain(self) -> None:
        """Waits for rotations under way."""
        if self._rotations:
            await asyncio.wait(self._rotations)

    async def _rotate(self, attempt: Attempt, request: Rotate) -> signing_key_pb2.SigningKey:
        try:
            async with self._upkeep.held():
                name = await self._store(attempt, request)
                await self._bring_in_line()
        except LockedError:
            raise errors.overloaded("signing keys", 1) from None
        return await self._db.read(lambda conn: _read(conn, name))

    async def _store(self, attempt: Attempt, request: Rotate) -> str:
        """Commits a new key, whose private half is on disk; returns its name, or that of the key
        that an earlier call with the same request id made."""
        key = new_key()
        kid, files = str(key.kid), self._upkeep.files
        refusal: GridlaneError | None = None
        try:
            await self._upkeep.settle_held()
            if files.jwks is None:
                refusal = _kept_elsewhere("where the public keys (JWKS) lie is not known")
            else:
                await asyncio.to_thread(files.stage, key)
                STAGED()
        except (OSError, SigningKeyError) as error:
            _log.error("the files of the signing key cannot be changed", why=str(error))
            why = error.strerror if isinstance(error, OSError) else None
            refusal = _kept_elsewhere(why or "the present key is not usable")
        waits_us, state = 0, KeyState.ACTIVE
        if request.HasField("publish_for"):
            waits_us, state = request.publish_for.ToMicroseconds(), KeyState.PUBLISHED
        now = attempt.time_us
        row = key_lives.new_row(key.as_dict(private=False), state, now, now + waits_us)
        act = partial(_begin, row, refusal, request.revoke_present, self._upkeep.longest_us)
        try:
            made = await self._changes.create(attempt, act, _read)
        except BaseException as error:
            # Of a commit whose outcome is not known the next look at the rows finds it out.
            if not _is_unknown(error):
                files.unstage(kid)
            raise
        if made.name != row.name:
            files.unstage(kid)
        return made.name

    async def _bring_in_line(self) -> None:
        try:
            await self._upkeep.settle_held()
        except (OSError, SigningKeyError) as error:
            _log.error("a new signing key is stored, and cannot be put in place", why=str(error))
            again = errors.store_unavailable()
            raise GridlaneError(
                again.reason,
                "the new key is stored, and its files could not be written yet, which is tried"
                " again and again: retry with the same request_id",
                details=again.details,
            ) from None


def _begin(
    row: StoredKey,
    refusal: GridlaneError | None,
    revoke: bool,
    longest_us: int,
    conn: Connection,
    revision: int,
) -> Changed[signing_key_pb2.SigningKey]:
    if refusal is not None:
        raise refusal
    stored, now = signing_keys.every(conn), row.create_time_us
    waiting = key_lives.in_state(stored, KeyState.PUBLISHED)
    if waiting is not None and not revoke:
        begins = to_timestamp(waiting.activate_time_us).ToJsonString()
        raise errors.precondition(
            waiting.name,
            f"{waiting.name} is published and begins to sign at {begins}: wait for that, or set"
            " revoke_present when the present key is known to others",
        )
    changed = key_lives.replaced(stored, row, revoke=revoke, now_us=now, longest_us=longest_us)
    after = {key.kid: key for key in (*stored, *changed)}.values()
    if not revoke and len(key_lives.jwks_of(list(after), now)) > MAX_KEYS:
        raise errors.precondition(
            "signingKeys",
            f"tokens of {MAX_KEYS - 1} keys before are good still, and those who verify look at no"
            " more keys: wait until ListSigningKeys shows fewer",
        )
    signing_keys.put(conn, changed)
    return Changed(row.name, "", None, messages.signing_key(row), change=None)


def _read(conn: Connection, name: str) -> signing_key_pb2.SigningKey:
    found = signing_keys.read(conn, name.removeprefix(PREFIX))
    if found is None:
        raise errors.not_found(name)
    return messages.signing_key(found)


def _is_unknown(error: BaseException) -> bool:
    return not isinstance(error, GridlaneError) or error.reason is ErrorReason.STORE_UNAVAILABLE


def _kept_elsewhere(why: str) -> GridlaneError:
    return errors.precondition(
        "signingKeys",
        f"the files of the signing key cannot be changed here ({why}): let Authorization write the"
        " folder of its key and that of the JWKS, or change both files where they are kept:"
        " 'gridlane-server rotate-key' does, and running servers take the new key up",
    )
