"""How many permission decisions a core makes in a second, under a large policy.

One decision is what a call for a file costs: the caller's roles among 100 000 bindings, the token's
capabilities, and whether one of its path scopes covers the file.
"""

import time
from itertools import cycle, islice
from typing import Final

from benchmarks.row import Bound, Measured, Row, Target
from benchmarks.run import Run
from gridlane_kit.clock import now_us
from gridlane_kit.decision import decide, scope_covers
from gridlane_kit.identity import Principal
from gridlane_kit.policy import Binding, Policy, Role

_BINDINGS: Final = 100_000
_CALLERS: Final = 1_000
_DECISIONS: Final = 20_000
_ISSUER: Final = "https://issuer.example"
_ROLES: Final = (Role.SUBMITTER, Role.VO_MANAGER, Role.CHANNEL_MANAGER, Role.ADMIN)
_SCOPES: Final = frozenset(
    {
        "storage.read:/atlas/raw",
        "storage.read:/atlas/derived",
        "storage.create:/atlas/scratch",
        "compute.create",
    }
)


async def _measure(run: Run) -> Measured:
    policy = Policy(revision=1, bindings=_bindings())
    questions = _questions()
    samples: list[float] = []
    end = time.process_time() + run.effort.seconds * run.effort.rounds
    while time.process_time() < end or not samples:
        samples.append(_rate(policy, questions))
    return Measured.of(samples, microseconds=1e6 / Measured.of(samples).value)


def _bindings() -> list[Binding]:
    return [
        Binding(
            issuer=_ISSUER,
            subject=f"user-{number // 2}",
            role=_ROLES[number % len(_ROLES)],
            vo="atlas",
            channel_uid=f"channel-{number % 100}",
            expires_us=4_102_444_800_000_000 if number % 3 else None,
        )
        for number in range(_BINDINGS)
    ]


def _questions() -> list[tuple[Principal, str]]:
    """Who asks for which file: callers from all over the policy, every other file out of scope."""
    step = _BINDINGS // 2 // _CALLERS
    callers = [
        Principal(_ISSUER, f"user-{number * step}", vos=frozenset({"atlas"}), scopes=_SCOPES)
        for number in range(_CALLERS)
    ]
    paths = ("/atlas/derived/2026/a.root", "/atlas/derivedness/a.root")
    return list(islice(zip(cycle(callers), cycle(paths), strict=False), _DECISIONS))


def _rate(policy: Policy, questions: list[tuple[Principal, str]]) -> float:
    begun = time.process_time()
    allowed = 0
    for principal, path in questions:
        decision = decide(principal, "transfer.content.read", policy, now_us())
        allowed += decision.allowed and scope_covers(principal, "storage.read", path)
    spent_s = time.process_time() - begun
    assert allowed == len(questions) // 2, "the decisions themselves are wrong"
    return len(questions) / spent_s


ROWS = (
    Row(
        name="decision",
        title="Permission decision in process",
        unit="a second",
        measure=_measure,
        target=Target(Bound.AT_LEAST, 200_000, "a second"),
        conditions=f"one core, {_BINDINGS:,} bindings, path scopes, the path decided too",
    ),
)
