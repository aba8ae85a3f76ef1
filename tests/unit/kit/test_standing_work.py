"""What becomes of work that was accepted, and whose work is looked at when the policy changes."""

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import pytest

from gridlane_kit.clock import now_us
from gridlane_kit.errors import ErrorReason, GridlaneError
from gridlane_kit.identity import Principal
from gridlane_kit.policy import Binding, Policy, PolicyChange, PolicyHolder, Role, WorkAction
from gridlane_kit.standing_work import ChangedRights, why_stopped, work_action

ISSUER = "https://issuer.test/"
ADA = Principal(ISSUER, "ada", vos=frozenset({"cms"}), groups=frozenset({"/cms/team"}))
ADAS = Binding(ISSUER, "ada", Role.SUBMITTER, "cms")
KEEP, HOLD, CANCEL = WorkAction
WAIT_S = 5


def veto(queued: WorkAction, running: WorkAction, group: str = "") -> Binding:
    issuer, subject, vo = ("", "", "cms") if group else (ISSUER, "ada", "")
    return Binding(
        issuer, subject, Role.VETOED, vo, group=group, queued_work=queued, running_work=running
    )


def acts(*bindings: Binding) -> tuple[WorkAction, WorkAction]:
    """What becomes of ada's queued and of her running work."""
    policy = Policy(1, bindings, vos=["cms"])
    return tuple(  # type: ignore[return-value]
        work_action(ADA, "transfer.jobs.submit", "cms", policy, running=running)
        for running in (False, True)
    )


@pytest.mark.parametrize("queued", WorkAction)
@pytest.mark.parametrize("running", WorkAction)
def test_a_veto_says_what_becomes_of_work(queued: WorkAction, running: WorkAction) -> None:
    assert acts(ADAS, veto(queued, running)) == (queued, running)


def test_of_several_vetoes_the_severest_action_holds() -> None:
    found = acts(ADAS, veto(KEEP, CANCEL), veto(HOLD, KEEP, group="/cms/team"))
    assert found == (HOLD, CANCEL)


def test_work_of_those_who_have_the_right_goes_on() -> None:
    assert acts(ADAS) == (KEEP, KEEP)


@pytest.mark.parametrize("left", [(), (Binding(ISSUER, "ada", Role.SUBMITTER, "lhcb"),)])
def test_work_of_those_who_lost_the_role_waits(left: tuple[Binding, ...]) -> None:
    assert acts(*left) == (HOLD, HOLD)
    assert acts(*left, veto(KEEP, KEEP)) == (HOLD, HOLD)


def test_a_closed_policy_is_no_verdict() -> None:
    with pytest.raises(GridlaneError) as raised:
        work_action(ADA, "transfer.jobs.submit", "cms", Policy(1, closed=True), running=False)
    assert raised.value.reason is ErrorReason.POLICY_STALE


def test_people_are_told_whether_it_is_a_veto_or_a_role() -> None:
    message, cure = why_stopped(ADA, "cms", Policy(1, [veto(HOLD, KEEP)]), "jobs")
    assert (message, cure) == ("ada is vetoed", "ask an administrator to end the veto")
    message, cure = why_stopped(ADA, "cms", Policy(1), "jobs")
    assert message == "ada may not submit jobs for the VO cms any more"
    assert "manager of the VO" in cure


def test_a_changed_policy_knows_whose_bindings_differ() -> None:
    others = [Binding(ISSUER, f"user-{n}", Role.SUBMITTER, "cms") for n in range(1000)]
    before = Policy(1, [ADAS, *others])
    after = before.changed(PolicyChange(2, added=[veto(HOLD, KEEP)], removed=[others[7]]))
    assert after.changed_holders(before) == {ADA.owner, others[7].owner}
    assert before.changed_holders(before) == frozenset()
    whole = Policy(9, [ADAS, *others])
    assert whole.changed_holders(before) == frozenset()
    assert after.held_by(ADA.owner) == (ADAS, veto(HOLD, KEEP))


@dataclass
class Looks:
    """A service that is asked to look."""

    asked: list[Collection[str] | None] = field(default_factory=list)
    answers: list[bool] = field(default_factory=list)
    came: asyncio.Event = field(default_factory=asyncio.Event)

    async def look(self, policy: Policy, owners: Collection[str] | None) -> bool:
        self.asked.append(owners)
        self.came.set()
        return self.answers.pop(0) if self.answers else True

    async def next(self) -> Collection[str] | None:
        async with asyncio.timeout(WAIT_S):
            await self.came.wait()
        self.came.clear()
        return self.asked[-1]


class Turning(PolicyHolder):
    """A holder that counts how often it is asked."""

    turns = 0

    def __getattribute__(self, name: str) -> Any:
        if name == "current":
            self.turns += 1
        return super().__getattribute__(name)


async def test_everybodys_work_is_looked_at_first_and_then_theirs_that_changed() -> None:
    holder, looks = PolicyHolder(Policy(1, [ADAS])), Looks()
    rights = ChangedRights(holder, looks.look, "test")
    rights.start()
    assert await looks.next() is None
    holder.replace(holder.current.changed(PolicyChange(2, added=[veto(HOLD, KEEP)])))
    assert await looks.next() == [ADA.owner]
    holder.replace(Policy(3, holder.current.bindings))
    holder.replace(holder.current.changed(PolicyChange(4, removed=[veto(HOLD, KEEP)])))
    assert await looks.next() == [ADA.owner]
    holder.replace(
        holder.current.changed(PolicyChange(5, added=[veto(HOLD, KEEP, group="/cms/team")]))
    )
    assert await looks.next() is None
    await rights.stop()
    assert len(looks.asked) == 4


async def test_nothing_is_looked_at_under_a_closed_policy() -> None:
    before = Policy(1, [ADAS])
    holder, looks = PolicyHolder(Policy(1, closed=True)), Looks()
    rights = ChangedRights(holder, looks.look, "test")
    rights.start()
    await asyncio.sleep(0.05)
    assert looks.asked == []
    holder.replace(before)
    assert await looks.next() is None
    holder.replace(Policy(1, closed=True))
    holder.replace(before)
    await asyncio.sleep(0.05)
    await rights.stop()
    assert len(looks.asked) == 1


async def test_a_binding_that_ends_under_a_closed_policy_wakes_nobody_until_it_is_open_again() -> (
    None
):
    ending = Binding(ISSUER, "ada", Role.SUBMITTER, "cms", expires_us=now_us() + 20_000)
    policy = Policy(1, [ending])
    holder, looks = Turning(policy), Looks()
    rights = ChangedRights(holder, looks.look, "test")
    rights.start()
    assert await looks.next() is None
    holder.replace(Policy(1, closed=True))
    await asyncio.sleep(0.1)
    turns = holder.turns
    await asyncio.sleep(0.1)
    assert holder.turns - turns == 0
    holder.replace(policy)
    assert await looks.next() == [ADA.owner]
    await rights.stop()


async def test_what_could_not_be_done_is_looked_at_again_with_what_changed_meanwhile() -> None:
    holder, looks = PolicyHolder(Policy(1, [ADAS])), Looks()
    rights = ChangedRights(holder, looks.look, "test")
    rights.start()
    await looks.next()
    looks.answers = [False, True]
    holder.replace(holder.current.changed(PolicyChange(2, removed=[ADAS])))
    assert await looks.next() == [ADA.owner]
    bob = Binding(ISSUER, "bob", Role.SUBMITTER, "cms")
    holder.replace(holder.current.changed(PolicyChange(3, added=[bob])))
    assert await looks.next() == [ADA.owner, bob.owner]
    await rights.stop()


async def test_whose_binding_ends_is_looked_at_then() -> None:
    ends_us = now_us() + 200_000
    holder = PolicyHolder(Policy(1, [Binding(ISSUER, "ada", Role.VETOED, expires_us=ends_us)]))
    looks = Looks()
    rights = ChangedRights(holder, looks.look, "test")
    rights.start()
    assert await looks.next() is None
    assert await looks.next() == [ADA.owner]
    assert now_us() >= ends_us
    await rights.stop()
