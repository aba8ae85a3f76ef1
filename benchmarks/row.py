"""What a row of the table is: its target as data, and what a measurement of it answers.

Responsible for the words and for the one comparison "met or not". Not for measuring (`rows`) nor
for the table's form (`report`).
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from statistics import median
from typing import Self

from benchmarks.run import Run


class Engine(StrEnum):
    """The database engines that Gridlane runs on."""

    SQLITE = "sqlite"
    POSTGRESQL = "postgresql"

    @property
    def words(self) -> str:
        """What people read: the engine, and that its answers are on disk."""
        return _WORDS[self]

    def row(self, name: str) -> str:
        """Returns the name of a row on this engine: SQLite's is the plain one."""
        return name if self is Engine.SQLITE else f"{name}-{self}"


_WORDS = {Engine.SQLITE: "SQLite FULL", Engine.POSTGRESQL: "PostgreSQL, fsync on"}


class PeerMissingError(Exception):
    """What a row compares with is not on this machine; the text says how to get it."""


class Bound(StrEnum):
    """Which side of the limit is good; the value is the sign in the table."""

    AT_MOST = "≤"
    AT_LEAST = "≥"


@dataclass(frozen=True, slots=True)
class Target:
    """What is promised. `unit` is the figure's: "× echo", "µs", "a second", "ms", "s", "× cp"."""

    bound: Bound
    limit: float
    unit: str

    def met_by(self, value: float) -> bool:
        """Whether a figure in the target's unit keeps the promise."""
        return value <= self.limit if self.bound is Bound.AT_MOST else value >= self.limit


@dataclass(frozen=True, slots=True)
class Measured:
    """A figure: the median of several measurements, and the interval that all of them lie in.

    `details` are what the figure was computed from, by name with the unit in it ("echo_us"):
    medians too.
    """

    value: float
    low: float
    high: float
    samples: int
    details: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, samples: Sequence[float], **details: float) -> Self:
        """Sums up the measurements of one figure.

        Raises:
            ValueError: there are none.
        """
        if not samples:
            raise ValueError("a figure needs at least one measurement")
        return cls(median(samples), min(samples), max(samples), len(samples), details)


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table.

    `name` is what `--rows` takes, `title` what people read, `conditions` what one must know to
    compare the figure with another. Without a `target` the row is there to be compared with.
    `engine` is the database that its services run on; None where there is none, or no choice.
    `note` stands below the table, once for all rows that have it.
    """

    name: str
    title: str
    unit: str
    measure: Callable[[Run], Awaitable[Measured]]
    target: Target | None = None
    conditions: str = ""
    engine: Engine | None = None
    note: str = ""
