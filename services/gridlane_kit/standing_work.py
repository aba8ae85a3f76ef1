"""Work that stands while its owner's rights change: what becomes of it, and when to look.

Responsible for two things that every service with a queue needs: what a veto or a lost role means
for a piece of work that was accepted before (`work_action`), and for finding out, when the policy
changes, whose work is to be looked at (`ChangedRights`). The cost follows the change: nobody's work
is looked at whose bindings stayed as they were. Not for what is done to a piece of work: that is
the service's.
"""

import asyncio
import contextlib
import heapq
from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import Final

from gridlane_kit.clock import now_us
from gridlane_kit.decision import decide
from gridlane_kit.errors import GridlaneError
from gridlane_kit.identity import Principal
from gridlane_kit.logs import logger
from gridlane_kit.policy import Binding, Policy, PolicyHolder, WorkAction, is_group

_AGAIN_S: Final = 0.5
_LONGEST_AGAIN_S: Final = 8.0
"""How soon is looked again where something could not be done yet: doubling from the first to the
longest."""
_MAX_OWNERS: Final = 500
"""Where more have changed, everybody's work is looked at: one statement names no more of them."""

Look = Callable[[Policy, Collection[str] | None], Awaitable[bool]]
"""Looks at the work of some owners (None: of everybody); False: something is left to be done."""

_log = logger("policy")


def work_action(
    principal: Principal,
    permission: str,
    vo: str,
    policy: Policy,
    *,
    running: bool,
    own: bool = False,
) -> WorkAction:
    """Returns what becomes of a piece of work under a policy.

    A veto says so itself. Whoever is not vetoed and has lost the right is asked to wait (HOLD): the
    work goes on when the right is back, and what runs is not interrupted.

    Parameters:
        principal: who submitted it.
        permission: what it takes to submit it, "transfer.jobs.submit".
        vo: whose it is.
        running: whether it has begun.
        own: whether a right that reaches no further than what is the owner's is enough.

    Raises:
        GridlaneError: POLICY_STALE.
    """
    now = now_us()
    decision = decide(principal, permission, policy, now, despite_veto=True)
    grants = policy.grants(principal, now)
    if grants.vetoed:
        action = grants.running_work if running else grants.queued_work
        if action is not WorkAction.KEEP:
            return action
    reach = decision.visibility
    reaches = reach.everything or vo in reach.vos or (own and reach.owner is not None)
    keeps = decision.allowed and reaches
    return WorkAction.KEEP if keeps else WorkAction.HOLD


def why_stopped(principal: Principal, vo: str, policy: Policy, what: str) -> tuple[str, str]:
    """Returns the message and the cure for work that was stopped, for people.

    Parameters:
        what: what its owner may not submit, "transfers".
    """
    now = now_us()
    if policy.grants(principal, now).vetoed:
        return f"{principal.subject} is vetoed", "ask an administrator to end the veto"
    if principal.has_outlived_its_groups(now):
        without = f"{principal.subject} may not submit {what} for the VO {vo} without its groups"
        return (
            f"{without}, and they were asserted too long ago to be believed still",
            "submit again with a new token",
        )
    return (
        f"{principal.subject} may not submit {what} for the VO {vo} any more",
        "ask an administrator or a manager of the VO for the role of a submitter",
    )


class ChangedRights:
    """Has a service look at the work of those whose rights changed.

    At the start everybody's is looked at: rights may have changed while the service was away. From
    then on that of those whose bindings are not what they were, or of whose bindings one has ended.
    A change of a group's bindings concerns whoever asserts it: everybody's is looked at.

    Parameters:
        policy: in force; a closed one is no verdict, and nothing is looked at under it.
        look: the service's; called again after a while when it answers False or raises.
        name: the service's, for the task.
    """

    def __init__(self, policy: PolicyHolder, look: Look, name: str) -> None:
        self._holder = policy
        self._look = look
        self._name = name
        self._seen: Policy | None = None
        self._whose: set[str] = set()
        self._everybody = True
        self._ends: list[tuple[int, str]] = []
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        policy.subscribe(lambda _policy: self._changed.set())

    def start(self) -> None:
        """Begins to look."""
        self._task = asyncio.create_task(self._run(), name=f"{self._name}-rights")

    async def stop(self) -> None:
        """Looks no more."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        again_s = _AGAIN_S
        while True:
            self._changed.clear()
            policy = self._holder.current
            settled = policy.closed or await self._look_under(policy)
            pause_s = self._pause_s(policy) if settled else again_s
            again_s = _AGAIN_S if settled else min(2 * again_s, _LONGEST_AGAIN_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._changed.wait()

    async def _look_under(self, policy: Policy) -> bool:
        """Looks at whose work there is to be looked at; whether nothing is left to be done."""
        self._note_changes(policy)
        if not self._everybody and not self._whose:
            return True
        try:
            if not await self._look(policy, None if self._everybody else sorted(self._whose)):
                return False
        except GridlaneError as error:
            _log.warning("work cannot be looked at now", service=self._name, reason=error.reason)
            return False
        except Exception as error:  # a defect: told each time, and never the end of looking
            _log.critical("work cannot be looked at", service=self._name, exc_info=error)
            return False
        self._everybody = False
        self._whose.clear()
        return True

    def _note_changes(self, policy: Policy) -> None:
        if self._seen is None:
            self._note_ends(policy.bindings)
        elif policy is not self._seen:
            for holder in policy.changed_holders(self._seen):
                self._note_holder(holder)
                self._note_ends(policy.held_by(holder))
        self._seen = policy
        now = now_us()
        while self._ends and self._ends[0][0] <= now:
            self._note_holder(heapq.heappop(self._ends)[1])

    def _note_holder(self, holder: str) -> None:
        self._whose.add(holder)
        self._everybody |= is_group(holder) or len(self._whose) > _MAX_OWNERS

    def _note_ends(self, bindings: Iterable[Binding]) -> None:
        for binding in bindings:
            if binding.expires_us is not None:
                heapq.heappush(self._ends, (binding.expires_us, binding.owner))

    def _pause_s(self, policy: Policy) -> float | None:
        """Seconds until a binding ends; None when none does, and under a closed policy, which is
        looked under only once it is another one.
        """
        if policy.closed or not self._ends:
            return None
        return max(0.0, (self._ends[0][0] - now_us()) / 1e6)
