"""Several sources of one file: which one is tried now, and which one next.

Responsible for the rules, as functions of data: a source that failed makes room for the next one; a
round over all sources that can still help is one attempt of the retry budget. A source whose
failure cannot pass is not asked again. What is asked last (banned, probing) and what did well
lately is told by those who call.
"""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Final

from gridlane_transfer.moving.failures import FailureClass


class Strategy(IntEnum):
    """`gridlane.transfer.v1.SelectionStrategy`, by number: those that are carried out."""

    ORDERLY = 1
    AUTO = 2
    SUCCESS = 3


OF_THE_SOURCE: Final = frozenset(
    {
        FailureClass.SOURCE_MISSING,
        FailureClass.SOURCE_UNREADABLE,
        FailureClass.CHECKSUM_MISMATCH,
        FailureClass.CATALOGUE,
        FailureClass.NO_REPLICA,
        FailureClass.CREDENTIAL,
        FailureClass.STORAGE_BANNED,
        FailureClass.BACKEND_LOST,
        FailureClass.BACKEND_REFUSED,
        FailureClass.TIMED_OUT,
    }
)
"""Failures after which another source may do better; the others lie with the target."""


@dataclass(frozen=True, slots=True)
class Source:
    """A name of the bytes.

    Parameters:
        name: as submitted, a URL or logical file name.
        element: the plain name of its storage element; of a logical name: of the one copy that it
            stands for; empty: for those that the catalogue knows.
    """

    name: str
    element: str


Order = Callable[[Source], tuple[float, ...]]
"""What sources are sorted by; the first one is tried first."""


@dataclass(frozen=True, slots=True)
class Alternatives:
    """The sources of a file.

    Parameters:
        sources: in the order of the request.
        strategy: in which order they are tried.
        now: the index of the present one.
        tried: the indexes of those that failed in this round.
        gone: the indexes of those that will not be asked again.
    """

    sources: Sequence[Source]
    strategy: Strategy
    now: int = 0
    tried: frozenset[int] = frozenset()
    gone: frozenset[int] = frozenset()

    @property
    def present(self) -> Source:
        """The source that is tried now."""
        return self.sources[self.now]

    def begin(self, order: Order) -> "Alternatives":
        """As they are when the first one has been chosen."""
        return replace(self, now=self._first(frozenset(range(len(self.sources))), order))

    def after(self, order: Order, *, recoverable: bool) -> "tuple[Alternatives, bool] | None":
        """What follows a failure of the present source.

        Parameters:
            recoverable: whether the same source may do better later.

        Returns:
            The sources with the next one chosen, and whether a new round begins with it; None when
            there is none left that could help.
        """
        tried = self.tried | {self.now}
        gone = self.gone if recoverable else self.gone | {self.now}
        left = frozenset(range(len(self.sources))) - gone
        if not left:
            return None
        fresh = left - tried
        if fresh:
            return replace(self, now=self._first(fresh, order), tried=tried, gone=gone), False
        return replace(self, now=self._first(left, order), tried=frozenset(), gone=gone), True

    def with_copies(self, read: Sequence[str], others: Sequence[str]) -> "Alternatives":
        """As they are when the copies of the present source, a logical name, are tried one by one.

        Parameters:
            read: the plain names of the storage elements whose copies have been tried with it, the
                first one first.
            others: those of the copies that have not.
        """
        name = self.present.name
        first, *more = read
        sources = list(self.sources)
        sources[self.now] = Source(name, first)
        tried = set(self.tried)
        for element in (*more, *others):
            copy = Source(name, element)
            if copy in sources:
                continue
            if element in more:
                tried.add(len(sources))
            sources.append(copy)
        return replace(self, sources=sources, tried=frozenset(tried))

    def with_new_copies(self, copies: Mapping[str, Sequence[str]]) -> "Alternatives":
        """As they are when logical sources whose copies are tried one by one have got others.

        Parameters:
            copies: by logical name, the plain names of the storage elements of its copies.
        """
        one_by_one = dict.fromkeys(source.name for source in self.sources if source.element)
        found = (Source(name, one) for name in one_by_one for one in copies.get(name, ()))
        new = [source for source in found if source not in self.sources]
        return replace(self, sources=[*self.sources, *new]) if new else self

    def without(self, indexes: Collection[int]) -> "Alternatives":
        """As they are when some will not be asked again."""
        return replace(self, gone=self.gone.union(indexes))

    def to_json(self) -> str:
        """The text for the store."""
        return json.dumps(
            {
                "sources": [[source.name, source.element] for source in self.sources],
                "strategy": int(self.strategy),
                "now": self.now,
                "tried": sorted(self.tried),
                "gone": sorted(self.gone),
            },
            separators=(",", ":"),
        )

    def _first(self, among: frozenset[int], order: Order) -> int:
        return min(among, key=lambda index: (*order(self.sources[index]), index))


def read(text: str) -> Alternatives:
    """Sources as the store keeps them.

    Parameters:
        text: as `Alternatives.to_json` wrote it.
    """
    kept = json.loads(text)
    return Alternatives(
        [Source(name, element) for name, element in kept["sources"]],
        Strategy(kept["strategy"]),
        kept["now"],
        frozenset(kept["tried"]),
        frozenset(kept["gone"]),
    )
