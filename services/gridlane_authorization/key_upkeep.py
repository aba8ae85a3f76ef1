"""Has rows, files and the signer of this process agree on the signing keys.

Responsible for the steps that lead from any state to the one in which they do, each of which can be
taken again: rows learn what the files say that they do not know, and what is due by the clock; the
JWKS is written before the key that signs, so that nobody sees a token that cannot be proven; what
was staged and is not to sign is removed. They are taken at the start, at a call of
`SigningKeyService`, and again and again, by each replica: whoever comes first does it, under a lock
on the files. Not for what the lives of keys are (`key_lives`), nor for who asks for a new one
(`signing_keys`).
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from time import monotonic
from typing import Final

from joserfc.jwk import ECKey
from sqlalchemy import Connection

from gridlane_authorization import key_lives
from gridlane_authorization.key_files import (
    LONGEST_TOKEN_DAYS,
    KeyFiles,
    SigningKeyError,
    held_by_server,
)
from gridlane_authorization.key_lives import Found
from gridlane_authorization.store import policy, signing_keys
from gridlane_authorization.store.signing_keys import KeyState, StoredKey
from gridlane_kit.clock import now_us
from gridlane_kit.data_directory import LockedError
from gridlane_kit.database import Database
from gridlane_kit.errors import GridlaneError
from gridlane_kit.failpoints import failpoint
from gridlane_kit.logs import logger
from gridlane_kit.tokens import TokenSigner

MOVED: Final = failpoint("authorization.signing_key.moved")
PUBLISHED: Final = failpoint("authorization.signing_key.published")
PROMOTED: Final = failpoint("authorization.signing_key.promoted")
UNSTAGED: Final = failpoint("authorization.signing_key.unstaged")

LOOK_S: Final = 0.2
"""How often the files are looked at."""
_ASK_S: Final = 1.0
"""How often the rows are: what a replica left undone that died is done within two of these."""
_TELL_S: Final = 600.0
"""How often what does not come right is told again."""
_DAY_US: Final = 86_400_000_000
_log = logger("authorization.keys")


class KeyUpkeep:
    """Keeps the signing keys of this process what the rows say.

    Parameters:
        db: the service's database.
        files: the key's, which the replicas share.
        signer: of this process.
        longest_days: how long a token is good at most that the server makes for itself.
    """

    def __init__(
        self, db: Database, files: KeyFiles, signer: TokenSigner, longest_days: float
    ) -> None:
        self._db = db
        self.files = files
        self._signer = signer
        self.longest_us = round(max(LONGEST_TOKEN_DAYS, longest_days) * _DAY_US)
        self._rows: Sequence[StoredKey] = ()
        self._stamps: object = None
        self._asked = 0.0
        self._told: tuple[str, float] = ("", 0.0)
        self._settling = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Brings all in line, and keeps it so.

        Raises:
            SigningKeyError: the key in the file must not sign, and the one that must is not there;
                or another process keeps the files.
            GridlaneError: STORE_UNAVAILABLE.
        """
        try:
            await self.settle()
        except LockedError as error:
            raise SigningKeyError(f"the signing keys are being changed: {error}") from error
        except OSError as error:
            # Whoever keeps the files himself lets nobody write them.
            self._tell(str(error))
        present = next((row for row in self._rows if row.kid == self._signer.key.kid), None)
        if present is not None and present.state is KeyState.REVOKED:
            active = key_lives.in_state(self._rows, KeyState.ACTIVE)
            raise SigningKeyError(_lost(self.files, present.kid, active.kid if active else ""))
        self._task = asyncio.create_task(self._run(), name="authorization-keys")

    async def stop(self) -> None:
        """Ends it, not between two steps."""
        if self._task is not None:
            async with self._settling:
                self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def settle(self) -> None:
        """Brings all in line, once.

        Raises:
            SigningKeyError, LockedError, OSError: the files cannot be had, or not be written.
            GridlaneError: STORE_UNAVAILABLE.
        """
        async with self._settling, self.held():
            await self.settle_held()

    @contextlib.asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Keeps other writers of the files away, where this process can write them at all.

        Raises:
            LockedError: another one does not come to its end.
        """
        async with contextlib.AsyncExitStack() as stack:
            with contextlib.suppress(OSError):  # nobody writes here, or nobody can
                await stack.enter_async_context(held_by_server(self.files))
            yield

    async def settle_held(self) -> None:
        """As `settle`, by one who holds the lock."""
        found, key = await asyncio.to_thread(self.files.found)
        rows = await self._db.read(signing_keys.every)
        now = now_us()
        strange = found.staged - {row.kid for row in rows}
        if strange or key_lives.moved(rows, found, now, self.longest_us):
            rows = await self._db.write_after_lock(lambda conn: self._move(conn, found, now))
            MOVED()
        self._rows, self._stamps, self._asked = rows, None, monotonic()
        await self._apply(rows, found, key)
        self._stamps = self.files.stamps

    def _move(self, conn: Connection, found: Found, now: int) -> list[StoredKey]:
        # Whoever stored the row of a staged key, and lost its files' lock, has come to an end.
        policy.lock(conn)
        rows = signing_keys.every(conn)
        signing_keys.put(conn, key_lives.moved(rows, found, now, self.longest_us))
        return signing_keys.every(conn)

    async def _apply(self, rows: Sequence[StoredKey], found: Found, key: ECKey) -> None:
        """Has the files, and this process, do what the rows say.

        Raises:
            SigningKeyError, OSError: a file cannot be read or written.
        """
        now = now_us()
        wanted = key_lives.jwks_of(rows, now)
        published = key_lives.is_published(rows, found.published or (), now)
        signs = key_lives.in_state(rows, KeyState.ACTIVE)
        active = found.kid if signs is None else signs.kid
        try:
            if self.files.jwks is not None and not published:
                await asyncio.to_thread(self.files.publish, wanted)
                PUBLISHED()
            if active != found.kid:
                key = await self._promoted(active, found, key)
            await self._unstage(rows, found)
        finally:
            beside = [jwk for jwk in wanted if jwk["kid"] != key.kid]
            self._signer.replace_key(key, beside)

    async def _promoted(self, active: str, found: Found, key: ECKey) -> ECKey:
        """The key that signs from now on."""
        if active in found.staged:
            key = await asyncio.to_thread(self.files.promote, active)
            PROMOTED()
            _log.info("another key signs", kid=active)
            return key
        self._tell(_lost(self.files, found.kid, active))
        # When that one signs in this process, it goes on: another file was put in its place.
        return self._signer.key if self._signer.key.kid == active else key

    async def _unstage(self, rows: Sequence[StoredKey], found: Found) -> None:
        waiting = {row.kid for row in rows if row.state is KeyState.PUBLISHED}
        for kid in sorted(found.staged - waiting):
            await asyncio.to_thread(self.files.unstage, kid)
            UNSTAGED()

    async def _run(self) -> None:
        pause_s = LOOK_S
        while True:
            await asyncio.sleep(pause_s)
            pause_s = LOOK_S
            try:
                if await self._is_due():
                    await self.settle()
            except (GridlaneError, SigningKeyError, LockedError, OSError) as error:
                self._tell(str(error))
                pause_s = _ASK_S
            except Exception as error:  # a defect: told each time, and never the end of looking
                _log.critical("the signing keys cannot be looked after", exc_info=error)

    async def _is_due(self) -> bool:
        """Whether files or rows are not what they were, or a key is to begin."""
        next_key = key_lives.in_state(self._rows, KeyState.PUBLISHED)
        begins = next_key is not None and now_us() >= next_key.activate_time_us
        if begins or self.files.stamps != self._stamps:
            return True
        if monotonic() < self._asked + _ASK_S:
            return False
        self._asked = monotonic()
        return list(await self._db.read(signing_keys.every)) != list(self._rows)

    def _tell(self, what: str) -> None:
        """Tells what is wrong, and not again at each look."""
        told, when = self._told
        if told != what or monotonic() > when + _TELL_S:
            self._told = (what, monotonic())
            _log.error("the signing keys cannot be brought in line", why=what)


def _lost(files: KeyFiles, present: str, active: str) -> str:
    return (
        f"{files.key} holds the key {present}, and the one that signs by the database is {active},"
        f" whose private half is not there: put it back as {files.staged(active)}, or have a new"
        " one made by 'gridlane-server rotate-key'"
    )
