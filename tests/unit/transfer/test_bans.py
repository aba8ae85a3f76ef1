"""Bans: which is the strictest, whom they concern, and how long files wait."""

from typing import Any

import pytest

from gridlane.transfer.v1 import storage_ban_pb2, storage_element_pb2
from gridlane_transfer.states import FileState
from gridlane_transfer.storage.bans import (
    NEVER_US,
    Ban,
    BanAction,
    Bans,
    Barred,
    Operation,
    banned_file,
    barred,
)

SECOND = 1_000_000
ELEMENT = "storageElements/desy"


def ban(uid: str = "1", **given: Any) -> Ban:
    fields: dict[str, Any] = {
        "element": ELEMENT,
        "operations": frozenset(),
        "vo": "",
        "action": BanAction.WAIT,
        "wait_timeout_us": None,
        "accept_submissions": False,
        "expires_us": None,
        "reason": "power cut",
        "creator": "{}",
        "create_us": 100 * SECOND,
    }
    return Ban(uid, **{**fields, **given})


def together(*bans: Ban) -> Barred:
    found = barred(bans)
    assert found is not None
    return found


def test_the_words_are_the_contracts() -> None:
    for ours, theirs, prefix in (
        (Operation, storage_element_pb2.StorageOperation, "STORAGE_OPERATION_"),
        (BanAction, storage_ban_pb2.BanAction, "BAN_ACTION_"),
    ):
        expected = {name.removeprefix(prefix): number for name, number in theirs.items() if number}
        assert {one.name: int(one) for one in ours} == expected


@pytest.mark.parametrize(
    ("given", "operation", "vo", "concerned"),
    [
        ({}, Operation.READ, "atlas", True),
        ({}, Operation.READ, None, True),
        ({"operations": frozenset({Operation.WRITE})}, Operation.WRITE, None, True),
        ({"operations": frozenset({Operation.WRITE})}, Operation.READ, None, False),
        ({"vo": "atlas"}, Operation.READ, "atlas", True),
        ({"vo": "atlas"}, Operation.READ, "cms", False),
        ({"vo": "atlas"}, Operation.READ, None, False),
    ],
)
def test_whom_and_what_a_ban_concerns(
    given: dict[str, Any], operation: Operation, vo: str | None, concerned: bool
) -> None:
    bans = Bans()
    bans.replace([ban(**given)])
    assert (bans.barring(ELEMENT, operation, vo, 0) is not None) is concerned
    assert bans.barring("storageElements/cern", operation, vo, 0) is None


def test_a_ban_ends_by_itself_at_its_time() -> None:
    bans = Bans()
    bans.replace([ban(expires_us=500), ban("2", expires_us=900)])
    assert bans.next_end_us(499) == 500
    assert bans.next_end_us(500) == 900
    assert bans.barring(ELEMENT, Operation.READ, None, 899) is not None
    assert bans.barring(ELEMENT, Operation.READ, None, 900) is None
    assert bans.next_end_us(900) is None


def test_of_several_bans_the_strictest_counts() -> None:
    lenient, strict = ban("1", accept_submissions=True), ban("2")
    cancels = ban("3", action=BanAction.CANCEL)
    assert together(lenient).accepts
    assert not together(lenient, strict).accepts
    assert together(strict, lenient).ban is strict
    assert together(lenient, cancels, strict).cancels
    assert together(lenient).with_others(together(cancels)).ban is cancels


def test_a_file_waits_from_the_ban_or_its_submission_on() -> None:
    patient, hasty = ban("1", wait_timeout_us=90 * SECOND), ban("2", wait_timeout_us=30 * SECOND)
    assert together(ban()).deadline_us(0) == NEVER_US
    assert together(patient).deadline_us(0) == 190 * SECOND
    assert together(patient).deadline_us(150 * SECOND) == 240 * SECOND
    assert together(patient, hasty).deadline_us(0) == 130 * SECOND


@pytest.mark.parametrize(
    ("given", "now", "state"),
    [
        ({}, 10**15, FileState.BLOCKED),
        ({"action": BanAction.CANCEL}, 0, FileState.CANCELED),
        ({"wait_timeout_us": 10 * SECOND}, 110 * SECOND - 1, FileState.BLOCKED),
        ({"wait_timeout_us": 10 * SECOND}, 110 * SECOND, FileState.CANCELED),
    ],
)
def test_what_becomes_of_a_file_that_waits(
    given: dict[str, Any], now: int, state: FileState
) -> None:
    stopped = banned_file(together(ban(**given)), 0, now)
    assert stopped.state is state
    assert stopped.bans == ["1"]
    assert "power cut" in stopped.failure.message
    assert stopped.failure.recoverable is (state is FileState.BLOCKED)
