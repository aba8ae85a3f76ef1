"""What is out of reach answers as what does not exist: in code, reason, text, details and trailing
metadata, once the names that the caller gave are masked; and in time.

Time is measured with one caller and one connection, foreign and absent in turn, and which of the
two goes first is drawn anew each time: whatever else slows the machine down falls upon both. Told
are the medians and the p of the rank-sum test (Wilcoxon, Mann and Whitney; normal approximation,
which is good for far fewer than `PAIRS`). A method fails only when both hold: p below one in a
million, which without a difference happens once in some twenty thousand runs of all methods
together; and medians that lie further apart than `NOTICEABLE`, since with enough calls a rank test
finds microseconds that are nothing beside those of a network. Another look-up in a database, or a
call of another service, is more than that.
"""

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import Any, Final

import pytest
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from integration.contract_promises.walk.deployments import ALL, SPLIT, world_of
from integration.contract_promises.walk.requests import About, requests_for
from integration.contract_promises.walk.steps import AT_ONCE, LATER, SEVERAL, Step, steps
from integration.contract_promises.walk.wire import DETAILS, Answer
from integration.contract_promises.walk.world import BELONGS, VO_OF, World
from workers import Told

from gridlane.ids import uuid7
from gridlane.workload.v1.job_pb2 import Executor, Job, JobDescription, JobInput

PAIRS: Final = 100
BELOW: Final = 1e-6
NOTICEABLE: Final = 0.25
"""A part of the median of what is absent."""
PAIRS_LARGE: Final = 500
NOTICEABLE_LARGE: Final = 0.08
"""Of what is large, less is noticed: to look at a thousand files in an index takes a seventh of
what a refusal takes, to digest 300 KB a quarter."""
TRACE: Final = "gridlane-trace-id"
SEED: Final = "foreign as absent"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module", params=[ALL, SPLIT])
def world(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    with world_of(request, tmp_path_factory) as found:
        yield found


def pairs(world: World) -> Iterator[tuple[Step, Step]]:
    """Each cell whose thing its caller cannot know of, and that of an absent one.

    Not those whom the permission does not let in at all, nor listings, which leave out; and that
    there are the VOs to which it belongs, every caller knows.
    """
    all_steps = list(steps(world))
    absent = {(s.method, s.role): s for s in all_steps if s.relation == "absent"}
    for step in all_steps:
        named = step.let_in and step.kind not in ("list", "none") and step.relation != "absent"
        known = step.kind in ("place", "places") and VO_OF[step.relation] in BELONGS
        if named and not known and step.relation not in step.cell.sees:
            yield step, absent[step.method, step.role]


def asked(world: World, step: Step) -> tuple[Sequence[Message], Answer]:
    about = About(world, step.role, step.relation, acts=False)
    requests = requests_for(step.method, about)
    return requests, world.wire.call(step.method, world.callers[step.role].token, *requests)


def blank(world: World, step: Step) -> str:
    """All of an answer, without the names that the call gave and without the trace."""
    requests, answer = asked(world, step)
    told: list[Any] = [answer.code, answer.reason, answer.text]
    told.append(answer.status and MessageToDict(answer.status))
    told.append([(key, value) for key, value in answer.trailing if key not in (DETAILS, TRACE)])
    told.append(sorted(key for key, _ in answer.trailing))
    if step.kind in SEVERAL and answer.code == "OK":
        told.append(MessageToDict(answer.message.results[0]))
    else:
        told += map(MessageToDict, answer.messages)
    text = repr(told)
    for name in sorted({n for r in requests for n in strings(MessageToDict(r))}, key=len)[::-1]:
        text = text.replace(name, "NAME")
    return text


def strings(value: Any) -> Iterator[str]:
    """Every text in a message."""
    if isinstance(value, str):
        # A VO may be told by its name alone.
        yield from filter(None, (value, value.removeprefix("vos/")))
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from strings(inner)


def test_what_is_out_of_reach_is_told_of_as_what_is_not_there(world: World, tell: Told) -> None:
    def both(pair: tuple[Step, Step]) -> tuple[Step, str, str]:
        step, absent = pair
        return step, blank(world, step), blank(world, absent)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = list(pool.map(both, pairs(world)))
    wrong = [f"{step}:\n  {one}\n  {other}" for step, one, other in found if one != other]
    methods = {step.method for step, one, _ in found if LATER[0] not in one}
    shape = world.server.shape
    tell("foreign as absent", [f"{shape}: {len(found)} pairs of calls, {len(methods)} methods"])
    assert methods
    assert wrong == [], "\n".join(wrong)


def test_what_is_out_of_reach_takes_as_long_as_what_is_not_there(world: World, tell: Told) -> None:
    chance, found = random.Random(SEED), []  # noqa: S311 - the same order every time
    for step, absent in timed(world):
        found.append(compared(step.method, *clocked(world, step, absent, chance)))
    tell("foreign as absent", [f"{world.server.shape:6}{line}" for line, _ in found])
    assert found
    assert [line for line, alike in found if not alike] == []


@pytest.mark.parametrize("role", ["regular", "channel manager"])
@pytest.mark.parametrize(
    ("method", "field"),
    [
        ("GetTransferJob", "name"),
        ("ListFileTransfers", "parent"),
        ("CancelTransferJob", "name"),
        ("ExplainTransferJob", "name"),
    ],
)
def test_a_large_transfer_takes_no_longer(
    world: World, large: str, method: str, field: str, role: str, tell: Told
) -> None:
    """Of a foreign job with so many files none is looked at: whoever manages a channel learns from
    an index that none lies on it."""
    method, absent = f"TransferService/{method}", world.things(role, "absent").transfer
    asked = {name: world.wire.request(method, **{field: name}) for name in (large, absent)}
    times = refused_in_turn(world, method, role, asked, "NOT_FOUND")
    line, alike = compared(
        f"{method}, 1000 files, {role}", times[large], times[absent], NOTICEABLE_LARGE
    )
    tell("foreign as absent", [f"{world.server.shape:6}{line}"])
    assert alike, line


def test_a_large_job_for_a_foreign_vo_takes_no_longer(world: World, tell: Told) -> None:
    """The VO is judged before the job is looked into; to parse it and to hold its fields against
    their rules comes before that for both."""
    method = "JobService/SubmitJob"
    content = [JobInput(path=f"in{n}", content=bytes(100_000)) for n in range(3)]
    description = JobDescription(executors=[Executor(command=["true"])], inputs=content)
    asked = {
        vo: world.wire.request(
            method, job=Job(vo=vo, description=description), request_id=str(uuid7())
        )
        for vo in (VO_OF["foreign"], VO_OF["absent"])
    }
    times = refused_in_turn(world, method, "submitter", asked, "PERMISSION_DENIED")
    foreign, absent = times.values()
    line, alike = compared(f"{method}, 300 KB", foreign, absent, NOTICEABLE_LARGE)
    tell("foreign as absent", [f"{world.server.shape:6}{line}"])
    assert alike, line


def refused_in_turn(
    world: World, method: str, role: str, asked: Mapping[str, Message], code: str
) -> dict[str, list[float]]:
    """How long each of two refusals took each time, seconds."""
    chance, token = random.Random(SEED), world.callers[role].token  # noqa: S311 - the same order
    times: dict[str, list[float]] = {name: [] for name in asked}
    for _ in range(PAIRS_LARGE):
        for name in chance.sample(list(asked), 2):
            answer = world.wire.call(method, token, asked[name])
            assert answer.code == code
            times[name].append(answer.seconds)
    return times


@pytest.fixture(scope="module")
def large(world: World) -> str:
    return world.large_transfer("foreign")


def compared(
    title: str,
    foreign_s: Sequence[float],
    absent_s: Sequence[float],
    noticeable: float = NOTICEABLE,
) -> tuple[str, bool]:
    """What is told of two samples, and whether they are alike."""
    p, foreign, absent = rank_sum_p(foreign_s, absent_s), median(foreign_s), median(absent_s)
    line = (
        f"{title:52} n {len(foreign_s)} + {len(absent_s)}"
        f"  foreign {foreign * 1000:6.2f} ms  absent {absent * 1000:6.2f} ms  p {p:.2g}"
    )
    return line, p >= BELOW or abs(foreign - absent) <= noticeable * absent


def timed(world: World) -> Iterator[tuple[Step, Step]]:
    """Of each method that is carried out, the first role's pair of a foreign thing."""
    seen = set()
    for step, absent in pairs(world):
        if step.relation == "foreign" and step.method not in seen:
            seen.add(step.method)
            if asked(world, step)[1].short != LATER:
                yield step, absent


def clocked(
    world: World, step: Step, absent: Step, chance: random.Random
) -> tuple[Sequence[float], Sequence[float]]:
    """How long each call of both took, seconds."""
    times: dict[str, list[float]] = {step.relation: [], absent.relation: []}
    for _ in range(PAIRS):
        for one in chance.sample((step, absent), 2):
            _, answer = asked(world, one)
            times[one.relation].append(answer.seconds)
    return times[step.relation], times[absent.relation]


def rank_sum_p(some: Sequence[float], others: Sequence[float]) -> float:
    """The two-sided p of the rank-sum test; clocks so fine make no ties."""
    ranked = sorted([(s, True) for s in some] + [(s, False) for s in others])
    ranks = sum(rank for rank, (_, of_some) in enumerate(ranked, 1) if of_some)
    n, m = len(some), len(others)
    deviation = math.sqrt(n * m * (n + m + 1) / 12)
    z = (ranks - n * (n + m + 1) / 2) / deviation
    return math.erfc(abs(z) / math.sqrt(2))


def test_a_difference_in_time_that_can_be_used_would_be_found() -> None:
    chance = random.Random(SEED)  # noqa: S311
    some = [chance.lognormvariate(0, 0.3) for _ in range(PAIRS)]
    others = [chance.lognormvariate(0, 0.3) for _ in range(PAIRS)]
    assert rank_sum_p(some, others) > BELOW
    assert rank_sum_p([s * (1 + 2 * NOTICEABLE) for s in some], others) < BELOW
