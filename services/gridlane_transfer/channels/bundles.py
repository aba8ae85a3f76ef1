"""Which files take a place: one, or several small ones that share it.

Responsible for the order of one queue, for what fits at storage elements, and for how many files
share a place, as pure functions. Whose turn it is, is `scheduling`'s.
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Final, NamedTuple


class Waiting(NamedTuple):
    """A file that may start now. `source` and `target` are names of storage elements; the source's
    is empty while it is not known. Lower ranks and numbers come first. The size is the one that was
    said when it was submitted, else that of a logical source.
    """

    rank: int
    number: int
    source: str
    target: str
    job_number: int = 0
    size_bytes: int | None = None


# What files that share a place have in common.
_in_common = attrgetter("rank", "source", "target", "job_number")


class Bundle(NamedTuple):
    """Which files may share a place, to be moved one after the other or together.

    Parameters:
        files: at most so many.
        max_bytes: each of at most so many bytes.
    """

    files: int
    max_bytes: int

    def takes(self, file: Waiting) -> bool:
        """Whether a file is known to be small enough."""
        return file.size_bytes is not None and file.size_bytes <= self.max_bytes


ALONE: Final = Bundle(files=1, max_bytes=0)


@dataclass(frozen=True, slots=True)
class Queue:
    """What waits on a channel for one VO and activity, in its order; read as far as it is needed.

    Parameters:
        activity: empty for none.
    """

    vo: str
    activity: str
    files: Iterator[Waiting]


class ElementRoom:
    """How many files may still start at storage elements that have limits.

    Parameters:
        out, into: what is left, by the element's name; what is not named has no limit.
    """

    def __init__(self, out: Mapping[str, int], into: Mapping[str, int]) -> None:
        self._out = dict(out)
        self._into = dict(into)

    @property
    def unlimited(self) -> bool:
        """Whether there is no limit at all."""
        return not self._out and not self._into

    def counts_out_of(self, source: str) -> bool:
        """Whether an element has a limit of files that are read from it."""
        return source in self._out

    def fits(self, source: str, target: str) -> bool:
        """Whether one more file may go from one element to another."""
        return self.places(source, target, 1) > 0

    def places(self, source: str, target: str, most: int) -> int:
        """How many more may, if not more than `most`."""
        return min(most, self._out.get(source, most), self._into.get(target, most))

    def take(self, source: str, target: str) -> None:
        """Count a file that starts."""
        if source in self._out:
            self._out[source] -= 1
        if target in self._into:
            self._into[target] -= 1


class Files:
    """One queue in this step. What does not fit now never does in this step: room only shrinks."""

    def __init__(self, queue: Queue, room: ElementRoom, bundle: Bundle) -> None:
        self._files = queue.files
        self._room = room
        self._bundle = bundle
        # Those that come first and may share a place, and the one behind them.
        self._alike: deque[Waiting] = deque()
        self._next = next(self._files, None)

    def head(self) -> Waiting | None:
        while (head := self._alike[0] if self._alike else self._next) is not None:
            if self._room.fits(head.source, head.target):
                return head
            if self._alike:
                self._alike.clear()
            else:
                self._next = next(self._files, None)
        return None

    def take(self, places: int) -> Sequence[Waiting]:
        """The files that take the next place: the head, and of those right behind it that may share
        its place as many as leave something for the other free ones.
        """
        head = self.head()
        if head is None:
            raise LookupError("nothing waits")
        places = self._room.places(head.source, head.target, places)
        self._gather(self._bundle.files * places)
        size = min(self._bundle.files, -(-len(self._alike) // places))
        return [self._alike.popleft() for _ in range(size)]

    def _gather(self, most: int) -> None:
        while (file := self._next) is not None and len(self._alike) < most:
            if self._alike and not self._joins(file, self._alike[0]):
                return
            self._alike.append(file)
            self._next = next(self._files, None)

    def _joins(self, file: Waiting, first: Waiting) -> bool:
        known = bool(first.source) or self._room.unlimited
        alike = _in_common(file) == _in_common(first)
        return known and alike and self._bundle.takes(first) and self._bundle.takes(file)
