"""Files that go on from elsewhere: the next of their sources, the next hop of their way.

Responsible for the columns that say so, and for the channel, which is that of its present ends; a
file that no channel leads on ends. Which source is next is `alternatives`', which stop `routes`'.
"""

from gridlane_kit.clock import now_us
from gridlane_transfer.channels.channels import Channels
from gridlane_transfer.moving.alternatives import Alternatives
from gridlane_transfer.moving.failures import Failed, FailureClass
from gridlane_transfer.moving.routes import Route
from gridlane_transfer.states import FileState
from gridlane_transfer.storage.storage_elements import PREFIX
from gridlane_transfer.store.changes import Changes
from gridlane_transfer.store.tables import FileRow


def plain(element: str) -> str:
    """The plain name of a storage element."""
    return element.removeprefix(PREFIX)


def to_source(
    changes: Changes,
    channels: Channels,
    row: FileRow,
    state: FileState,
    sources: Alternatives,
    failed: Failed,
) -> FileRow:
    """Have a file wait for its next source.

    Parameters:
        state: the one that it waits in.
        sources: its own, with the next one chosen.
        failed: what became of the source before.
    """
    source = sources.present.element
    channel = channels.choose(source, plain(row.target_element))
    if channel is None:
        refused = no_channel(source, row.target_element)
        return changes.file(row, FileState.FAILED, failure=refused, lease_until_us=0)
    return changes.file(
        row,
        state,
        failure=None if state is FileState.READY else failed,
        alternatives=sources.to_json(),
        source_element=PREFIX + source if source else "",
        channel_uid=channel.uid,
        lease_until_us=0,
    )


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
