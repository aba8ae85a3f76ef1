"""Pacing: a lone caller never waits, many at once wait a moment for company."""

import asyncio

from gridlane_kit.pacing import Pace


async def _waited_s(pace: Pace) -> float:
    loop = asyncio.get_running_loop()
    begun = loop.time()
    await pace.wait()
    return loop.time() - begun


async def _turns_while_waiting(pace: Pace) -> int:
    """How often the event loop went round before `wait` came back."""
    waiting = asyncio.ensure_future(pace.wait())
    turns = 0
    while not waiting.done():
        turns += 1
        await asyncio.sleep(0)
    return turns


async def test_a_lone_caller_goes_on_at_once() -> None:
    pace = Pace()
    for _ in range(100):
        pace.grouped(1)
        assert await _turns_while_waiting(pace) <= 2


async def test_after_a_group_of_many_the_next_one_waits_a_moment() -> None:
    pace = Pace()
    pace.grouped(10)
    assert await _waited_s(pace) >= 0.001


async def test_the_wait_ends_when_the_many_are_gone() -> None:
    pace = Pace()
    pace.grouped(10)
    await asyncio.sleep(0.1)
    assert await _turns_while_waiting(pace) <= 2
