"""Held files as rows: let go, or given up, by those who manage their jobs or their channels.

Responsible for the one transaction of both, for the files of a job (`TransferAdminService`) and of
a channel (`ChannelAdminService`). One transaction takes `PAGE` files at most, so that other writers
get their turn: the caller asks again with what was answered as `after`, and sums up.

A file that is held since its owner lacks a right is not let go: it goes on by itself when the right
is back (`rights`), and would be held again at once before that. It can be given up.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final

from sqlalchemy import Connection, Select, select

from gridlane_kit import audit
from gridlane_kit.audit import AuditEntry
from gridlane_kit.clock import now_us
from gridlane_kit.feed import Feed
from gridlane_transfer import messages
from gridlane_transfer.channels.channels import Channels
from gridlane_transfer.states import FileState
from gridlane_transfer.store.changes import Changes
from gridlane_transfer.store.tables import AUDIT, FILE, FILE_COLUMNS, FileRow

PAGE: Final = 500
"""So many files change in one transaction."""


class HeldAction(Enum):
    """What becomes of held files."""

    RELEASE = auto()
    """They may start again, with all their retries."""
    FAIL = auto()
    """They are FAILED, with the failure that they are held for."""


@dataclass(frozen=True, slots=True)
class HeldFiles:
    """Held files to let go or to give up: of a job, of a channel, or of a job on some channels.

    Parameters:
        job_number: those of this job; None: of every one.
        ns: of that job those with these numbers in it; None: all.
        channels: those on channels with these uids; None: wherever they lie. One of job and
            channels is given.
        after: go on behind the file of this key, an earlier answer's; 0 from the first. Of a
            channel alone those that were changed are not found again, and it says nothing.
        numbers: of a channel alone: only those with these numbers of their own; None: all.
        until_us: of a channel alone: those that were held by then.
        entry: what goes into the audit with it, and with each transaction that goes on and changes
            files: it names those that its transaction changed.
    """

    action: HeldAction
    job_number: int | None = None
    ns: Sequence[int] | None = None
    channels: frozenset[str] | None = None
    after: int = 0
    entry: AuditEntry | None = None
    numbers: Sequence[int] | None = None
    until_us: int = 0

    @property
    def key(self) -> tuple[int, str]:
        """What group commits sort by."""
        return self.job_number or 0, min(self.channels or {""})


@dataclass(frozen=True, slots=True)
class HeldDone:
    """What was done.

    Parameters:
        files: how many changed.
        after: where to go on; None: there are no more.
    """

    files: int
    after: int | None


def settle(
    conn: Connection, entries: Sequence[HeldFiles], *, feed: Feed, channels: Channels
) -> list[HeldDone | Exception]:
    """Let held files go, or give them up."""
    return [_settle(conn, feed, channels, entry) for entry in entries]


def _settle(conn: Connection, feed: Feed, channels: Channels, wish: HeldFiles) -> HeldDone:
    rows = [FileRow._make(row) for row in conn.execute(_held(wish))]
    changes = Changes(conn, feed, channels, now_us())
    changes.load({row.job_number for row in rows})
    done = [row for row in rows if _change(changes, row, wish.action)]
    changes.save()
    if wish.entry is not None and (done or not wish.after):
        names = [_name(changes, row) for row in done]
        audit.append(conn, AUDIT, [audit.about_files(wish.entry, names)])
    if len(rows) < PAGE:
        return HeldDone(len(done), None)
    return HeldDone(len(done), rows[-1].number if wish.job_number is None else rows[-1].n)


def _name(changes: Changes, row: FileRow) -> str:
    return f"{messages.PREFIX}{changes.job(row.job_number).uuid}/files/{row.n}"


def _held(wish: HeldFiles) -> Select[Any]:
    """The next held files, along the index of a job's files in a state, or of a channel's held
    ones.
    """
    if wish.job_number is None:
        return _held_on(wish)
    key = FILE.c.n
    statement = select(*FILE_COLUMNS).where(FILE.c.state == int(FileState.HELD), key > wish.after)
    statement = statement.where(FILE.c.job_number == wish.job_number)
    if wish.ns is not None:
        statement = statement.where(FILE.c.n.in_(wish.ns))
    if wish.channels is not None:
        statement = statement.where(FILE.c.channel_uid.in_(sorted(wish.channels)))
    return statement.order_by(key).limit(PAGE).with_for_update()


def _held_on(wish: HeldFiles) -> Select[Any]:
    """The next files that are held for the manager of a channel, those held longest first."""
    statement = select(*FILE_COLUMNS).where(
        FILE.c.channel_uid.in_(sorted(wish.channels or ())),
        FILE.c.held_us <= wish.until_us,
        FILE.c.held_us.is_not(None),
    )
    if wish.numbers is not None:
        statement = statement.where(FILE.c.number.in_(wish.numbers))
    return statement.order_by(FILE.c.held_us, FILE.c.number).limit(PAGE).with_for_update()


def _change(changes: Changes, row: FileRow, action: HeldAction) -> bool:
    if action is HeldAction.FAIL:
        changes.file(row, FileState.FAILED)
        return True
    if messages.lacks_permission(row):
        return False
    changes.file(row, FileState.READY, retries=0, due_us=now_us())
    return True
