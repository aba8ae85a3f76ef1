"""What statuses and troubles mean to a transfer: the tables, row by row."""

import pytest

from gridlane_transfer.backends.embedded.webdav.meanings import (
    STATUSES,
    TROUBLES,
    Side,
    failure,
)
from gridlane_transfer.backends.embedded.webdav.troubles import Kind, StatusError, TroubleError
from gridlane_transfer.moving.failures import FailureClass

# Written a second time by hand: status, class, recoverable.
SOURCE = [
    (400, "SOURCE_UNREADABLE", False),
    (401, "CREDENTIAL", False),
    (403, "SOURCE_UNREADABLE", False),
    (404, "SOURCE_MISSING", False),
    (408, "TIMED_OUT", True),
    (410, "SOURCE_MISSING", False),
    (412, "SOURCE_UNREADABLE", True),
    (416, "SOURCE_UNREADABLE", True),
    (423, "SOURCE_UNREADABLE", True),
    (429, "SOURCE_UNREADABLE", True),
    (500, "SOURCE_UNREADABLE", True),
    (502, "SOURCE_UNREADABLE", True),
    (503, "SOURCE_UNREADABLE", True),
    (504, "SOURCE_UNREADABLE", True),
]
TARGET = [
    (400, "TARGET_UNWRITABLE", False),
    (401, "CREDENTIAL", False),
    (403, "TARGET_UNWRITABLE", False),
    (404, "TARGET_UNWRITABLE", False),
    (405, "TARGET_UNWRITABLE", False),
    (408, "TIMED_OUT", True),
    (409, "TARGET_UNWRITABLE", False),
    (412, "TARGET_EXISTS", False),
    (413, "NO_SPACE", False),
    (414, "TARGET_UNWRITABLE", False),
    (415, "BACKEND_REFUSED", False),
    (423, "TARGET_UNWRITABLE", True),
    (429, "TARGET_UNWRITABLE", True),
    (500, "TARGET_UNWRITABLE", True),
    (501, "BACKEND_REFUSED", False),
    (502, "TARGET_UNWRITABLE", True),
    (503, "TARGET_UNWRITABLE", True),
    (504, "TARGET_UNWRITABLE", True),
    (507, "NO_SPACE", False),
]
ROWS = [(Side.SOURCE, *row) for row in SOURCE] + [(Side.TARGET, *row) for row in TARGET]
TROUBLE = [
    ("FORBIDDEN_ADDRESS", "BACKEND_REFUSED", False),
    ("UNRESOLVED", "BACKEND_REFUSED", True),
    ("UNREACHABLE", "BACKEND_REFUSED", True),
    ("TIMED_OUT", "TIMED_OUT", True),
    ("BROKEN", "BACKEND_LOST", True),
    ("CERTIFICATE", "BACKEND_REFUSED", False),
    ("TLS", "BACKEND_REFUSED", True),
    ("REDIRECT", "BACKEND_REFUSED", False),
    ("PROTOCOL", "BACKEND_REFUSED", False),
    ("CHANGED", "SOURCE_UNREADABLE", True),
]


@pytest.mark.parametrize(("side", "status", "name", "recoverable"), ROWS)
def test_a_status(side: Side, status: int, name: str, recoverable: bool) -> None:
    failed = failure(side, StatusError(status, "its words"), "https://se/x")
    assert (failed.failure_class, failed.recoverable) == (FailureClass(name), recoverable)
    assert "https://se/x" in failed.message
    assert f"HTTP {status}: its words" in failed.message
    assert failed.cure or status in (400, 413, 415)


@pytest.mark.parametrize("side", Side)
@pytest.mark.parametrize(("kind", "name", "recoverable"), TROUBLE)
def test_a_trouble(side: Side, kind: str, name: str, recoverable: bool) -> None:
    failed = failure(side, TroubleError(Kind(kind), "why"), "https://se/x")
    assert (failed.failure_class, failed.recoverable) == (FailureClass(name), recoverable)
    assert failed.message.endswith("https://se/x (why)")
    assert failed.cure
    assert "{" not in failed.message


def test_every_row_is_tested() -> None:
    assert set(STATUSES[Side.SOURCE]) <= {status for status, *_ in SOURCE}
    assert set(STATUSES[Side.TARGET]) <= {status for status, *_ in TARGET}
    assert set(TROUBLES) == {Kind(kind) for kind, *_ in TROUBLE} == set(Kind)
