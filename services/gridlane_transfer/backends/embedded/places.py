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
from types import TracebackType
from typing import NamedTuple, Self

from gridlane_transfer.backends.embedded.syncing import SharedSync, write_out

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_RENAME_NOREPLACE = 1
# Where it is not known: of the kernel, of the file system.
_NO_SUCH_RENAME = frozenset({errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP})
# Linux's; the standard library does not have it.
_renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)


class Place(NamedTuple):
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
        return self.open_known(name)[0]

    def open_known(self, name: str) -> tuple[int, os.stat_result]:
        """As `open_file`, with what is known of the file."""
        descriptor = os.open(name, _READ, dir_fd=self.descriptor)
        known = os.fstat(descriptor)
        mode = known.st_mode
        if stat.S_ISREG(mode):
            return descriptor, known
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

    def written(self, file: "NewFile") -> None:
        """Take note that a file in it is written, which `sync_file` will make durable."""

    def sync_file(self, file: "NewFile") -> None:
        """Make the bytes of a file in it durable."""
        os.fsync(file.descriptor)

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

    What is written below them while they are kept is made durable together, and what is renamed in
    one of them is.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], _Kept] = {}
        self._syncs: dict[int, SharedSync] = {}

    def of(self, place: Place, *, create: bool = False) -> Folder:
        key = place.base, place.relative.rpartition("/")[0]
        found = self._kept.get(key)
        if found is None:
            found = self._kept[key] = _Kept.of(place, create=create)
            device = os.fstat(found.descriptor).st_dev
            found.syncs = self._syncs.setdefault(device, SharedSync(found.descriptor))
        return found

    def close(self) -> None:
        """Let go of all of them."""
        for folder in self._kept.values():
            folder.let_go()
        self._kept.clear()


class _Kept(Folder):
    """A directory that several files share; `syncs` is its file system's."""

    syncs: SharedSync

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

    def written(self, file: "NewFile") -> None:
        self.syncs.expect(file)

    def sync_file(self, file: "NewFile") -> None:
        self.syncs.sync(file)

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
        """Have the kernel begin to write a range to the disk: `sync` has the less left to do."""
        write_out(self.descriptor, offset, count)

    def written(self) -> None:
        """Nothing more is written: others may be synced together with it."""
        self._folder.written(self)

    def sync(self) -> None:
        """Make the bytes durable, and find out whether they all found room."""
        self._folder.sync_file(self)

    def publish(self, *, overwrite: bool) -> None:
        """Give it its own name, in one step and durably; `sync` went before.

        Raises:
            FileExistsError: the name is taken and `overwrite` is not set; nothing was replaced.
        """
        self.give_name(overwrite=overwrite)
        self.settle()

    def give_name(self, *, overwrite: bool) -> None:
        """As `publish`, but that the name is durable with `settle` alone."""
        folder, name = self._folder.descriptor, self._place.name
        self._folder.renamed()
        if overwrite:
            os.rename(self._temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        elif not _renamed_anew(folder, self._temporary, name):
            # A hard link is never made over an existing name; rename would replace it.
            os.link(self._temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
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


def _renamed_anew(folder: int, old: str, new: str) -> bool:
    """Rename a file to a name that is free, in one step; False where there is no such step.

    Raises:
        FileExistsError: it is not free.
        OSError: it could not be renamed.
    """
    old_name, new_name = os.fsencode(old), os.fsencode(new)
    if _renameat2 is None or b"\0" in new_name:  # C would take it for the end of the name
        return False
    if _renameat2(folder, old_name, folder, new_name, _RENAME_NOREPLACE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _NO_SUCH_RENAME:
        return False
    raise _os_error(number, new)


def _os_error(number: int, path: str) -> OSError:
    return OSError(number, os.strerror(number), path)
