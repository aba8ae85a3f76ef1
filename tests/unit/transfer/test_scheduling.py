"""The division of places: shares of VOs and activities, limits, and nobody waits for ever."""

import heapq
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice
from typing import Any

import pytest

from gridlane_transfer.channels.bundles import ALONE, Bundle, ElementRoom, Queue, Waiting
from gridlane_transfer.channels.scheduling import (
    ActivityWeights,
    Choice,
    Lane,
    Ledger,
    Standing,
    path,
    vo_weight,
)


@dataclass
class World:
    """Channels with queues in memory, driven by a clock of its own."""

    shares: dict[str, Mapping[str, int]]
    places: dict[str, int]
    weights: ActivityWeights = field(default_factory=ActivityWeights)
    out: dict[str, int] = field(default_factory=dict)
    into: dict[str, int] = field(default_factory=dict)
    capacity: int = 1 << 30

    def __post_init__(self) -> None:
        self.now = 0.0
        self.ledger = Ledger()
        self.queues: dict[str, dict[tuple[str, str], dict[int, deque[Waiting]]]] = {
            uid: {} for uid in self.places
        }
        self.duration: dict[int, float] = {}
        self.of: dict[int, tuple[str, str, str, Waiting]] = {}
        self.running: dict[str, Counter[str]] = {uid: Counter() for uid in self.places}
        self.moving_out: Counter[str] = Counter()
        self.moving_in: Counter[str] = Counter()
        self.ends: list[tuple[float, int]] = []
        self.started: list[tuple[float, int]] = []
        self.held_s: defaultdict[tuple[str, str, str], float] = defaultdict(float)
        self.numbers = 0

    def put(
        self,
        uid: str,
        vo: str,
        activity: str = "",
        *,
        files: int = 1,
        lasts: float = 1.0,
        rank: int = 2,
        source: str = "s",
        target: str = "t",
    ) -> list[int]:
        """Submits files; their numbers."""
        queue = self.queues[uid].setdefault((vo, activity), {}).setdefault(rank, deque())
        numbers = range(self.numbers + 1, self.numbers + files + 1)
        for number in numbers:
            waiting = Waiting(rank, number, source, target)
            queue.append(waiting)
            self.duration[number] = lasts
            self.of[number] = uid, vo, activity, waiting
        self.numbers += files
        return list(numbers)

    def step(self) -> None:
        """Starts what may start now."""
        standing = self.ledger.standing(self.now)
        room = ElementRoom(
            {name: most - self.moving_out[name] for name, most in self.out.items()},
            {name: most - self.moving_in[name] for name, most in self.into.items()},
        )
        lanes = [
            Lane(uid, places, free, self.shares.get(uid, {}), partial(self._queues, uid))
            for uid, places in self.places.items()
            if (free := places - self.running[uid].total()) > 0 and self._queues(uid)
        ]
        idle = [uid for uid in self.places if not self._queues(uid)]
        choice = Choice(lanes, self.weights, standing, room, idle)
        chosen = list(islice(iter(choice.next_place, None), self.capacity - len(self.ends)))
        self.ledger.saw(choice.seen, standing)
        for (waiting,) in chosen:
            self._start(waiting)

    def run(self, seconds: float) -> None:
        """Lets files start and end for so long."""
        until = self.now + seconds
        self.step()
        while self.ends and self.ends[0][0] <= until:
            self.now, number = heapq.heappop(self.ends)
            self._end(number)
            while self.ends and self.ends[0][0] <= self.now:
                self._end(heapq.heappop(self.ends)[1])
            self.step()
        self.now = until

    def share(self, uid: str, vo: str, activity: str | None = None) -> float:
        """What part of the time that a channel's places (or a VO's) were held was a VO's."""
        own = sum(
            held
            for (its, of, act), held in self.held_s.items()
            if its == uid and of == vo and activity in (None, act)
        )
        whole = sum(
            held
            for (its, of, _), held in self.held_s.items()
            if its == uid and (activity is None or of == vo)
        )
        return own / whole

    def _queues(self, uid: str) -> Sequence[Queue]:
        return [
            Queue(vo, activity, chain.from_iterable([files[rank] for rank in sorted(files)]))
            for (vo, activity), files in self.queues[uid].items()
            if any(files.values())
        ]

    def _start(self, waiting: Waiting) -> None:
        uid, vo, activity, _ = self.of[waiting.number]
        self.queues[uid][vo, activity][waiting.rank].remove(waiting)
        self.running[uid][vo] += 1
        self.moving_out[waiting.source] += 1
        self.moving_in[waiting.target] += 1
        assert self.running[uid].total() <= self.places[uid]
        assert all(self.moving_out[name] <= most for name, most in self.out.items())
        assert all(self.moving_in[name] <= most for name, most in self.into.items())
        nodes = path(uid, vo, self.weights.group(vo, activity))
        self.ledger.begin(waiting.number, nodes, self.now)
        heapq.heappush(self.ends, (self.now + self.duration[waiting.number], waiting.number))
        self.started.append((self.now, waiting.number))
        self.held_s[uid, vo, activity] += self.duration[waiting.number]

    def _end(self, number: int) -> None:
        uid, vo, _, waiting = self.of[number]
        self.running[uid][vo] -= 1
        self.moving_out[waiting.source] -= 1
        self.moving_in[waiting.target] -= 1
        self.ledger.end(number, self.now)


def _started(world: World, numbers: Iterable[int]) -> list[float]:
    wanted = set(numbers)
    return [when for when, number in world.started if number in wanted]


@pytest.mark.parametrize(
    ("shares", "vo", "weight"),
    [
        ({}, "a", None),
        ({"a": 70}, "a", 70),
        ({"a": 70}, "b", None),
        ({"a": 70, "*": 5}, "b", 5),
        ({"a": 0, "*": 5}, "a", 0),
    ],
)
def test_the_weight_of_a_vo_is_its_own_else_that_of_all_others(
    shares: Mapping[str, int], vo: str, weight: int | None
) -> None:
    assert vo_weight(shares, vo) == weight


@pytest.mark.parametrize("places", [1, 2, 3, 4, 10, 37])
@pytest.mark.parametrize(("first", "second"), [(70, 30), (50, 50), (99, 1), (7000, 3000)])
def test_two_vos_with_full_queues_get_their_shares_however_few_places_there_are(
    places: int, first: int, second: int
) -> None:
    world = World({"c": {"atlas": first, "cms": second}}, {"c": places})
    world.put("c", "atlas", files=600, lasts=1.0)
    world.put("c", "cms", files=600, lasts=1.0)
    world.run(500 / places)
    assert world.share("c", "atlas") == pytest.approx(first / (first + second), abs=0.01)


@pytest.mark.parametrize("lasts", [0.1, 10.0, 100.0])
def test_the_time_that_places_are_held_is_divided_not_the_number_of_files(lasts: float) -> None:
    world = World({"c": {"atlas": 70, "cms": 30}}, {"c": 10})
    world.put("c", "atlas", files=8000, lasts=1.0)
    world.put("c", "cms", files=10_000, lasts=lasts)
    world.run(300.0 if lasts < 1 else 1000.0)
    assert world.share("c", "cms") == pytest.approx(0.3, abs=0.02)


def test_what_a_vo_leaves_idle_goes_to_the_others_in_proportion() -> None:
    world = World({"c": {"a": 50, "b": 30, "d": 10}}, {"c": 8})
    world.put("c", "b", files=5000)
    world.put("c", "d", files=5000)
    world.run(300.0)
    assert world.share("c", "b") == pytest.approx(0.75, abs=0.01)
    assert len(world.started) >= 300 * 8, "no place was left free"


def test_a_vo_that_comes_back_has_no_credit_for_the_time_it_did_not_wait() -> None:
    world = World({"c": {"a": 50, "b": 50}}, {"c": 4})
    world.put("c", "a", files=10_000)
    world.run(1000.0)
    before = len(world.started)
    late = world.put("c", "b", files=10_000)
    world.run(100.0)
    begun = len(_started(world, late)) / (len(world.started) - before)
    assert begun == pytest.approx(0.5, abs=0.03)


def test_unnamed_vos_get_what_named_ones_leave_idle_and_weight_0_gets_nothing() -> None:
    world = World({"c": {"a": 1, "none": 0}}, {"c": 2})
    idle = world.put("c", "other", files=10)
    never = world.put("c", "none", files=10)
    named = world.put("c", "a", files=20)
    world.run(100.0)
    assert max(_started(world, named)) <= min(_started(world, idle))
    assert len(_started(world, idle)) == 10
    assert not _started(world, never)


def test_the_weight_of_others_is_each_one_s() -> None:
    world = World({"c": {"a": 60, "*": 20}}, {"c": 5})
    for vo in ("a", "x", "y"):
        world.put("c", vo, files=5000)
    world.run(400.0)
    assert world.share("c", "a") == pytest.approx(0.6, abs=0.01)
    assert world.share("c", "x") == pytest.approx(0.2, abs=0.01)


def test_without_shares_each_file_has_its_turn_by_priority_then_submission() -> None:
    world = World({}, {"c": 1})
    first = world.put("c", "b")
    second = world.put("c", "a")
    urgent = world.put("c", "z", rank=0)
    world.run(10.0)
    assert [number for _, number in world.started] == [*urgent, *first, *second]


def test_without_shares_of_vos_a_vo_s_activities_do_not_pass_by_others_that_came_before() -> None:
    weights = ActivityWeights({"a": {"rare": 1, "much": 1000}})
    world = World({}, {"c": 1}, weights)
    world.put("c", "a", "much", files=5)
    world.put("c", "a", "rare", files=20)
    others = world.put("c", "b", files=20)
    world.put("c", "a", "much", files=1000)
    world.run(100.0)
    assert len(_started(world, others)) == 20


def test_activities_share_a_vo_s_places_and_unlisted_ones_count_as_default() -> None:
    weights = ActivityWeights({"a": {"production": 70, "default": 20, "tests": 10}})
    world = World({"c": {"a": 50, "b": 50}}, {"c": 10}, weights)
    for activity in ("production", "", "whatever", "tests"):
        world.put("c", "a", activity, files=5000)
    world.put("c", "b", "production", files=10_000)
    world.run(500.0)
    assert world.share("c", "a") == pytest.approx(0.5, abs=0.01)
    assert world.share("c", "a", "production") == pytest.approx(0.7, abs=0.01)
    default = world.share("c", "a", "") + world.share("c", "a", "whatever")
    assert default == pytest.approx(0.2, abs=0.01)


def test_an_activity_that_nobody_listed_weighs_1_beside_the_others() -> None:
    weights = ActivityWeights({"a": {"production": 9}})
    world = World({}, {"c": 4}, weights)
    world.put("c", "a", "production", files=5000)
    world.put("c", "a", "else", files=5000)
    world.run(500.0)
    assert world.share("c", "a", "else") == pytest.approx(0.1, abs=0.01)


def test_priority_decides_within_an_activity_alone() -> None:
    weights = ActivityWeights({"a": {"x": 1, "y": 1}})
    world = World({}, {"c": 1}, weights)
    slow = world.put("c", "a", "x", files=50, rank=4)
    fast = world.put("c", "a", "x", files=50, rank=0)
    other = world.put("c", "a", "y", files=100, rank=4)
    world.run(90.0)
    assert _started(world, fast)
    assert not _started(world, slow)
    assert len(_started(world, other)) == pytest.approx(45, abs=2)


def test_a_full_storage_element_holds_up_only_files_that_need_it() -> None:
    world = World({}, {"c": 10}, out={}, into={"full": 2})
    blocked = world.put("c", "a", files=20, target="full")
    free = world.put("c", "a", files=20, target="other")
    world.step()
    assert len(_started(world, blocked)) == 2
    assert len(_started(world, free)) == 8


def test_channels_share_what_the_mover_can_do_by_their_places_and_none_starves() -> None:
    world = World({}, {f"c{n}": 4 if n else 12 for n in range(10)}, capacity=3)
    for uid in world.places:
        world.put(uid, "a", files=2000)
    world.run(1600.0)
    begun = Counter(world.of[number][0] for _, number in world.started)
    assert begun["c0"] / len(world.started) == pytest.approx(12 / 48, abs=0.01)
    assert min(begun.values()) > 350


def test_a_channel_that_begins_to_wait_is_served_at_once_and_not_alone() -> None:
    world = World({}, {"old": 4, "new": 4}, capacity=1)
    world.put("old", "a", files=5000)
    world.run(500.0)
    late = world.put("new", "a", files=5000)
    world.run(100.0)
    assert len(_started(world, late)) == pytest.approx(50, abs=3)


def test_a_channel_that_comes_back_has_no_credit_for_the_time_nothing_waited_on_it() -> None:
    world = World({}, {"old": 4, "back": 4}, capacity=1)
    world.put("back", "a", files=10)
    world.put("old", "a", files=5000)
    world.run(1000.0)
    late = world.put("back", "a", files=5000)
    world.run(100.0)
    assert len(_started(world, late)) == pytest.approx(50, abs=3)


def test_what_is_expected_of_a_file_is_learned_from_those_before() -> None:
    ledger = Ledger()
    for number in range(60):
        ledger.begin(number, path("c", "a", ""), 10.0 * number)
        ledger.end(number, 10.0 * number + 8.0)
    assert ledger.standing(600.0).expects(("c", "a")) == pytest.approx(8.0, abs=0.1)
    assert ledger.standing(600.0).expects(("c", "new")) == pytest.approx(8.0, abs=0.1)
    assert Standing().expects(("c", "a")) == 1.0


def test_a_hundred_channels_and_fifty_vos_with_hundreds_of_thousands_of_files() -> None:
    vos = [f"vo{n}" for n in range(50)]
    weighted = {vo: 1 + n % 10 for n, vo in enumerate(vos)}
    uids = [f"channel{n}" for n in range(100)]
    world = World(
        dict.fromkeys(uids, weighted),
        dict.fromkeys(uids, 20),
        ActivityWeights({"vo9": {"production": 3, "analysis": 1}}),
        out={"busy": 150},
        into={},
    )
    for number, uid in enumerate(uids):
        source = "busy" if number % 5 == 0 else "s"
        for vo in vos:
            for activity in ("production", "analysis") if vo == "vo9" else ("",):
                lasts = 1.0 + (number + len(vo)) % 2
                world.put(uid, vo, activity, files=40, lasts=lasts, source=source)
    submitted = world.numbers
    assert submitted > 200_000
    steps = 0
    spent = -time.process_time()
    until = 30.0
    world.step()
    while world.ends and world.ends[0][0] <= until:
        world.now = world.ends[0][0]
        while world.ends and world.ends[0][0] <= world.now:
            world._end(heapq.heappop(world.ends)[1])
        world.step()
        steps += 1
    spent += time.process_time()
    begun = len(world.started)
    print(
        f"{submitted} files, {begun} started in {steps} steps:"
        f" {spent / steps * 1000:.1f} ms a step, {spent / begun * 1_000_000:.0f} µs a file"
    )
    whole = sum(weighted.values())
    for uid in uids[1:100:5]:  # where no storage element is in the way
        for vo in ("vo0", "vo9", "vo25"):
            expected = weighted[vo] / whole
            assert world.share(uid, vo) == pytest.approx(expected, abs=0.05 * expected + 0.004)
    held: defaultdict[str, float] = defaultdict(float)
    for (_, vo, activity), seconds in world.held_s.items():
        held[activity] += seconds if vo == "vo9" else 0.0
    assert held["production"] / (held["production"] + held["analysis"]) > 0.6
    served = {(world.of[number][0], world.of[number][1]) for _, number in world.started}
    free = [uid for number, uid in enumerate(uids) if number % 5]
    assert all((uid, vo) in served for uid in free for vo in vos), "nobody waits for ever"
    assert {uid for uid, _ in served} == set(uids)
    assert spent / begun < 0.02


BUNDLE = Bundle(files=4, max_bytes=100)
FREE = ElementRoom({}, {})


def _small(number: int, **given: Any) -> Waiting:
    usual = Waiting(2, number, "s", "t", job_number=1, size_bytes=10)
    return usual._replace(**given)


def _places(
    files: Sequence[Waiting], *, free: int = 9, room: ElementRoom = FREE, bundle: Bundle = BUNDLE
) -> list[list[int]]:
    """The numbers that take each place of a channel with one queue."""
    lane = Lane("c", 9, free, {}, lambda: [Queue("v", "", iter(files))])
    choice = Choice([lane], ActivityWeights(), Standing(), room, (), bundle)
    return [[one.number for one in place] for place in iter(choice.next_place, None)]


def test_small_files_share_a_place() -> None:
    assert _places([_small(n) for n in range(1, 7)], free=1) == [[1, 2, 3, 4]]


def test_a_place_is_shared_by_no_more_than_there_are_places_for() -> None:
    assert _places([_small(n) for n in range(1, 11)], free=2) == [[1, 2, 3, 4], [5, 6, 7, 8]]


@pytest.mark.parametrize(
    ("files", "free", "sizes"),
    [(6, 2, [3, 3]), (5, 3, [2, 2, 1]), (3, 9, [1, 1, 1]), (9, 3, [3, 3, 3]), (20, 3, [4, 4, 4])],
)
def test_few_small_files_are_divided_among_the_free_places(
    files: int, free: int, sizes: list[int]
) -> None:
    places = _places([_small(n) for n in range(1, files + 1)], free=free)
    assert [len(place) for place in places] == sizes
    assert [n for place in places for n in place] == list(range(1, sum(sizes) + 1))


def test_without_bundles_every_file_has_its_place() -> None:
    files = [_small(n, size_bytes=0) for n in range(1, 4)]
    assert _places(files, bundle=ALONE) == [[1], [2], [3]]


@pytest.mark.parametrize(
    "other",
    [
        {"size_bytes": 101},
        {"size_bytes": None},
        {"job_number": 2},
        {"rank": 3},
        {"source": "x"},
        {"target": "x"},
    ],
)
def test_what_is_unlike_or_not_known_to_be_small_has_its_own_place(other: dict[str, Any]) -> None:
    files = [_small(1), _small(2), _small(3, **other), _small(4), _small(5)]
    assert _places(files, free=1) == [[1, 2]]
    assert _places(files[2:], free=1) == [[3]]
    assert _places(files, room=ElementRoom({}, {"t": 1, "x": 9})) == (
        [[1, 2], [3]] if other.get("target") else [[1, 2]]
    )


def test_a_shared_place_is_one_at_its_storage_elements() -> None:
    files = [_small(n) for n in range(1, 11)]
    assert _places(files, room=ElementRoom({}, {"t": 2})) == [[1, 2, 3, 4], [5, 6, 7, 8]]


def test_while_elements_have_limits_files_of_unknown_sources_share_no_place() -> None:
    files = [_small(n, source="") for n in range(1, 4)]
    assert _places(files, free=1, room=ElementRoom({"s": 5}, {})) == [[1]]
    assert _places(files, free=1) == [[1, 2, 3]]
