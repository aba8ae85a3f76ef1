"""One source for both facades: how a verb becomes a blocking one."""

import asyncio
import inspect
from collections.abc import AsyncGenerator, AsyncIterator

import pytest

import gridlane
from gridlane.modes import finish, iterate
from gridlane.nouns import accounting, channels, jobs, replicas, spans, storage, tasks, transfers

NOUNS = [
    accounting.Accounting,
    channels.Channels,
    jobs.Jobs,
    replicas.Replicas,
    spans.Spans,
    storage.Storage,
    tasks.Tasks,
    transfers.Transfers,
]


async def seven() -> int:
    return 7


async def counting(closed: list[int]) -> AsyncGenerator[int]:
    try:
        for number in range(5):
            yield number
    finally:
        closed.append(1)


def test_a_coroutine_that_never_suspends_is_run_by_one_step() -> None:
    assert finish(seven()) == 7


def test_a_coroutine_that_suspends_is_a_defect_and_says_so() -> None:
    async def sleeps() -> None:
        await asyncio.sleep(0)

    with pytest.raises(RuntimeError, match="must not suspend"):
        finish(sleeps())


def test_an_error_passes_through() -> None:
    async def fails() -> None:
        raise gridlane.NotFound("gone")

    with pytest.raises(gridlane.NotFound):
        finish(fails())


def test_a_generator_is_closed_when_its_reader_leaves() -> None:
    closed: list[int] = []
    items = iterate(counting(closed))
    assert next(items) == 0
    items.close()  # type: ignore[attr-defined]
    assert closed == [1]
    assert list(iterate(counting(closed))) == [0, 1, 2, 3, 4]


def test_the_same_verb_blocks_in_one_facade_and_is_awaited_in_the_other() -> None:
    async def look() -> None:
        async with gridlane.AsyncClient("127.0.0.1:1", token="t") as client:
            call = client.jobs.get("0" * 8 + "-0000-7000-8000-" + "0" * 12)
            assert inspect.iscoroutine(call)
            call.close()
            assert isinstance(client.jobs.list(), AsyncIterator)

    asyncio.run(look())


@pytest.mark.parametrize("noun", NOUNS, ids=lambda noun: noun.__name__)
def test_every_verb_is_documented_and_has_a_timeout(noun: type) -> None:
    verbs = {n: v for n, v in vars(noun).items() if not n.startswith("_")}
    assert verbs
    for name, verb in verbs.items():
        assert verb.__doc__, f"{noun.__name__}.{name} says nothing of itself"
        assert "timeout" in inspect.signature(verb.__wrapped__).parameters


def test_a_verb_keeps_its_name_and_signature() -> None:
    with gridlane.Client("127.0.0.1:1", token="t") as client:
        assert client.jobs.get.__name__ == "get"
        assert list(inspect.signature(client.jobs.get).parameters)[-2:] == ["name", "timeout"]
