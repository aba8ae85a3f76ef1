"""Steps of the background loops: what went wrong with one job keeps nothing from the others."""

from collections.abc import Sequence
from typing import Any, cast

import pytest

from gridlane_transfer.moving.deadlines import Deadlines
from gridlane_transfer.moving.sweeps import Sweeps
from gridlane_transfer.store.deadlines import Ended, Late
from gridlane_transfer.store.sweeps import Sweep, SweepKind, Swept


class Store:
    """Finds two things to do, of which the first one fails."""

    def __init__(self, found: Sequence[Any], outcome: Any) -> None:
        self._found = found
        self._outcome = outcome

    async def read(self, _: Any) -> Sequence[Any]:
        return self._found

    async def many(self, entries: Sequence[Any]) -> list[Any]:
        return [ValueError("a defect"), *(self._outcome for _ in entries[1:])]


async def test_copies_of_a_cancelled_job_are_ended_though_another_job_has_a_defect() -> None:
    aborted: list[int] = []
    found = [Sweep(1, SweepKind.RANK), Sweep(2, SweepKind.CANCEL)]
    store = cast(Any, Store(found, Swept(done=True, aborted=[7])))
    sweeps = Sweeps(store, step=store, wake=lambda: None, abort=aborted.extend)
    with pytest.raises(ValueError, match="a defect"):
        await sweeps._sweep()
    assert aborted == [7]


async def test_copies_of_a_late_job_are_ended_though_another_job_has_a_defect() -> None:
    aborted: list[int] = []
    noted: list[bool] = []
    store = cast(Any, Store([Late(1), Late(2)], Ended(more=True, aborted=[7])))
    deadlines = Deadlines(store, end=store, noted=lambda: noted.append(True), abort=aborted.extend)
    with pytest.raises(ValueError, match="a defect"):
        await deadlines._look()
    assert (aborted, noted) == ([7], [True])
