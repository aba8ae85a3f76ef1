"""One upload: bytes under a temporary name, verified, published and registered, or nothing at all.

Responsible for the order of steps and for what is left after a failure, a caller that goes away, or
a process that dies: another one ends its uploads in its place. Files are written in threads. Who
may write where is decided in `content`.

A process that was only paused meanwhile publishes nothing: it notes in the store that its bytes are
whole when its temporary file is there, which is refused once its lease was taken; and who takes it
removes the temporary file before all else.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TypeVar

from sqlalchemy import Connection

from gridlane.ids import uuid7
from gridlane_kit import errors, logs
from gridlane_kit.background import Background
from gridlane_kit.clock import now_us
from gridlane_kit.database import Database
from gridlane_kit.errors import GridlaneError
from gridlane_kit.failpoints import failpoint
from gridlane_kit.group_commit import WriteKind
from gridlane_kit.leases import new_holder
from gridlane_transfer.backends.embedded.checksums import Checksums
from gridlane_transfer.backends.embedded.places import Folder, NewFile, Place
from gridlane_transfer.catalogue.base import ConflictError, LogicalFile, Registration
from gridlane_transfer.catalogue.replicas import conflict, registration
from gridlane_transfer.moving.failures import FailureClass, target_failure
from gridlane_transfer.storage.storage_elements import Located, StorageElements
from gridlane_transfer.store import contents, places
from gridlane_transfer.store.contents import (
    Finished,
    LostUploadError,
    Unregistered,
    Upload,
    Writer,
)
from gridlane_transfer.store.tables import TURN

T = TypeVar("T")

_BEGUN = failpoint("transfer.upload.begun")
_WRITTEN = failpoint("transfer.upload.written")
_VERIFIED = failpoint("transfer.upload.verified")
_PUBLISHED = failpoint("transfer.upload.published")
_REGISTERED = failpoint("transfer.upload.registered")
_REMOVING = failpoint("transfer.content.removing")

_BLOCK_BYTES = 1 << 20
_RECOVERED_AT_ONCE = 20
# How often it is asked whether others that write to a place have ended; less and less often.
_TURN_S = 0.02
_LONGEST_TURN_S = 0.5
# So long a put or a removal waits for a file of a transfer job, which may move for hours.
_PATIENCE_S = 5.0

_log = logs.logger("transfer.uploads")


class Uploads:
    """Begins uploads, and finishes those of a process that died.

    Parameters:
        finish: the write that registers, through the group commit; a conflict is its answer.
        exclusive: no other process has this database, so that all uploads in it are abandoned at
            start.
        lease_s: how long an upload is leased; renewed at a third of it.
    """

    def __init__(
        self,
        db: Database,
        elements: StorageElements,
        *,
        finish: WriteKind[Finished, LogicalFile | Unregistered],
        exclusive: bool,
        lease_s: float,
    ) -> None:
        self._db = db
        self._elements = elements
        self._finish = finish
        self._exclusive = exclusive
        self._ttl = timedelta(seconds=lease_s)
        self._holder = new_holder()
        self._open: dict[str, Upload] = {}
        # Each by itself: a large file that is read again lets no lease run out.
        self._loops = [
            self._again("transfer-upload-leases", self._keep_leases),
            self._again("transfer-uploads", self._recover_all),
        ]
        self._threads = ThreadPoolExecutor(8, thread_name_prefix="upload")
        self._endings: set[asyncio.Task[None]] = set()

    async def begin(self, located: Located, owner: str, algorithms: list[str]) -> "OpenUpload":
        """Make the temporary file.

        Parameters:
            algorithms: checksums to compute; the first one is registered.

        Raises:
            GridlaneError: NO_SPACE, PRECONDITION when the place cannot be written.
        """
        beginning = asyncio.ensure_future(self._begin(located, owner, algorithms))
        try:
            return await asyncio.shield(beginning)
        except asyncio.CancelledError:
            # What a thread is making for a caller that has left is unmade as soon as it is there.
            self.keep(asyncio.ensure_future(_abandon(beginning)))
            raise

    async def _begin(self, located: Located, owner: str, algorithms: list[str]) -> "OpenUpload":
        upload = self._new(located, owner)
        upload = replace(upload, temporary=f".gridlane-{upload.uuid}.part")
        await self._db.write(lambda conn: contents.begin(conn, upload, self._ttl))
        self._open[upload.uuid] = upload
        _BEGUN()
        place = place_of(located)
        try:
            file = await self.run(located, lambda: NewFile(place, upload.temporary))
        except BaseException:
            await self.forget(upload)
            raise
        return OpenUpload(self, self._finish, located, upload, file, algorithms)

    def _new(
        self, located: Located, owner: str, *, temporary: str = "", checksum: str | None = None
    ) -> Upload:
        return Upload(
            uuid=uuid7(),
            url=located.location.url,
            temporary=temporary,
            owner=owner,
            size_bytes=None,
            checksum=checksum,
            create_us=now_us(),
            lease_holder=self._holder,
            lease_epoch=1,
        )

    @asynccontextmanager
    async def removing(self, copies: Sequence[Located], owner: str) -> AsyncIterator[None]:
        """Remove files while nobody else writes to their places, from other processes too.

        Raises:
            GridlaneError: PRECONDITION: a transfer writes to one of them.
        """
        rows = [self._new(copy, owner, temporary="", checksum="") for copy in copies]
        urls = {url for copy in copies for url in self.urls(copy)}
        await self.in_turn(copies[0], lambda conn: contents.remove(conn, rows, urls, self._ttl))
        self._open.update({row.uuid: row for row in rows})
        _REMOVING()
        try:
            yield
        finally:
            for row in rows:
                self.ended(row)
            try:
                await self._db.write(partial(_forget_all, rows))
            except GridlaneError as error:
                # Their leases run out.
                _log.warning("the end of a removal could not be noted", reason=error.reason)

    def urls(self, located: Located) -> Sequence[str]:
        """All by which a place is reached."""
        location = located.location
        return places.urls_of(self._elements, location.url, location.storage_element)

    async def in_turn(self, located: Located, write: Callable[[Connection], Writer | None]) -> None:
        """Begin to write to a place, after others that do.

        Parameters:
            write: the transaction that begins, unless it finds one of them.

        Raises:
            GridlaneError: PRECONDITION: a transfer writes there, and has not ended soon.
        """
        loop = asyncio.get_running_loop()
        late_s, pause_s = loop.time() + _PATIENCE_S, _TURN_S
        while (writer := await self._db.write(write, turn=TURN)) is not None:
            if writer is Writer.FILE and loop.time() >= late_s:
                shown = located.location.shown
                raise errors.precondition(
                    shown, f"a transfer is writing to {shown}: try again when it has ended"
                )
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_TURN_S)

    async def run(self, located: Located, work: Callable[[], T]) -> T:
        """Do file work in a thread; an OSError is answered as what it means at the target."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except OSError as error:
            raise unwritable(located, error) from error

    def keep(self, ending: "asyncio.Task[None]") -> None:
        """Let a task that cleans up go on, whatever becomes of its caller."""
        self._endings.add(ending)
        ending.add_done_callback(self._endings.discard)

    async def forget(self, upload: Upload) -> None:
        """Note that an upload came to nothing."""
        self.ended(upload)
        await self._db.write(lambda conn: contents.forget(conn, upload))

    def ended(self, upload: Upload) -> None:
        """Renew its lease no more."""
        self._open.pop(upload.uuid, None)

    async def start(self) -> None:
        """Finish or undo what processes that died left, and go on doing so."""
        if self._exclusive:
            await self._db.write(contents.void_leases)
            await self._recover_all()
        for loop in self._loops:
            loop.start()

    def _again(self, name: str, work: Callable[[], Awaitable[None]]) -> Background:
        """What is done now and with every third of a lease."""
        pause_s = self._ttl.total_seconds() / 3

        async def done() -> float:
            await work()
            return pause_s

        return Background(
            done,
            name=name,
            log=_log,
            trouble="uploads could not be looked after",
            again_s=pause_s,
        )

    async def _keep_leases(self) -> None:
        if self._open:
            await self._db.write(
                partial(contents.keep, uploads=list(self._open.values()), ttl=self._ttl)
            )

    async def _recover_all(self) -> None:
        while uploads := await self._db.write(
            lambda conn: contents.claim_abandoned(conn, self._holder, self._ttl, _RECOVERED_AT_ONCE)
        ):
            for upload in uploads:
                await self._recover(upload)

    async def _recover(self, upload: Upload) -> None:
        located = self._elements.locate(upload.url) if upload.temporary else None
        try:
            published = located is not None and await self.run(
                located, partial(_recovered, located, upload)
            )
        except GridlaneError as error:
            # It is looked at again when its lease has run out; others do not wait for it.
            _log.warning("an upload cannot be cleaned up now: %s", error)
            return
        if located is None or upload.checksum is None or not published:
            await self.forget(upload)
            return
        algorithm, _, value = upload.checksum.partition(":")
        size_bytes = upload.size_bytes or 0
        copy = registration(located, upload.owner, size_bytes, {algorithm: value}, replaces=True)
        await self._db.write(
            lambda conn: contents.finish(conn, [Finished(upload, copy)], self._elements)
        )

    async def stop(self) -> None:
        """Wait for what is being cleaned up."""
        for loop in self._loops:
            await loop.stop()
        if self._endings:
            await asyncio.wait(self._endings)
        self._threads.shutdown()


class OpenUpload:
    """An upload under way: `write` the bytes, then `finish` it, or `abandon` it."""

    def __init__(
        self,
        uploads: Uploads,
        finish: WriteKind[Finished, LogicalFile | Unregistered],
        located: Located,
        upload: Upload,
        file: NewFile,
        algorithms: list[str],
    ) -> None:
        self._uploads = uploads
        self._finish = finish
        self._located = located
        self._upload = upload
        self._file = file
        self._checksums = Checksums(algorithms)
        self._working: asyncio.Future[None] | None = None
        self.size_bytes = 0

    async def write(self, data: bytes) -> None:
        """Append bytes.

        Raises:
            GridlaneError: NO_SPACE, PRECONDITION.
        """

        def work() -> None:
            self._file.write(data)
            self._checksums.update(data)

        # Shielded: a caller that goes away must not let the file be closed under the thread.
        self._working = asyncio.ensure_future(self._uploads.run(self._located, work))
        await asyncio.shield(self._working)
        self.size_bytes += len(data)

    def checksums(self) -> dict[str, str]:
        """The checksums of what was written so far, by algorithm."""
        return self._checksums.values()

    async def finish(self, *, overwrite: bool) -> None:
        """Publish and register, whatever becomes of the caller.

        Raises:
            GridlaneError: ALREADY_EXISTS when other bytes are there and `overwrite` is not set, or
                the logical name is registered with others; REVISION_CONFLICT when this process was
                held up for so long that another one ended the upload; PRECONDITION when the place
                cannot be written, or a transfer is writing to it; NO_SPACE.
        """
        ending = asyncio.ensure_future(self._finish_it(overwrite))
        self._uploads.keep(ending)
        await asyncio.shield(ending)

    async def abandon(self) -> None:
        """Leave nothing behind."""
        ending = asyncio.ensure_future(self._undo())
        self._uploads.keep(ending)
        await asyncio.shield(ending)

    async def _finish_it(self, overwrite: bool) -> None:
        values = self.checksums()
        copy = registration(
            self._located, self._upload.owner, self.size_bytes, values, replaces=overwrite
        )
        try:
            await self._publish(copy)
        except BaseException:
            await self._undo()
            raise
        _PUBLISHED()
        try:
            outcome = await self._finish(Finished(self._upload, copy))
        except LostUploadError as error:
            raise errors.revision_conflict(self._located.location.shown) from error
        finally:
            self._uploads.ended(self._upload)
        _REGISTERED()
        if isinstance(outcome, Unregistered):
            raise conflict(outcome.conflict)

    async def _publish(self, copy: Registration) -> None:
        await self._uploads.run(self._located, self._file.sync)
        _WRITTEN()
        whole = replace(self._upload, size_bytes=copy.size_bytes, checksum=copy.checksum)
        urls = self._uploads.urls(self._located)
        try:
            await self._uploads.in_turn(
                self._located, lambda conn: contents.verified(conn, whole, copy, urls)
            )
        except ConflictError as error:
            raise conflict(error) from error
        except LostUploadError as error:
            raise errors.revision_conflict(self._located.location.shown) from error
        _VERIFIED()
        await self._uploads.run(self._located, lambda: self._name(copy.checksums, copy.replaces))

    def _name(self, values: Mapping[str, str], overwrite: bool) -> None:
        try:
            self._file.publish(overwrite=overwrite)
        except FileExistsError:
            place = place_of(self._located)
            if content_of(place, list(values)) != (self.size_bytes, values):
                raise
            self._file.discard()

    async def _undo(self) -> None:
        if self._working is not None and not self._working.done():
            await asyncio.wait([self._working])
        try:
            await self._uploads.run(self._located, self._file.discard)
        except GridlaneError as error:
            # It is removed by whoever takes the upload up once its lease has run out.
            _log.warning("an upload cannot be cleaned up now: %s", error)
            self._uploads.ended(self._upload)
            return
        await self._uploads.forget(self._upload)


def _forget_all(uploads: Sequence[Upload], conn: Connection) -> None:
    for upload in uploads:
        contents.forget(conn, upload)


async def _abandon(beginning: "asyncio.Task[OpenUpload]") -> None:
    with suppress(GridlaneError):
        await (await beginning).abandon()


def content_of(place: Place, algorithms: list[str]) -> tuple[int, dict[str, str]]:
    """The size and the checksums of a file; blocks."""
    checksums = Checksums(algorithms)
    size = 0
    with Folder.of(place) as folder, os.fdopen(folder.open_file(place.name), "rb") as file:
        while block := file.read(_BLOCK_BYTES):
            checksums.update(block)
            size += len(block)
    return size, checksums.values()


def place_of(located: Located) -> Place:
    """A located file as the functions that open files want it."""
    return Place(located.location.base, located.location.relative, located.location.shown)


def unwritable(located: Located, error: OSError) -> GridlaneError:
    """What a caller is told of an error at the place it writes to."""
    failed = target_failure(error, located.location.shown)
    if failed.failure_class is FailureClass.NO_SPACE:
        return errors.no_space(located.location.storage_element.rpartition("/")[2])
    if failed.failure_class is FailureClass.TARGET_EXISTS:
        return errors.already_exists(located.location.shown)
    text = f"{failed.message}: {failed.cure}" if failed.cure else failed.message
    return errors.precondition(located.location.shown, text)


def _recovered(located: Located, upload: Upload) -> bool:
    """Remove the temporary file; whether the file had got its own name before the server died."""
    place = place_of(located)
    try:
        with Folder.of(place) as folder:
            temporary = folder.stat(upload.temporary)
            # From here on nobody can publish it, also not a process that was only paused.
            folder.remove(upload.temporary)
            final = folder.stat(place.name)
    except (FileNotFoundError, NotADirectoryError):
        return False
    if upload.checksum is None or final is None:
        return False
    # Published by rename: the temporary name is gone. By a link: both names are the same file.
    if temporary is not None and temporary.st_ino != final.st_ino:
        return False
    algorithm, _, value = upload.checksum.partition(":")
    return content_of(place, [algorithm]) == (upload.size_bytes, {algorithm: value})
