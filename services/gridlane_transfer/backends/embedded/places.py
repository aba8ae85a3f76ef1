"""Files below a storage element's directory: opened without ever leaving it, written whole or not
at all.

Responsible for walking a path without following symbolic links (each component is opened relative
to the one before, so that a link planted meanwhile leads nowhere), for the temporary name, and for
the atomic, durable publication. Raises plain OSError; what it means to a transfer is decided by
`failures`. Standard library only.
"""

import ctypes
import errno
import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_SYNC_FILE_RANGE_WRITE = 2
# Linux's; the standard library does not have it.
_sync_file_range = getattr(ctypes.CDLL(None), "sync_file_range", None)
if _sync_file_range is not None:
    _sync_file_range.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a file lies or is to lie.

    Parameters:
        base: the storage element's directory, absolute.
        relative: the path below it, plain: no empty, `.` or `..` components.
        shown: what messages call it; its user's word, never the whole path.
    """

    base: str
    relative: str
    shown: str

    @property
    def name(self) -> str:
        """The last component."""
        return self.relative.rpartition("/")[2]


class Folder:
    """An open directory that holds a place; a context manager."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    @classmethod
    def of(cls, place: Place, *, create: bool = False) -> Self:
        """Open the directory of a place.

        Parameters:
            create: make what is missing of it, durably.

        Raises:
            OSError: ELOOP for a symbolic link on the way, ENOTDIR for a file, and what else may be.
        """
        *parents, _ = place.relative.split("/")
        # The base itself is the operator's and may be reached through links.
        descriptor = os.open(place.base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        for name in parents:
            try:
                below = _enter(descriptor, name, create)
            finally:
                os.close(descriptor)
            descriptor = below
        return cls(descriptor)

    def stat(self, name: str) -> os.stat_result | None:
        """What is known of a name in it, links not followed; None when there is none."""
        try:
            return os.stat(name, dir_fd=self.descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def open_file(self, name: str) -> int:
        """Open a regular file for reading; the descriptor is the caller's.

        Raises:
            OSError: EISDIR or EINVAL when it is a directory or another thing that is no regular
                file.
        """
        descriptor = os.open(name, _READ, dir_fd=self.descriptor)
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISREG(mode):
            return descriptor
        os.close(descriptor)
        raise _os_error(errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL, name)

    def remove(self, name: str) -> bool:
        """Unlink a name; False when it was not there."""
        try:
            os.unlink(name, dir_fd=self.descriptor)
        except FileNotFoundError:
            return False
        return True

    def sync(self) -> None:
        """Make what was made, renamed or removed in it durable."""
        os.fsync(self.descriptor)

    def renamed(self) -> None:
        """Take note that a name in it has changed, which `sync` will make durable."""

    def close(self) -> None:
        """Let go of it."""
        os.close(self.descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class Folders:
    """Opens the directories of places, each time anew."""

    def of(self, place: Place, *, create: bool = False) -> Folder:
        """As `Folder.of`."""
        return Folder.of(place, create=create)


class KeptFolders(Folders):
    """Opens each directory once, and keeps it for several files, for a moment; used by one thread.

    What is renamed in a directory while it is kept is made durable together.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], _Kept] = {}

    def of(self, place: Place, *, create: bool = False) -> Folder:
        key = place.base, place.relative.rpartition("/")[0]
        found = self._kept.get(key)
        if found is None:
            found = self._kept[key] = _Kept.of(place, create=create)
        return found

    def close(self) -> None:
        """Let go of all of them."""
        for folder in self._kept.values():
            folder.let_go()
        self._kept.clear()


class _Kept(Folder):
    """A directory that several files share."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor)
        self._renamed = False
        self._lost: OSError | None = None

    def sync(self) -> None:
        if self._renamed:
            self._renamed = False
            try:
                super().sync()
            except OSError as error:
                # The kernel tells it once, and it is true for all whose names changed.
                self._lost = error
        if self._lost is not None:
            raise _os_error(self._lost.errno or errno.EIO, "the directory")

    def renamed(self) -> None:
        self._renamed = True

    def close(self) -> None:
        pass

    def let_go(self) -> None:
        """Let go of it for good."""
        super().close()


_ANEW = Folders()


class NewFile:
    """A file being written under a temporary name in the directory of its place.

    Exactly one of `publish` (or its two steps, `give_name` and `settle`) and `discard` ends it.
    What a process that dies leaves is removed by its name (`remove_leftover`).
    """

    def __init__(
        self, place: Place, temporary: str, *, create: bool = True, folders: Folders = _ANEW
    ) -> None:
        self._place = place
        self._temporary = temporary
        self._folder = folders.of(place, create=create)
        try:
            self.descriptor = os.open(temporary, _CREATE, 0o666, dir_fd=self._folder.descriptor)
        except BaseException:
            self._folder.close()
            raise

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes, all of them."""
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self.descriptor, rest) :]

    def write_out(self, offset: int, count: int) -> None:
        """Have the kernel begin to write a range to the disk, so that `sync` has little left to do.

        A hint: what it says of errors is said by `sync` as well.
        """
        if _sync_file_range is not None:
            _sync_file_range(self.descriptor, offset, count, _SYNC_FILE_RANGE_WRITE)

    def sync(self) -> None:
        """Make the bytes durable, and find out whether they all found room."""
        os.fsync(self.descriptor)

    def publish(self, *, overwrite: bool) -> None:
        """Give it its own name, in one step and durably; `sync` went before.

        Raises:
            FileExistsError: the name is taken and `overwrite` is not set; nothing was replaced.
        """
        self.give_name(overwrite=overwrite)
        self.settle()

    def give_name(self, *, overwrite: bool) -> None:
        """As `publish`, but that the name is durable with `settle` alone."""
        folder = self._folder.descriptor
        self._folder.renamed()
        if overwrite:
            os.rename(self._temporary, self._place.name, src_dir_fd=folder, dst_dir_fd=folder)
        else:
            # A hard link is never made over an existing name; rename would replace it.
            os.link(self._temporary, self._place.name, src_dir_fd=folder, dst_dir_fd=folder)
            os.unlink(self._temporary, dir_fd=folder)

    def settle(self) -> None:
        """Make the name durable."""
        self._folder.sync()
        self.close()

    def discard(self) -> None:
        """Remove it; its descriptors are closed also when that fails."""
        try:
            self._folder.remove(self._temporary)
        finally:
            self.close()

    def close(self) -> None:
        """Let go of the descriptors alone; the temporary file stays."""
        os.close(self.descriptor)
        self._folder.close()


def remove_leftover(place: Place, temporary: str, folders: Folders = _ANEW) -> None:
    """Remove what a writer that died may have left beside a place; nothing there is fine."""
    try:
        with folders.of(place) as folder:
            folder.remove(temporary)
    except (FileNotFoundError, NotADirectoryError):
        return


def sync_file(place: Place) -> None:
    """Make a file that is there, and its name, durable."""
    with Folder.of(place) as folder:
        descriptor = folder.open_file(place.name)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        folder.sync()


def remove_file(place: Place) -> bool:
    """Remove a file durably; False when it was not there.

    Raises:
        OSError: EISDIR for a directory, and what else may be.
    """
    try:
        with Folder.of(place) as folder:
            found = folder.stat(place.name)
            if found is None:
                return False
            if stat.S_ISDIR(found.st_mode):
                raise _os_error(errno.EISDIR, place.name)
            removed = folder.remove(place.name)
            folder.sync()
            return removed
    except (FileNotFoundError, NotADirectoryError):
        return False


def _enter(parent: int, name: str, create: bool) -> int:
    try:
        return os.open(name, _FOLDER, dir_fd=parent)
    except FileNotFoundError:
        if not create:
            raise
    except NotADirectoryError:
        # The kernel says ENOTDIR of a link that it was told not to follow.
        if stat.S_ISLNK(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            raise _os_error(errno.ELOOP, name) from None
        raise
    with suppress(FileExistsError):  # made by another writer meanwhile
        os.mkdir(name, dir_fd=parent)
    try:
        os.fsync(parent)
    except OSError:
        # Whoever comes next would take it for durable: it is not there, unless it is used already.
        with suppress(OSError):
            os.rmdir(name, dir_fd=parent)
        raise
    return os.open(name, _FOLDER, dir_fd=parent)


def _os_error(number: int, path: str) -> OSError:
    return OSError(number, os.strerror(number), path)
