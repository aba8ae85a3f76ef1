"""Which failures are tried again: every row of the tables, literally (FTS3's rules, and gLite's
Waiting against Failed).
"""

import errno
import os

import pytest

from gridlane.type.v1 import failure_pb2
from gridlane_transfer.moving import failures
from gridlane_transfer.moving.failures import (
    FailureClass,
    canceled,
    source_failure,
    target_failure,
    timed_out,
    wrong_content,
)

C = FailureClass
FINAL = {
    "source": {
        errno.ENOENT: C.SOURCE_MISSING,
        errno.ENOTDIR: C.SOURCE_MISSING,
        errno.ENAMETOOLONG: C.SOURCE_MISSING,
        errno.EISDIR: C.SOURCE_UNREADABLE,
        errno.ELOOP: C.SOURCE_UNREADABLE,
        errno.EACCES: C.SOURCE_UNREADABLE,
        errno.EPERM: C.SOURCE_UNREADABLE,
        errno.EINVAL: C.SOURCE_UNREADABLE,
    },
    "target": {
        errno.EEXIST: C.TARGET_EXISTS,
        errno.ENOSPC: C.NO_SPACE,
        errno.EDQUOT: C.NO_SPACE,
        errno.EFBIG: C.NO_SPACE,
        errno.EROFS: C.TARGET_UNWRITABLE,
        errno.ENOTDIR: C.TARGET_UNWRITABLE,
        errno.EISDIR: C.TARGET_UNWRITABLE,
        errno.ELOOP: C.TARGET_UNWRITABLE,
        errno.EACCES: C.TARGET_UNWRITABLE,
        errno.EPERM: C.TARGET_UNWRITABLE,
        errno.ENAMETOOLONG: C.TARGET_UNWRITABLE,
        errno.EINVAL: C.TARGET_UNWRITABLE,
    },
}
"""What trying again, unchanged, cannot help, by the end that the system call was for."""
OTHERWISE = {"source": C.SOURCE_UNREADABLE, "target": C.TARGET_UNWRITABLE}
CLASSIFY = {"source": source_failure, "target": target_failure}
EVERY = [(end, number) for end in FINAL for number in sorted(errno.errorcode)]


@pytest.mark.parametrize(("end", "number"), EVERY, ids=lambda one: errno.errorcode.get(one, one))
def test_what_an_error_of_the_system_means(end: str, number: int) -> None:
    failed = CLASSIFY[end](OSError(number, os.strerror(number)), "LFN:/local/x")
    assert failed.failure_class is FINAL[end].get(number, OTHERWISE[end])
    assert failed.recoverable is (number not in FINAL[end])
    assert "LFN:/local/x" in failed.message


@pytest.mark.parametrize("end", FINAL)
def test_every_row_of_the_table_is_one_of_these(end: str) -> None:
    table = {"source": failures._SOURCE, "target": failures._TARGET}[end]
    assert {number: row[0] for number, row in table.items()} == FINAL[end]
    assert all(what for _, what, _ in table.values())


def test_other_bytes_and_cancels_are_final_and_time_limits_as_said() -> None:
    mismatch = wrong_content("the source", "LFN:/local/x", "ADLER32:00", "ADLER32:11")
    assert (mismatch.failure_class, mismatch.recoverable) == (C.CHECKSUM_MISMATCH, False)
    assert (canceled().failure_class, canceled().recoverable) == (C.CANCELED, False)
    assert not timed_out("late").recoverable
    assert timed_out("slow", recoverable=True).recoverable


def test_the_classes_are_those_of_the_contract() -> None:
    known = failure_pb2.FailureClass.keys()
    assert {f"FAILURE_CLASS_{one.value}" for one in FailureClass} <= set(known)
