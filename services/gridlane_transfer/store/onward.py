"""Files that go on from elsewhere: the next of their sources, another copy of a logical one, the
next hop of their way.

Responsible for the columns that say so, and for the channel, which is that of its present ends
(`Ways`): what no channel leads from is no source, and a file that no channel leads on ends. Which
source is next is `alternatives`', which copy `copies`', which stop `routes`'.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from gridlane_kit.clock import now_us
from gridlane_transfer.backends.base import MoveOrder
from gridlane_transfer.catalogue.base import LogicalFile
from gridlane_transfer.channels.channels import Channel, Channels
from gridlane_transfer.jobs.options import options_of
from gridlane_transfer.moving import copies
from gridlane_transfer.moving.alternatives import Alternatives, Source, Strategy
from gridlane_transfer.moving.failures import Failed, FailureClass
from gridlane_transfer.moving.file_transfers import (
    alternatives_of,
    is_logical,
    source_of,
    strategy_of,
)
from gridlane_transfer.moving.routes import Route
from gridlane_transfer.moving.source_order import SourceOrder
from gridlane_transfer.states import RUNNING, FileState
from gridlane_transfer.storage.storage_elements import PREFIX, StorageElements
from gridlane_transfer.store.changes import Changes
from gridlane_transfer.store.tables import FileRow, JobRow

_LOST: Final = Failed(
    FailureClass.BACKEND_LOST, "the process that moved it is no more", recoverable=True
)


def plain(element: str) -> str:
    """The plain name of a storage element."""
    return element.removeprefix(PREFIX)


@dataclass(frozen=True, slots=True)
class Ways:
    """The channels that lead from the sources of a file to its target.

    Parameters:
        known: the catalogue's answers to its `logical_sources`.
    """

    channels: Channels
    elements: StorageElements
    row: FileRow
    job: JobRow
    known: Mapping[str, LogicalFile]

    def of(self, source: Source) -> Mapping[str, Channel]:
        """Those from a source, by the resource names of the storage elements where it is read; that
        of a name that is not registered stands under an empty one.
        """
        if source.element:
            return _ways(self.channels, self.row, [PREFIX + source.element])
        logical = self.known.get(source.name)
        if logical is not None:
            return self.of_copies(logical)
        channel = self.channels.choose("", plain(self.row.target_element))
        return {} if channel is None else {"": channel}

    def of_copies(self, logical: LogicalFile) -> Mapping[str, Channel]:
        """Those from the copies of a logical source that may be read for the file."""
        row = self.row
        target = self.elements.locate(row.target_url, internal=True, own=row.hop > 0)
        found = [
            one.location.storage_element
            for one in copies.places(logical, self.elements, options_of(self.job.options).protocols)
            if target is None or not copies.is_one_file(one.location, target.location)
        ]
        return _ways(self.channels, row, found)

    def led(self, sources: Alternatives) -> Alternatives:
        """Sources without those that no channel leads from."""
        every = enumerate(sources.sources)
        return sources.without([n for n, one in every if n != sources.now and not self.of(one)])

    def with_new_copies(self, sources: Alternatives) -> Alternatives:
        """Sources with the copies that were registered since they were listed one by one."""
        found = {
            name: [plain(one) for one in self.of_copies(logical)]
            for name, logical in self.known.items()
        }
        return sources.with_new_copies(found)


def to_source(
    changes: Changes,
    ways: Ways,
    row: FileRow,
    state: FileState,
    sources: Alternatives,
    failed: Failed | None = None,
) -> FileRow:
    """Have a file wait for its next source; one that no channel leads from to its target ends.

    Parameters:
        state: the one that it waits in.
        sources: its own, with the next one chosen.
        failed: what became of the source before; None: it was never tried.
    """
    found = next(iter(ways.of(sources.present).items()), None)
    if found is None:
        refused = no_channel(sources.present.element, row.target_element)
        return changes.file(row, FileState.FAILED, failure=refused, lease_until_us=0)
    source, channel = found
    return changes.file(
        row,
        state,
        failure=None if state is FileState.READY else failed,
        alternatives=sources.to_json(),
        source_element=source,
        channel_uid=channel.uid,
        lease_until_us=0,
    )


def to_another(changes: Changes, ways: Ways) -> bool:
    """Have a file wait for another source, since no channel leads from the present one any more;
    whether there is one.
    """
    row = ways.row
    several = alternatives_of(row)
    if several is None:
        logical = ways.known.get(source_of(row))
        for source, channel in ({} if logical is None else ways.of_copies(logical)).items():
            changes.file(row, FileState(row.state), source_element=source, channel_uid=channel.uid)
            return True
        return False
    led = ways.led(several.without([several.now]))
    left = [index for index in range(len(led.sources)) if index not in led.gone]
    fresh = [index for index in left if index not in led.tried]
    for index in (fresh or left)[:1]:
        to_source(changes, ways, row, FileState(row.state), replace(led, now=index))
    return bool(left)


def on_channels(channels: Channels, row: FileRow, order: MoveOrder) -> MoveOrder | Failed:
    """The order with those copies of a logical source alone that a channel leads from; Failed when
    there is none.
    """
    if not is_logical(source_of(row)):
        return order
    ways = _ways(channels, row, [one.storage_element for one in order.sources])
    if not ways:
        return no_channel(plain(order.sources[0].storage_element), row.target_element)
    if len(ways) == len(order.sources):
        return order
    return replace(order, sources=[one for one in order.sources if one.storage_element in ways])


def to_copy(
    changes: Changes, channels: Channels, by: SourceOrder, row: FileRow, order: MoveOrder
) -> MoveOrder | None:
    """Have a file that is about to start read a copy of its logical source on that copy's channel:
    since it was put on its channel copies may have come and gone.

    It leaves the copy that it waits for only for a better one: see `copies.kept`.

    Parameters:
        order: with the copies that may be read now and that channels lead from, in the order in
            which they are tried.

    Returns:
        The order with those copies alone that lie on the file's channel; None: it waits on another
        one.
    """
    if not is_logical(source_of(row)):
        return order
    there = order.sources
    ways = _ways(channels, row, [one.storage_element for one in there])
    staying = [one for one in there if ways[one.storage_element].uid == row.channel_uid]
    if staying and row.state in RUNNING:
        there = staying  # it has its place
    starting = {name for name, channel in ways.items() if channel.starts_files}
    settled = by.settled(
        strategy_of(row), plain(row.target_element), changes.job(row.job_number).vo
    )
    first = copies.kept(there, starting, row.source_element, settled)
    channel = ways[first.storage_element]
    if channel.uid == row.channel_uid:
        return replace(order, sources=sorted(staying, key=lambda one: one is not first))
    if row.state in RUNNING:
        row = changes.file(row, FileState.RETRYING, failure=_LOST)
    changes.file(
        row,
        FileState(row.state),
        source_element=first.storage_element,
        channel_uid=channel.uid,
        lease_until_us=0,
    )
    return None


def with_copies(ways: Ways, logical: LogicalFile) -> Alternatives | None:
    """The sources of a file whose logical source could not be read, its copies among them that the
    attempt did not try; None when there is nothing else to try.
    """
    row = ways.row
    several = alternatives_of(row)
    found = ways.of_copies(logical)
    others = [plain(name) for name in found if name != row.source_element]
    read = [plain(row.source_element)]
    if several is None or not several.present.element:
        read += [one for one in others if _is_beside(found[PREFIX + one], row, ways.elements, one)]
    present = several or Alternatives([Source(row.source, "")], Strategy.ORDERLY)
    known = {one.element for one in present.sources if one.name == present.present.name}
    if not set(others) - {*read, *known}:
        return several
    return present.with_copies(read, others)


def _is_beside(channel: Channel, row: FileRow, elements: StorageElements, source: str) -> bool:
    """Whether a copy is read in the attempt that begins with another one: see `copies`."""
    element = elements.get(PREFIX + source)
    counts = element is not None and bool(element.limits.max_active_out)
    return channel.uid == row.channel_uid and not counts


def _ways(channels: Channels, row: FileRow, names: Sequence[str]) -> Mapping[str, Channel]:
    """The channels from copies to a file's target, by the resource names of the copies' storage
    elements; those that no channel leads from are left out.
    """
    target = plain(row.target_element)
    found = {name: channels.choose(plain(name), target) for name in names}
    if row.source_element in found and not (own := channels.by_uid(row.channel_uid)).deleted:
        found[row.source_element] = own
    return {name: channel for name, channel in found.items() if channel is not None}


def to_hop(changes: Changes, channels: Channels, row: FileRow, route: Route) -> FileRow:
    """Have a file that has arrived on its way wait for its next hop; one whose end was asked for
    ends here.
    """
    if row.state == FileState.CANCELING:
        return changes.file(row, FileState.CANCELED)
    following = route.stop(row.hop + 1)
    channel = channels.choose(plain(row.target_element), plain(following.element))
    if channel is None:
        refused = no_channel(plain(row.target_element), following.element)
        return changes.file(row, FileState.FAILED, failure=refused)
    arrived = changes.file(row, FileState.READY, due_us=now_us(), end_us=now_us())
    source = (row.source_url or "", row.source_element)
    return changes.file(
        arrived,
        FileState.READY,
        route=route.onward(row.attempt, source).to_json(),
        hop=row.hop + 1,
        source_element=row.target_element,
        target_url=following.url,
        target_element=following.element,
        target_lfn=following.lfn,
        channel_uid=channel.uid,
    )


def no_channel(source: str, target: str) -> Failed:
    """Why a file ends that nothing leads on: the plain names of its ends."""
    return Failed(
        FailureClass.BACKEND_REFUSED,
        f"no channel leads from {source or 'any storage element'} to {plain(target)} any more",
        "have an administrator add one",
    )
