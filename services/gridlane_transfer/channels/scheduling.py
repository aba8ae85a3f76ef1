"""Which files start: the division of places among channels, VOs and activities, as pure functions
of what waits, what runs and what ran.

Responsible for one step's choice (`Choice`) and for the account of what everybody had (`Ledger`).
Not for reading what waits, nor for counting what runs: both are done in the transaction that claims
(`store.moving`).

The rule is stride scheduling (Waldspurger and Weihl 1995) in levels: channels by their places, the
VOs of a channel by its shares, the activities of a VO by the VO's. What is divided is the time that
places are held, so long files count for more than short ones. At each level the next place goes to
whoever had the least for its weight among those whose files wait; so what somebody leaves idle goes
to the others in proportion, and nobody waits for ever. Who begins to wait anew has no credit for
the time before. Within an activity priority decides, then the order of submission.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from gridlane_transfer.channels.bundles import ALONE, Bundle, ElementRoom, Files, Queue, Waiting

ANY_VO: Final = "*"
DEFAULT_ACTIVITY: Final = "default"

Node = tuple[str, ...]
"""(channel uid), (channel uid, VO) or (channel uid, VO, activity): who has an account."""

_FIRST_GUESS_S: Final = 1.0
# How much the last file says of how long the next one takes.
_LEARNED: Final = 0.2


@dataclass(frozen=True, slots=True)
class Lane:
    """A channel on which files may start.

    Parameters:
        uid: the channel's.
        places: how many files it moves at once, all together.
        free: how many of these may be given now.
        vo_shares: weights by VO, `Channel.vo_shares` of the contract.
        queues: reads what waits; called when the channel's turn comes.
    """

    uid: str
    places: int
    free: int
    vo_shares: Mapping[str, int]
    queues: Callable[[], Sequence[Queue]]


@dataclass(frozen=True, slots=True)
class ActivityWeights:
    """The shares of activities in force, by VO; those of a VO that has none are left out."""

    by_vo: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def group(self, vo: str, activity: str) -> str:
        """What an activity of a VO counts as; empty when the VO does not divide."""
        weights = self.by_vo.get(vo)
        if weights is None:
            return ""
        return activity if activity in weights else DEFAULT_ACTIVITY

    def weight(self, vo: str, group: str) -> int:
        """The weight of a group; what is not listed has 1."""
        return self.by_vo.get(vo, {}).get(group, 1)


def vo_weight(shares: Mapping[str, int], vo: str) -> int | None:
    """The weight of a VO on a channel.

    Returns:
        0: none of its files starts; None: it gets what others leave idle.
    """
    return shares.get(vo, shares.get(ANY_VO))


@dataclass(frozen=True, slots=True)
class Standing:
    """The account as a step begins with it; never changed.

    Parameters:
        used: what each had, in seconds of one place, running files with at least what they are
            expected to take.
        waited: who waited when it was looked last.
        expected: how long a file takes, in seconds, by channel and VO, and by channel.
    """

    used: Mapping[Node, float] = field(default_factory=dict)
    waited: frozenset[Node] = frozenset()
    expected: Mapping[Node, float] = field(default_factory=dict)

    def expects(self, node: Node) -> float:
        """How long a file on a channel (of a VO) takes, as far as is known."""
        guess = self.expected.get(node[:1], _FIRST_GUESS_S)
        return self.expected.get(node[:2], guess)


@dataclass(slots=True)
class Seen:
    """What a step found, for the `Ledger`: who waits on the channels that it looked at, and what
    those that had not waited before begin with.
    """

    channels: set[str] = field(default_factory=set)
    waiting: set[Node] = field(default_factory=set)
    begin_with: dict[Node, float] = field(default_factory=dict)


class _Group:
    """The queues that count as one activity: the first file of all comes first."""

    def __init__(self, queues: Sequence[Files]) -> None:
        self._queues = queues

    def waits(self) -> bool:
        return any(queue.head() is not None for queue in self._queues)

    def head(self) -> Waiting | None:
        found = self._first()
        return None if found is None else found[0]

    def take(self, places: int) -> Sequence[Waiting]:
        found = self._first()
        if found is None:
            raise LookupError("nothing waits")
        return found[1].take(places)

    def _first(self) -> tuple[Waiting, Files] | None:
        heads = [(head, queue) for queue in self._queues if (head := queue.head()) is not None]
        return min(heads, key=lambda found: found[0][:2]) if heads else None


@dataclass(slots=True)
class _Share:
    """One who shares, at some level. `below` is what it divides further."""

    node: Node
    weight: int
    below: "_Division | _Group"
    used: float = 0.0

    @property
    def norm(self) -> float:
        return self.used / self.weight


class _Division:
    """Several who share by weight; the next place is for who had the least for its weight.

    Parameters:
        by_turn: they do not share: the file that comes first starts, whosever it is.
    """

    def __init__(
        self, shares: Sequence[_Share], standing: Standing, seen: Seen, *, by_turn: bool = False
    ) -> None:
        self._shares = list(shares)
        self._by_turn = by_turn
        self._standing = standing
        for share in self._shares:
            share.used = standing.used.get(share.node, 0.0)
        for share, used in _late(self._shares, standing.waited):
            share.used = seen.begin_with[share.node] = used
        seen.waiting.update(share.node for share in self._shares)

    def waits(self) -> bool:
        return self._next() is not None

    def head(self) -> Waiting | None:
        """The file that starts next."""
        share = self._next()
        return None if share is None else share.below.head()

    def take(self, places: int) -> Sequence[Waiting]:
        """The files that take the next of so many free places."""
        share = self._next()
        if share is None:
            raise LookupError("nothing waits")
        share.used += self._standing.expects(share.node)
        return share.below.take(places)

    def _next(self) -> _Share | None:
        return self._first_come() if self._by_turn else self._least_served()

    def _first_come(self) -> _Share | None:
        heads = [(s, head) for s in self._shares if (head := s.below.head()) is not None]
        return min(heads, key=lambda found: found[1][:2])[0] if heads else None

    def _least_served(self) -> _Share | None:
        while self._shares:
            share = min(self._shares, key=lambda one: (one.norm, -one.weight, one.node))
            if share.below.waits():
                return share
            self._shares.remove(share)
        return None


def _late(shares: Sequence[_Share], waited: frozenset[Node]) -> list[tuple[_Share, float]]:
    """Those that did not wait before and have less than the others, with what they begin with."""
    before = [share.norm for share in shares if share.node in waited]
    floor = min(before) if before else max((share.norm for share in shares), default=0.0)
    late = (share for share in shares if share.node not in waited)
    return [(share, floor * share.weight) for share in late if share.norm < floor]


class _Channel:
    """A channel in this step: its VOs, those that share before those that get what is left."""

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self._free = lane.free
        self._tiers: Sequence[_Division] | None = None

    def waits(self) -> bool:
        """Whether one of its files may start; what was not read yet may."""
        if self._free <= 0:
            return False
        return self._tiers is None or any(tier.waits() for tier in self._tiers)

    def read(self, tiers: Callable[[Lane], Sequence[_Division]]) -> None:
        if self._tiers is None:
            self._tiers = tiers(self.lane)

    def take(self) -> Sequence[Waiting]:
        for tier in self._tiers or ():
            if tier.waits():
                self._free -= 1
                return tier.take(self._free + 1)
        raise LookupError("nothing waits")


class Choice:
    """One step: gives the files that start, place by place.

    Parameters:
        lanes: the channels on which something may wait.
        room: what storage elements still take.
        idle: the uids of channels that had places to give, and nobody to give them to.
        bundle: which files may share a place.
    """

    def __init__(
        self,
        lanes: Sequence[Lane],
        weights: ActivityWeights,
        standing: Standing,
        room: ElementRoom,
        idle: Collection[str] = (),
        bundle: Bundle = ALONE,
    ) -> None:
        self._weights = weights
        self._bundle = bundle
        self._standing = standing
        self._room = room
        self.seen = Seen(set(idle))
        shares = [_Share((lane.uid,), max(1, lane.places), _Group(())) for lane in lanes]
        for share in shares:
            share.used = standing.used.get(share.node, 0.0)
        for share, used in _late(shares, standing.waited):
            share.used = self.seen.begin_with[share.node] = used
        self.seen.waiting.update(share.node for share in shares)
        self._channels = [
            (share, _Channel(lane)) for share, lane in zip(shares, lanes, strict=True)
        ]

    def next_place(self) -> Sequence[Waiting] | None:
        """The files that take the next place, all of one queue, job and pair of storage elements;
        None when nothing may start.
        """
        while self._channels:
            found = min(self._channels, key=lambda one: (one[0].norm, one[0].node))
            share, channel = found
            channel.read(self._tiers)
            if not channel.waits():
                self._channels.remove(found)
                continue
            taken = channel.take()
            self._room.take(taken[0].source, taken[0].target)
            share.used += self._standing.expects(share.node)
            return taken
        return None

    def _tiers(self, lane: Lane) -> Sequence[_Division]:
        """What waits on a channel, by VO and activity."""
        self.seen.channels.add(lane.uid)
        by_vo: dict[str, list[Queue]] = {}
        for queue in lane.queues():
            by_vo.setdefault(queue.vo, []).append(queue)
        if not by_vo:
            self.seen.waiting.discard((lane.uid,))
        if not lane.vo_shares:
            shares = [self._of_vo(lane, vo, 1, queues) for vo, queues in by_vo.items()]
            return [_Division(shares, self._standing, self.seen, by_turn=True)]
        named: list[_Share] = []
        idle: list[_Share] = []
        for vo, queues in by_vo.items():
            weight = vo_weight(lane.vo_shares, vo)
            if weight is None:
                idle.append(self._of_vo(lane, vo, 1, queues))
            elif weight > 0:
                named.append(self._of_vo(lane, vo, weight, queues))
        return [_Division(one, self._standing, self.seen) for one in (named, idle)]

    def _of_vo(self, lane: Lane, vo: str, weight: int, queues: Sequence[Queue]) -> _Share:
        groups: dict[str, list[Files]] = {}
        for queue in queues:
            group = self._weights.group(vo, queue.activity)
            groups.setdefault(group, []).append(Files(queue, self._room, self._bundle))
        shares = [
            _Share((lane.uid, vo, group), self._weights.weight(vo, group), _Group(files))
            for group, files in groups.items()
        ]
        return _Share((lane.uid, vo), weight, _Division(shares, self._standing, self.seen))


def path(channel_uid: str, vo: str, group: str) -> tuple[Node, Node, Node]:
    """The accounts that a file is charged to."""
    return (channel_uid,), (channel_uid, vo), (channel_uid, vo, group)


@dataclass(slots=True)
class _Running:
    """A file that holds a place."""

    nodes: tuple[Node, Node, Node]
    start_s: float
    expected_s: float


class Ledger:
    """What each channel, VO and activity had of the places that one process gave, in seconds.

    It forgets who neither waits nor runs: nobody has credit or debt from a time when it did not
    wait. Times are those of a clock that never goes back.
    """

    def __init__(self) -> None:
        self._used: dict[Node, float] = {}
        self._expected: dict[Node, float] = {}
        self._running: dict[int, _Running] = {}
        self._waited: frozenset[Node] = frozenset()

    def standing(self, now_s: float) -> Standing:
        """The account now."""
        used = dict(self._used)
        for one in self._running.values():
            held_s = max(now_s - one.start_s, one.expected_s)
            for node in one.nodes:
                used[node] = used.get(node, 0.0) + held_s
        return Standing(used, self._waited, dict(self._expected))

    def saw(self, seen: Seen, before: Standing) -> None:
        """Take note of what a step found.

        Parameters:
            before: the account that the step began with.
        """
        for node, used in seen.begin_with.items():
            lift = used - before.used.get(node, 0.0)
            self._used[node] = self._used.get(node, 0.0) + lift
        elsewhere = {node for node in self._waited if node[0] not in seen.channels}
        self._waited = frozenset(elsewhere | seen.waiting)
        runs = {node for one in self._running.values() for node in one.nodes}
        self._used = {
            node: used for node, used in self._used.items() if node in self._waited or node in runs
        }

    def begin(self, number: int, nodes: tuple[Node, Node, Node], now_s: float) -> None:
        """A file has got a place."""
        expected_s = Standing(expected=self._expected).expects(nodes[1])
        self._running[number] = _Running(nodes, now_s, expected_s)

    def end(self, number: int, now_s: float) -> None:
        """A file gives its place back."""
        one = self._running.pop(number, None)
        if one is None:
            return
        held_s = now_s - one.start_s
        for node in one.nodes:
            self._used[node] = self._used.get(node, 0.0) + held_s
        for node in one.nodes[:2]:
            known = self._expected.get(node, held_s)
            self._expected[node] = known + _LEARNED * (held_s - known)
