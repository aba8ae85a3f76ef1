"""Admission: how many calls of each class run at once.

Responsible for counting and refusing by class, so that open streams cannot use up what short calls
need. gRPC's own limit is only a backstop behind it: streams use it up, and its refusal has no
RetryInfo.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from gridlane_kit import errors
from gridlane_kit.errors import GridlaneError


class AdmissionClass(StrEnum):
    """The classes; the values are what `OVERLOADED` names as the limit."""

    UNARY = "unary"
    BATCH = "batch"
    STREAM = "stream"


@dataclass(frozen=True, slots=True)
class Limits:
    """How many calls of each class run at once, and after how many seconds to come again."""

    unary: int = 2000
    batch: int = 64
    stream: int = 4000
    retry_after_s: float = 0.5


class Gate:
    """One class: entered at the start of a call, left at its end."""

    __slots__ = ("_retry_after_s", "in_flight", "limit", "name", "refused")

    def __init__(self, name: AdmissionClass, limit: int, retry_after_s: float) -> None:
        self.name = name
        self.limit = limit
        self.in_flight = 0
        self.refused = 0
        self._retry_after_s = retry_after_s

    def enter(self) -> bool:
        """Takes a place; False when there is none, and then `leave` must not be called."""
        if self.in_flight >= self.limit:
            self.refused += 1
            return False
        self.in_flight += 1
        return True

    def leave(self) -> None:
        """Gives the place back."""
        self.in_flight -= 1

    def refusal(self) -> GridlaneError:
        """The answer to a call that found no place: RESOURCE_EXHAUSTED with RetryInfo."""
        return errors.overloaded(self.name.value, self._retry_after_s)


class Admission:
    """The gates of one server."""

    def __init__(self, limits: Limits | None = None) -> None:
        chosen = limits or Limits()
        sizes = {
            AdmissionClass.UNARY: chosen.unary,
            AdmissionClass.BATCH: chosen.batch,
            AdmissionClass.STREAM: chosen.stream,
        }
        self.gates: Mapping[AdmissionClass, Gate] = {
            name: Gate(name, size, chosen.retry_after_s) for name, size in sizes.items()
        }
