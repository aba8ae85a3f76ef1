"""Work in the background goes on: done at once, woken, after its pause, and after each failure."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from structlog.testing import capture_logs

from gridlane_kit import errors, logs
from gridlane_kit.background import Background, telling

LONG_S = 3600.0
PATIENCE_S = 10


class Work:
    """Work that counts, and answers or raises what it is told, in order; the last one again."""

    def __init__(self, *outcomes: float | BaseException | None) -> None:
        self.count = 0
        self._outcomes = list(outcomes)
        self.gate: asyncio.Event | None = None

    async def __call__(self) -> float | None:
        outcome = self._outcomes[min(self.count, len(self._outcomes) - 1)]
        self.count += 1
        if self.gate is not None:
            await self.gate.wait()
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    async def done(self, times: int) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while self.count < times:
                await asyncio.sleep(0)


@asynccontextmanager
async def started(work: Work, **given: Any) -> AsyncIterator[Background]:
    background = Background(
        work, name="test", log=logs.logger("test"), trouble="it was not done", **given
    )
    background.start()
    try:
        yield background
    finally:
        await background.stop()


async def idle() -> None:
    """Gives everything its turn that could run now."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_it_is_done_at_once_and_again_after_its_pause() -> None:
    work = Work(0.001, 0.001, LONG_S)
    async with started(work):
        await work.done(3)
        await idle()
        assert work.count == 3


async def test_it_rests_until_it_is_woken_when_it_names_no_pause() -> None:
    work = Work(None)
    async with started(work) as background:
        await work.done(1)
        await idle()
        assert work.count == 1
        background.wake()
        await work.done(2)


async def test_woken_while_it_is_done_it_is_done_once_more() -> None:
    work = Work(LONG_S)
    work.gate = asyncio.Event()
    async with started(work) as background:
        await work.done(1)
        background.wake()
        background.wake()
        work.gate.set()
        await work.done(2)
        await idle()
        assert work.count == 2


@pytest.mark.parametrize(
    ("failure", "level"),
    [
        (errors.store_unavailable(), "warning"),
        (OSError("no space left"), "warning"),
        (ValueError("a defect"), "error"),
    ],
)
async def test_a_failure_is_told_and_the_work_tried_again(failure: Exception, level: str) -> None:
    work = Work(failure, LONG_S)
    with capture_logs() as told:
        async with started(work, again_s=0.001):
            await work.done(2)
    assert [(one["event"], one["log_level"]) for one in told] == [("it was not done", level)]
    assert all((str(failure) in one.get("why", "")) or one.get("exc_info") for one in told)


async def test_a_failure_without_words_is_told_by_its_name() -> None:
    work = Work(TimeoutError(), LONG_S)
    with capture_logs() as told:
        async with started(work, again_s=0.001):
            await work.done(2)
    assert [one["why"] for one in told] == ["TimeoutError"]


async def test_a_failure_that_lasts_is_told_once_and_again_when_it_is_another() -> None:
    away, full = errors.store_unavailable(), errors.store_full()
    work = Work(away, away, full, full, away, 0.001, away, away, LONG_S)
    with capture_logs() as told:
        async with started(work, again_s=0.001):
            await work.done(9)
    assert [one["why"] for one in told] == [str(away), str(full), str(away), str(away)]


async def test_that_a_failure_still_lasts_is_told_from_time_to_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gridlane_kit.background._REMIND_S", 0.0)
    away = errors.store_unavailable()
    work = Work(away, away, away, LONG_S)
    with capture_logs() as told:
        async with started(work, again_s=0.001):
            await work.done(4)
    assert [one["why"] for one in told] == [str(away)] * 3


async def test_who_wakes_it_does_not_hurry_it_after_a_failure() -> None:
    work = Work(errors.store_unavailable(), LONG_S)
    async with started(work, again_s=LONG_S) as background:
        await work.done(1)
        background.wake()
        await idle()
        assert work.count == 1


async def test_it_may_begin_later() -> None:
    work = Work(LONG_S)
    async with started(work, first_s=LONG_S) as background:
        background.wake()
        await idle()
        assert work.count == 0


async def test_it_ends_wherever_it_is() -> None:
    work = Work(LONG_S)
    work.gate = asyncio.Event()
    async with started(work) as background:
        await work.done(1)
        async with asyncio.timeout(PATIENCE_S):
            await background.stop()
            await background.stop()
    assert work.count == 1


@pytest.mark.parametrize("failure", [None, OSError("cut off")])
async def test_it_ends_though_its_work_takes_no_notice_of_that(failure: Exception | None) -> None:
    begun = asyncio.Event()

    async def work() -> float:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if failure is not None:
                raise failure from None
        return 0.0

    background = Background(
        work, name="test", log=logs.logger("test"), trouble="it was not done", again_s=0.0
    )
    background.start()
    async with asyncio.timeout(PATIENCE_S):
        await begun.wait()
        await background.stop()


async def test_what_its_work_waits_for_may_be_cancelled() -> None:
    work = Work(asyncio.CancelledError(), LONG_S)
    with capture_logs() as told:
        async with started(work, again_s=0.001):
            await work.done(2)
    assert [one["log_level"] for one in told] == ["error"]


async def test_what_was_never_started_can_be_stopped() -> None:
    background = Background(Work(None), name="x", log=logs.logger("test"), trouble="x")
    await background.stop()


@pytest.mark.parametrize(
    ("failure", "levels"),
    [
        (None, []),
        (asyncio.CancelledError(), []),
        (errors.store_unavailable(), ["warning"]),
        (ValueError("a defect"), ["error"]),
    ],
)
async def test_how_a_task_of_the_works_own_ended_is_told(
    failure: BaseException | None, levels: list[str]
) -> None:
    async def done() -> None:
        if failure is not None:
            raise failure

    with capture_logs() as told:
        task = asyncio.create_task(done())
        task.add_done_callback(telling(logs.logger("test"), "it was not done"))
        await asyncio.wait([task])
        await idle()
    assert [one["log_level"] for one in told] == levels
    assert all(one["event"] == "it was not done" for one in told)
