"""Bans of storage elements: what may not be done at one, by whom, and what becomes of files.

Responsible for the rules, as functions without I/O: which bans are in force, which of several is
the strictest, and how long a file waits. Where bans are kept is `store.storage`'s; what is done to
files that wait is `banned_files`'. Bans of users are vetoes, Authorization's.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from gridlane_transfer.moving.failures import Failed, FailureClass
from gridlane_transfer.states import FileState

NEVER_US: Final = 2**62
"""Later than every time, microseconds since 1970: the deadline of a file that waits without one."""


class Operation(IntEnum):
    """`gridlane.transfer.v1.StorageOperation`, by number."""

    READ = 1
    WRITE = 2
    CHECK = 3
    REMOVE = 4
    THIRD_PARTY_READ = 5
    THIRD_PARTY_WRITE = 6
    STAGE = 7


class BanAction(IntEnum):
    """`gridlane.transfer.v1.BanAction`, by number."""

    CANCEL = 1
    WAIT = 2


@dataclass(frozen=True, slots=True)
class Ban:
    """A ban as it is stored; times in microseconds since 1970-01-01 UTC.

    Parameters:
        element: the resource name, "storageElements/{name}".
        operations: what may not be done; empty: everything.
        vo: who may not; empty: nobody may.
        wait_timeout_us: how long a file waits; None: as long as the ban is in force.
        accept_submissions: files that need the element are accepted, and BLOCKED.
        expires_us: when it ends by itself; None: never.
        creator: the stored principal.
        affected_files: how many it has cancelled or blocked.
    """

    uid: str
    element: str
    operations: frozenset[Operation]
    vo: str
    action: BanAction
    wait_timeout_us: int | None
    accept_submissions: bool
    expires_us: int | None
    reason: str
    creator: str
    create_us: int
    affected_files: int = 0

    @property
    def name(self) -> str:
        """ "storageElements/{name}/bans/{uuid}"."""
        return f"{self.element}/bans/{self.uid}"

    def in_force(self, now_us: int) -> bool:
        """Whether its end has not come."""
        return self.expires_us is None or now_us < self.expires_us

    def concerns(self, operation: Operation, vo: str | None) -> bool:
        """Whether it keeps a VO (None: everybody) from an operation."""
        if self.operations and operation not in self.operations:
            return False
        return not self.vo or self.vo == vo

    @property
    def severity(self) -> tuple[bool, bool]:
        """Greater is stricter: cancelling before waiting, refusing before accepting."""
        return (self.action is BanAction.CANCEL, not self.accept_submissions)


@dataclass(frozen=True, slots=True)
class Barred:
    """Why something may not be done: the bans against it, the strictest first."""

    bans: Sequence[Ban]

    @property
    def ban(self) -> Ban:
        """The strictest."""
        return self.bans[0]

    @property
    def cancels(self) -> bool:
        """Whether what waits is cancelled."""
        return self.ban.action is BanAction.CANCEL

    @property
    def accepts(self) -> bool:
        """Whether what needs it is accepted, and waits."""
        return all(ban.accept_submissions for ban in self.bans)

    def deadline_us(self, submit_us: int) -> int:
        """Until when a file waits that was submitted at a time."""
        return min(
            (
                max(ban.create_us, submit_us) + ban.wait_timeout_us
                for ban in self.bans
                if ban.wait_timeout_us is not None
            ),
            default=NEVER_US,
        )

    def with_others(self, others: "Barred | None") -> "Barred":
        """This and what else keeps the same file."""
        return self if others is None else barred([*self.bans, *others.bans]) or self


@dataclass(frozen=True, slots=True)
class BannedFile:
    """What becomes of a file that may not start.

    Parameters:
        state: BLOCKED or CANCELED.
        due_us: until when it waits.
        bans: the uids of those that do this.
    """

    state: FileState
    failure: Failed
    due_us: int
    bans: Sequence[str]


def barred(bans: Iterable[Ban]) -> Barred | None:
    """What bans come to, each once; None when there is none."""
    unique = {ban.uid: ban for ban in bans}
    if not unique:
        return None
    ordered = sorted(unique.values(), key=lambda ban: (*ban.severity, ban.uid), reverse=True)
    return Barred(ordered)


def banned_file(found: Barred, submit_us: int, now_us: int) -> BannedFile:
    """What becomes of a file that waits for its start.

    Parameters:
        submit_us: when it was submitted.
    """
    ban = found.ban
    if found.cancels:
        return BannedFile(FileState.CANCELED, cancelled(ban), now_us, [ban.uid])
    deadline_us = found.deadline_us(submit_us)
    if deadline_us <= now_us:
        return BannedFile(FileState.CANCELED, waited_too_long(ban), now_us, [ban.uid])
    return BannedFile(FileState.BLOCKED, waits(ban), deadline_us, [ban.uid])


def waits(ban: Ban) -> Failed:
    """What is said of a file that waits."""
    return Failed(
        FailureClass.STORAGE_BANNED,
        f"{ban.element} is banned: {ban.reason}",
        "it goes on by itself when the ban ends",
        recoverable=True,
    )


def cancelled(ban: Ban) -> Failed:
    """What is said of a file that a ban ended."""
    return Failed(
        FailureClass.STORAGE_BANNED,
        f"cancelled: {ban.element} is banned: {ban.reason}",
        "submit it again when the ban has ended, or name another storage element",
    )


def waited_too_long(ban: Ban) -> Failed:
    """What is said of a file whose time to wait is over."""
    return Failed(
        FailureClass.STORAGE_BANNED,
        f"cancelled: it waited as long as the ban of {ban.element} lets files wait: {ban.reason}",
        "submit it again when the ban has ended, or name another storage element",
    )


class Bans:
    """The bans of a process, by storage element."""

    def __init__(self) -> None:
        self._by_element: dict[str, list[Ban]] = {}

    def replace(self, bans: Collection[Ban]) -> None:
        """Put these in force instead of the present ones."""
        by_element: dict[str, list[Ban]] = {}
        for ban in bans:
            by_element.setdefault(ban.element, []).append(ban)
        self._by_element = by_element

    @property
    def any(self) -> bool:
        """Whether there is one."""
        return bool(self._by_element)

    def all(self) -> list[Ban]:
        """Every ban, also those past their end."""
        return [ban for bans in self._by_element.values() for ban in bans]

    def barring(
        self, element: str, operation: Operation, vo: str | None, now_us: int
    ) -> Barred | None:
        """What keeps a VO (None: everybody) from an operation at an element; None: nothing does.

        Parameters:
            element: the resource name.
        """
        bans = self._by_element.get(element)
        if bans is None:
            return None
        return barred(ban for ban in bans if ban.in_force(now_us) and ban.concerns(operation, vo))

    def next_end_us(self, now_us: int) -> int | None:
        """When the next of those in force ends by itself; None: none does."""
        ends = (ban.expires_us for ban in self.all() if ban.expires_us is not None)
        return min((end for end in ends if end > now_us), default=None)
