"""Claims of files to move: what one asks for, what it is made with, and what it comes to.

Responsible for no statement: `moving` claims, the reconciler asks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from gridlane_kit.clock import now_us
from gridlane_kit.policy import Policy, WorkAction
from gridlane_transfer.backends.base import MoveOrder
from gridlane_transfer.catalogue.base import LogicalFile
from gridlane_transfer.channels.bundles import ALONE, Bundle, ElementRoom
from gridlane_transfer.channels.channels import Channel
from gridlane_transfer.channels.scheduling import Seen, Standing
from gridlane_transfer.moving import rights
from gridlane_transfer.states import FileState
from gridlane_transfer.store.changes import Changes
from gridlane_transfer.store.places import Places
from gridlane_transfer.store.tables import FileRow, JobRow

# A file to whose target another one is put, or where one is being removed, is looked at again so
# much later.
_IN_WORK_US: Final = 200_000


@dataclass(frozen=True, slots=True)
class ClaimRequest:
    """Asks for files to move.

    Parameters:
        channels: on these.
        limit: at most so many places.
        holder: who will move them.
        ttl: for how long they are leased.
        policy: what submitters may do now.
        abandoned: also take up files whose lease ran out: their process is no more.
        standing: what everybody had of the places so far.
        bundle: which files may share a place.
    """

    channels: Sequence[Channel]
    limit: int
    holder: str
    ttl: timedelta
    policy: Policy
    abandoned: bool
    standing: Standing
    bundle: Bundle = ALONE


@dataclass(frozen=True, slots=True)
class Claimed:
    """A file to work on: to be moved as ordered, or (`canceling`) to be cleaned up after."""

    file: FileRow
    job: JobRow
    order: MoveOrder
    canceling: bool


@dataclass(frozen=True, slots=True)
class Claims:
    """What a claim came to.

    Parameters:
        places: the files that take each place together; None for each that cannot be moved at all
            and was ended or put off.
        seen: who waits, for the account.
        more_abandoned: whether there may be more files whose process is no more.
        more: whether there may be others that could begin now: it was as many as one claim takes.
        again_us: when files are due that wait for somebody's put or removal; None: none does.
    """

    places: Sequence[Sequence[Claimed | None]]
    seen: Seen
    more_abandoned: bool = False
    more: bool = False
    again_us: int | None = None


@dataclass(slots=True)
class Step:
    """What the files of one claim are begun with.

    Parameters:
        known: the catalogue's answers to the names that they depend on.
        again_us: as `Claims` tells it.
    """

    changes: Changes
    known: Mapping[str, LogicalFile]
    policy: Policy
    room: ElementRoom
    places: Places
    again_us: int | None = None
    actions: dict[tuple[int, FileState], WorkAction] = field(default_factory=dict)

    def action(self, job: JobRow, state: FileState) -> WorkAction:
        """What becomes of a file by what its owner may do now: judged once for all files of a job
        in a state.
        """
        found = self.actions.get((job.number, state))
        if found is None:
            found = self.actions[job.number, state] = rights.action(job, self.policy, state)
        return found

    def waits_until_us(self, row: FileRow) -> int | None:
        """When a file is looked at again whose target has a writer; None: it has none."""
        if self.places.is_taken(row):
            return row.due_us  # the next claim passes it by
        if not self.places.is_at_work(row):
            return None
        self.again_us = now_us() + _IN_WORK_US
        return self.again_us
