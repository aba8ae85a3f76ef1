"""Files that wait on a channel that is no more: put on the one that leads there now.

Responsible for finding them, along the index of what is due, and for the transaction. A channel is
removed only when nothing lies on it; a process that has not heard of that yet, though, still
submits to it for a moment.
"""

from typing import Final

from sqlalchemy import Connection, select

from gridlane_kit.clock import now_us
from gridlane_kit.feed import Feed
from gridlane_transfer.channels.channels import Channels
from gridlane_transfer.moving.file_transfers import logical_sources
from gridlane_transfer.states import DUE, FileState
from gridlane_transfer.storage.storage_elements import StorageElements
from gridlane_transfer.store import catalogue
from gridlane_transfer.store.changes import Changes
from gridlane_transfer.store.onward import Ways, no_channel, plain, to_another
from gridlane_transfer.store.tables import CHANNEL, FILE, FILE_COLUMNS, FileRow, file_in

PAGE: Final = 200
"""So many files change in one transaction."""

_STRANDED: Final = (
    select(*FILE_COLUMNS)
    .where(
        FILE.c.channel_uid.in_(select(CHANNEL.c.uid).where(CHANNEL.c.delete_us.is_not(None))),
        file_in(DUE),
    )
    .limit(PAGE)
    .with_for_update()
)


def reroute(conn: Connection, feed: Feed, channels: Channels, elements: StorageElements) -> int:
    """Put the next files on their channels; how many. One that no channel leads on from where it is
    read goes on from elsewhere, if it can.
    """
    rows = [FileRow._make(row) for row in conn.execute(_STRANDED)]
    if not rows:
        return 0
    changes = Changes(conn, feed, channels, now_us())
    changes.load({row.job_number for row in rows})
    lfns = {name for row in rows for name in logical_sources(row)}
    known = catalogue.files(conn, sorted(lfns)) if lfns else {}
    for row in rows:
        source, target = plain(row.source_element), plain(row.target_element)
        channel = channels.choose(source, target)
        if channel is not None:
            changes.file(row, FileState(row.state), channel_uid=channel.uid)
            continue
        ways = Ways(channels, elements, row, changes.job(row.job_number), known)
        if not to_another(changes, ways):
            changes.file(row, FileState.FAILED, failure=no_channel(source, target))
    changes.save()
    return len(rows)
