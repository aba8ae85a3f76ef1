"""Makes written files durable: each by itself, or many of them at once.

Responsible for which system call does it, and when. `fsync` of many small files waits for the disk
once for each; `syncfs` waits once for all of them, but also for all else that waits to be written
on their file system. So it is called for several files only, while little waits on this machine,
and where it promises as much as `fsync` does: on file systems that are known to write all and to
tell of every loss, by a Linux that tells of it (PostgreSQL's `recovery_init_sync_method` weighs the
same). Wherever it is not called, or fails, each file is synced by itself and hears of its own loss.
Standard library only.
"""

import ctypes
import os
import re
from pathlib import Path
from typing import Final, Protocol

_FEW: Final = 4
_MOST_WAITING_BYTES: Final = 64 << 20
# ext2 to ext4, and XFS. Not FUSE, which does not ask its server, nor overlayfs, which tells of no
# loss below it.
_KNOWN: Final = frozenset({0xEF53, 0x58465342})
_TELLS_SINCE: Final = (5, 8)
_SYNC_FILE_RANGE_WRITE: Final = 2
# What `statfs` fills takes 120 bytes; it begins with the kind of the file system.
_Statfs = ctypes.c_long * 32

_MEMORY: Final = Path("/proc/meminfo")

# Linux's; the standard library does not have them.
_libc = ctypes.CDLL(None)
_syncfs = getattr(_libc, "syncfs", None)
_fstatfs = getattr(_libc, "fstatfs", None)
_sync_file_range = getattr(_libc, "sync_file_range", None)
if _sync_file_range is not None:
    _sync_file_range.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]


class _File(Protocol):
    """A file that is written."""

    descriptor: int


def write_out(descriptor: int, offset: int = 0, count: int = 0) -> None:
    """Have the kernel begin to write a range to the disk, so that a sync has little left to do.

    A hint: what it says of errors is said by the sync as well.

    Parameters:
        count: bytes; 0 for all up to the end.
    """
    if _sync_file_range is not None:
        _sync_file_range(descriptor, offset, count, _SYNC_FILE_RANGE_WRITE)


class SharedSync:
    """Syncs files of one file system together, for a moment; used by one thread.

    Parameters:
        descriptor: of anything there, opened before any of the files was written: the kernel tells
            it of every loss since then. It stays the caller's.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._written: list[_File] = []
        self._durable: set[_File] = set()

    def expect(self, file: _File) -> None:
        """Take note of a file to which nothing more is written, and which will be synced."""
        self._written.append(file)

    def sync(self, file: _File) -> None:
        """Make a file durable, and with it those that are expected, where that is cheaper.

        Raises:
            OSError: it may not be.
        """
        if self._written:
            if len(self._written) >= _FEW and _sync_all(self._descriptor):
                self._durable.update(self._written)
            else:
                for one in self._written:
                    write_out(one.descriptor)
            self._written.clear()
        if file in self._durable:
            self._durable.remove(file)
        else:
            os.fsync(file.descriptor)


def _sync_all(descriptor: int) -> bool:
    """Make all durable that is on a file system; False when it may not be, and when that might take
    long.
    """
    return (
        _syncfs is not None
        and _tells_of_losses()
        and _kind(descriptor) in _KNOWN
        and _waiting_bytes() <= _MOST_WAITING_BYTES
        and _syncfs(descriptor) == 0
    )


def _tells_of_losses() -> bool:
    """Whether `syncfs` says that something could not be written."""
    found = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return found is not None and (int(found[1]), int(found[2])) >= _TELLS_SINCE


def _kind(descriptor: int) -> int:
    """The number of a kind of file system (`statfs(2)`); -1 when it is not told."""
    told = _Statfs()
    if _fstatfs is None or _fstatfs(descriptor, told) != 0:
        return -1
    return told[0]


def _waiting_bytes() -> int:
    """What waits to be written to all disks of this machine; more than anything when not told."""
    try:
        found = dict(re.findall(rb"(Dirty|Writeback): *(\d+) kB", _MEMORY.read_bytes()))
        return (int(found[b"Dirty"]) + int(found[b"Writeback"])) << 10
    except (OSError, KeyError):
        return _MOST_WAITING_BYTES + 1
