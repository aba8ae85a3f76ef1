"""Files of directories as the ends of a copy. Responsible for their system calls and for what an
OSError means at each end; how a place is reached without leaving its directory is `places`'.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress

from gridlane_transfer.backends.embedded.checksums import Checksums
from gridlane_transfer.backends.embedded.ends import (
    BLOCK_BYTES,
    Content,
    Control,
    Found,
    Source,
    SourceError,
    Target,
)
from gridlane_transfer.backends.embedded.places import (
    Folder,
    Folders,
    NewFile,
    Place,
    remove_file,
    remove_leftover,
    sync_file,
)
from gridlane_transfer.moving.failures import (
    Failed,
    MoveError,
    canceled,
    source_failure,
    target_failure,
)

# So much is handed to the disk at once while a large file is still being copied.
_WRITE_OUT_BYTES = 8 << 20
_ANEW = Folders()


class LocalSource(Source):
    """A file of a directory, open for reading."""

    def __init__(self, place: Place, folders: Folders = _ANEW) -> None:
        self._place = place
        with _source_meaning(place), folders.of(place) as folder:
            self._descriptor, known = folder.open_known(place.name)
        self.size = known.st_size

    def read_some(self, block: memoryview) -> int:
        try:
            return os.readv(self._descriptor, [block])
        except OSError as error:
            raise SourceError(source_failure(error, self._place.shown)) from error

    def is_whole(self, total: int) -> bool:
        return total == os.fstat(self._descriptor).st_size

    def close(self) -> None:
        os.close(self._descriptor)


class LocalTarget(Target):
    """A file being written in a directory.

    Parameters:
        create: make what is missing of the directory.
    """

    reads_back = True

    def __init__(
        self, place: Place, temporary: str, *, create: bool = True, folders: Folders = _ANEW
    ) -> None:
        self._meaning = _target_meaning(place)
        self._written = 0
        with self._meaning:
            self._new = NewFile(place, temporary, create=create, folders=folders)

    def write(self, data: memoryview) -> None:
        with self._meaning:
            self._new.write(data)
        before = self._written
        self._written += len(data)
        if self._written // _WRITE_OUT_BYTES > before // _WRITE_OUT_BYTES:
            begin = before // _WRITE_OUT_BYTES * _WRITE_OUT_BYTES
            self._new.write_out(begin, _WRITE_OUT_BYTES)

    def read_back(self, offset: int, block: memoryview) -> None:
        with self._meaning:
            if os.preadv(self._new.descriptor, [block], offset) != len(block):
                raise OSError(errno.EIO, os.strerror(errno.EIO))

    def write_out(self) -> None:
        self._new.written()

    def finish(self) -> None:
        with self._meaning:
            self._new.sync()

    def content(self, algorithms: Iterable[str]) -> Content:
        checksums, block = Checksums(algorithms), memoryview(bytearray(BLOCK_BYTES))
        offset = 0
        with self._meaning:
            while count := os.preadv(self._new.descriptor, [block], offset):
                checksums.update(block[:count])
                offset += count
        return Content(offset, checksums.values())

    def publish(self, *, overwrite: bool) -> None:
        with self._meaning:
            self._new.give_name(overwrite=overwrite)

    def settle(self) -> None:
        with self._meaning:
            self._new.settle()

    def discard(self) -> None:
        # What stays all the same is removed by its name, when the next attempt begins.
        with suppress(OSError):
            self._new.discard()

    def leave(self) -> None:
        self._new.close()


def refuse_taken(place: Place, *, overwrite: bool, create: bool, folders: Folders = _ANEW) -> None:
    """Say early what publishing would say late."""
    with _target_meaning(place), folders.of(place, create=create) as folder:
        found = folder.stat(place.name)
        if found is not None and stat.S_ISDIR(found.st_mode):
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
        if found is not None and not overwrite:
            raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))


def remove_leftovers(place: Place, names: Iterable[str], folders: Folders = _ANEW) -> None:
    """Remove what earlier attempts left."""
    with _target_meaning(place):
        for name in names:
            remove_leftover(place, name, folders)


def content(place: Place, algorithms: Iterable[str], control: Control) -> Content:
    """Read a whole file.

    Raises:
        SourceError: it cannot be read.
        MoveError: CANCELED.
    """
    checksums, block = Checksums(algorithms), memoryview(bytearray(BLOCK_BYTES))
    source = LocalSource(place)
    try:
        total = 0
        while count := source.read_some(block):
            if control.stopped():
                raise MoveError(canceled())
            checksums.update(block[:count])
            total += count
            control.moved(0)
        return Content(total, checksums.values())
    finally:
        source.close()


def make_durable(place: Place) -> None:
    """Have a file and its name durable."""
    with _target_meaning(place):
        sync_file(place)


def found(place: Place) -> Found:
    """What is known of a file.

    Raises:
        SourceError: it is not there, or is no file.
    """
    with _source_meaning(place), Folder.of(place) as folder:
        descriptor, known = folder.open_known(place.name)
        os.close(descriptor)
    return Found(known.st_size, {}, known.st_mtime)


def remove(place: Place) -> bool:
    """Remove a file durably; False when it was not there."""
    with _target_meaning(place):
        return remove_file(place)


class _Meaning:
    """Turns an OSError of a block into what it means at an end; may be used again and again."""

    def __init__(
        self, place: Place, failure: Callable[[OSError, str], Failed], raised: type[MoveError]
    ) -> None:
        self._shown = place.shown
        self._failure = failure
        self._raised = raised

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, OSError):
            raise self._raised(self._failure(error, self._shown)) from error


def _source_meaning(place: Place) -> _Meaning:
    return _Meaning(place, source_failure, SourceError)


def _target_meaning(place: Place) -> _Meaning:
    return _Meaning(place, target_failure, MoveError)
