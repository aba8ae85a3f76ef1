"""A stream goes on as long as its caller can be proven: what happens when the proof ends."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from gridlane_kit import errors
from gridlane_kit.errors import GridlaneError
from gridlane_kit.identity import Trust
from gridlane_kit.streams import OpenStream, ProvenStream

GIVE_UP_S = 10


class Caller:
    """Whoever opened a stream: proven by the next of the trusts as long as there is one."""

    def __init__(self, *trusts: Trust) -> None:
        self.trusts = list(trusts)
        self.proofs = 0
        call: Any = SimpleNamespace(cut=None)
        plan: Any = None
        self.stream = OpenStream(call, plan, None)

    async def prove(self) -> Trust:
        self.proofs += 1
        if not self.trusts:
            raise errors.token_invalid()
        return self.trusts.pop(0)

    @property
    def cut(self) -> GridlaneError | None:
        return self.stream.call.cut


async def settled() -> None:
    """Lets every task come to its next rest."""
    async with asyncio.timeout(GIVE_UP_S):
        while len(asyncio.all_tasks()) > 1:
            await asyncio.sleep(0)


async def test_a_caller_who_can_be_proven_anew_is_not_cut_off() -> None:
    first, second = Trust(), Trust()
    caller = Caller(second)
    proven = ProvenStream(caller.stream, first, caller.prove)
    first.end()
    await settled()
    assert (caller.proofs, caller.cut) == (1, None)
    second.end()
    await settled()
    assert caller.proofs == 2
    assert caller.cut is not None
    assert caller.cut.reason == "TOKEN_INVALID"
    proven.end()


async def test_what_ended_before_the_stream_began_is_looked_at_at_once() -> None:
    ended = Trust()
    ended.end()
    caller = Caller()
    ProvenStream(caller.stream, ended, caller.prove)
    await settled()
    assert caller.cut is not None


async def test_nobody_asks_for_a_stream_that_is_over() -> None:
    trust = Trust()
    caller = Caller()
    ProvenStream(caller.stream, trust, caller.prove).end()
    trust.end()
    await settled()
    assert (caller.proofs, caller.cut) == (0, None)


@pytest.mark.parametrize("others", [0, 3])
def test_a_trust_tells_each_of_its_followers_once(others: int) -> None:
    trust, heard = Trust(), []
    followers = [lambda number=number: heard.append(number) for number in range(others + 1)]
    for follower in followers:
        trust.follow(follower)
    trust.leave(followers[0])
    trust.end()
    trust.end()
    assert sorted(heard) == list(range(1, others + 1))
