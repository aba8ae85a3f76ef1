"""The channels' rows. Responsible for reading them and for the default channel that a new service
begins with.
"""

from typing import Any

from sqlalchemy import Connection, Row, insert, select

from gridlane.ids import uuid7
from gridlane_kit.clock import now_us
from gridlane_kit.pages import Keyset, Page, fetch_page
from gridlane_transfer.channels import DEFAULT_NAME, Channel, ChannelState, ExhaustedAction
from gridlane_transfer.store.tables import CHANNEL

BY_NAME = Keyset(CHANNEL.c.name)
_COLUMNS = [column for column in CHANNEL.c if column.name != "create_us"]


def ensure_default(conn: Connection, max_files: int) -> list[Channel]:
    """All channels; without any, the default one, from anywhere to anywhere, is made first.

    Parameters:
        max_files: how many files the default channel moves at once.
    """
    channels = read_all(conn)
    if channels:
        return channels
    conn.execute(
        insert(CHANNEL).values(
            uid=uuid7(),
            name=DEFAULT_NAME,
            source="*",
            target="*",
            state=int(ChannelState.ACTIVE),
            max_files=max_files,
            on_exhausted=int(ExhaustedAction.FAIL),
            create_us=now_us(),
        )
    )
    return read_all(conn)


def read_all(conn: Connection) -> list[Channel]:
    """All channels."""
    return [_channel(row) for row in conn.execute(select(*_COLUMNS))]


def page(conn: Connection, page_: Page) -> tuple[list[Channel], str]:
    """A page of the channels by name, and the token of the next page."""
    rows, token = fetch_page(conn, select(*_COLUMNS), BY_NAME, page_)
    return [_channel(row) for row in rows], token


def _channel(row: Row[Any]) -> Channel:
    return Channel(
        uid=row.uid,
        name=row.name,
        source=row.source,
        target=row.target,
        state=ChannelState(row.state),
        max_files=row.max_files,
        on_exhausted=ExhaustedAction(row.on_exhausted),
    )
