"""Pauses between attempts: what the peer asks for, then jitter that grows, never past the end."""

import random
from collections.abc import Callable

import pytest

from gridlane_kit import errors
from gridlane_kit.errors import ErrorReason, GridlaneError
from gridlane_kit.repeats import FIRST_PAUSE_S, LONGEST_PAUSE_S, asked_s, pause_s

Draws = Callable[[float], None]
GONE = GridlaneError(ErrorReason.STORE_UNAVAILABLE, "gone")  # asks for nothing


@pytest.fixture
def draws(monkeypatch: pytest.MonkeyPatch) -> Draws:
    """Fixes what chance says."""

    def draws(value: float) -> None:
        monkeypatch.setattr(random, "random", lambda: value)

    return draws


def test_pauses_grow_to_a_bound_and_are_anywhere_below_it(draws: Draws) -> None:
    draws(1.0)
    pauses = [pause_s(GONE, attempt, 100) for attempt in range(8)]
    assert pauses == [min(FIRST_PAUSE_S * 2**n, LONGEST_PAUSE_S) for n in range(8)]
    draws(0.0)
    assert pause_s(GONE, 5, 100) == 0.0


def test_a_peer_that_asks_for_a_pause_gets_all_of_it(draws: Draws) -> None:
    draws(0.5)
    away = errors.peer_unavailable("transfer")
    assert asked_s(away) == 1.0
    assert pause_s(away, 0, 100) == 1.0 + FIRST_PAUSE_S / 2


def test_no_attempt_begins_after_the_end(draws: Draws) -> None:
    draws(0.5)
    away = errors.peer_unavailable("transfer")
    assert pause_s(away, 0, 1.1) is not None
    assert pause_s(away, 0, 1.0) is None
    assert pause_s(GONE, 0, 0.0) is None
    assert pause_s(GONE, 0, -5.0) is None
