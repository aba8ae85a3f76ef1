"""Why a file could not be moved: classes, messages, cures, and whether trying again can help.

Responsible for turning what the operating system says into the contract's failure classes. Which
class is not retried is FTS3's list: an existing target, a missing source, EPERM and EACCES, a wrong
checksum, no space. Needs the standard library only, since the mover's workers import it.
"""

import errno
import os
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class FailureClass(StrEnum):
    """The classes of `gridlane.type.v1.FailureClass` that a transfer can end with."""

    SOURCE_MISSING = "SOURCE_MISSING"
    SOURCE_UNREADABLE = "SOURCE_UNREADABLE"
    TARGET_EXISTS = "TARGET_EXISTS"
    TARGET_UNWRITABLE = "TARGET_UNWRITABLE"
    NO_SPACE = "NO_SPACE"
    CHECKSUM_MISMATCH = "CHECKSUM_MISMATCH"
    CATALOGUE = "CATALOGUE"
    PERMISSION = "PERMISSION"
    BACKEND_LOST = "BACKEND_LOST"
    BACKEND_REFUSED = "BACKEND_REFUSED"
    STORAGE_BANNED = "STORAGE_BANNED"
    CANCELED = "CANCELED"
    TIMED_OUT = "TIMED_OUT"
    CREDENTIAL = "CREDENTIAL"
    NO_REPLICA = "NO_REPLICA"
    INTERNAL = "INTERNAL"


@dataclass(frozen=True, slots=True)
class TargetFound:
    """What lies at a target already.

    Parameters:
        checksum: `ALGORITHM:hex`; empty when the storage does not say.
    """

    size_bytes: int
    checksum: str = ""


@dataclass(frozen=True, slots=True)
class Failed:
    """A failure.

    Parameters:
        failure_class: the class, by which programs decide.
        message: what happened, naming the path or value.
        cure: what the user can do; empty when nothing.
        recoverable: whether trying again, unchanged, can succeed.
        moved_bytes: what the attempt had moved when it failed.
        target: what lies at the target, when it was there and that was asked for.
        together: several that were moved together ended so, by the fault of one of them.
    """

    failure_class: FailureClass
    message: str
    cure: str = ""
    recoverable: bool = False
    moved_bytes: int = 0
    target: TargetFound | None = None
    together: bool = False


class MoveError(Exception):
    """Ends a copy or a write with a failure."""

    def __init__(self, failed: Failed) -> None:
        super().__init__(failed.message)
        self.failed = failed


_UNREADABLE, _UNWRITABLE = FailureClass.SOURCE_UNREADABLE, FailureClass.TARGET_UNWRITABLE

# errno → (class, what is wrong, cure). What no table has is taken for passing and is tried again.
_SOURCE: Mapping[int, tuple[FailureClass, str, str]] = {
    errno.ENOENT: (
        FailureClass.SOURCE_MISSING,
        "the source does not exist",
        "check the name; a file is there only after the call that wrote it was answered",
    ),
    errno.ENOTDIR: (
        FailureClass.SOURCE_MISSING,
        "the source does not exist: a part of its path is a file",
        "check the name",
    ),
    errno.EISDIR: (_UNREADABLE, "the source is a directory", "name a file in it"),
    errno.ELOOP: (_UNREADABLE, "the source's path has a symbolic link", "name the file itself"),
    errno.EACCES: (
        _UNREADABLE,
        "the server may not read the source",
        "let the server's user read the file and enter its directories",
    ),
    errno.EPERM: (
        _UNREADABLE,
        "the server may not read the source",
        "let the server's user read the file and enter its directories",
    ),
    errno.ENAMETOOLONG: (
        FailureClass.SOURCE_MISSING,
        "the source's name is too long",
        "shorten it",
    ),
    errno.EINVAL: (_UNREADABLE, "the source is not a regular file", "name a regular file"),
}
_TARGET: Mapping[int, tuple[FailureClass, str, str]] = {
    errno.EEXIST: (
        FailureClass.TARGET_EXISTS,
        "the target exists",
        "choose another name, remove it first, or allow overwriting",
    ),
    errno.ENOSPC: (FailureClass.NO_SPACE, "there is no room for the target", "free some space"),
    errno.EDQUOT: (FailureClass.NO_SPACE, "the quota for the target is used up", "free some space"),
    errno.EFBIG: (FailureClass.NO_SPACE, "the target's file system takes no file this big", ""),
    errno.EROFS: (
        _UNWRITABLE,
        "the target lies on a read-only file system",
        "have it mounted writable, or choose another target",
    ),
    errno.ENOTDIR: (
        _UNWRITABLE,
        "a part of the target's path is a file, not a directory",
        "choose another target",
    ),
    errno.EISDIR: (_UNWRITABLE, "the target is a directory", "name a file in it"),
    errno.ELOOP: (
        _UNWRITABLE,
        "the target's path has a symbolic link",
        "name the directory itself",
    ),
    errno.EACCES: (
        _UNWRITABLE,
        "the server may not write to the target's directory",
        "let the server's user write there",
    ),
    errno.EPERM: (
        _UNWRITABLE,
        "the server may not write to the target's directory",
        "let the server's user write there",
    ),
    errno.ENAMETOOLONG: (_UNWRITABLE, "the target's name is too long", "shorten it"),
    errno.EINVAL: (_UNWRITABLE, "the target's file system does not take this name", "change it"),
}


def source_failure(error: OSError, path: str) -> Failed:
    """The failure that an error at the source means.

    Parameters:
        path: what was to be read, for the message.
    """
    return _classified(_SOURCE, _UNREADABLE, "the source cannot be read", error, path)


def target_failure(error: OSError, path: str) -> Failed:
    """The failure that an error at the target means.

    Parameters:
        path: what was to be written, for the message.
    """
    return _classified(_TARGET, _UNWRITABLE, "the target cannot be written", error, path)


def wrong_content(what: str, path: str, expected: str, actual: str) -> Failed:
    """The bytes are not those promised.

    Parameters:
        what: "the source", "the target".
        expected, actual: `ALGORITHM:hex`, or "N bytes".
    """
    return Failed(
        FailureClass.CHECKSUM_MISMATCH,
        f"{what} {path} has {actual}, expected was {expected}",
        "give the right checksum and size, or replace the file",
    )


def canceled(message: str = "the transfer was cancelled") -> Failed:
    """The end that was asked for."""
    return Failed(FailureClass.CANCELED, message)


def timed_out(message: str, cure: str = "", *, recoverable: bool = False) -> Failed:
    """A time that was set has passed."""
    return Failed(FailureClass.TIMED_OUT, message, cure, recoverable)


def _classified(
    table: Mapping[int, tuple[FailureClass, str, str]],
    other: FailureClass,
    otherwise: str,
    error: OSError,
    path: str,
) -> Failed:
    number = error.errno or 0
    if number in table:
        failure_class, what, cure = table[number]
        return Failed(failure_class, f"{what}: {path}", cure)
    return Failed(other, f"{otherwise}: {path} ({os.strerror(number)})", "", recoverable=True)
