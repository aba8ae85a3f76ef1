"""What optimizers have come to, as rows: one a channel.

Responsible for the transaction of a decision: of several processes that look at a channel at the
same time one decides for a window. The rule is `optimizer`'s.
"""

from typing import Final

from sqlalchemy import Connection, delete, insert, select, update

from gridlane_transfer.channels.optimizer import Window, decide
from gridlane_transfer.states import DUE
from gridlane_transfer.store import channels, queues
from gridlane_transfer.store.refresh import Kind, bump, lock
from gridlane_transfer.store.tables import CHANNEL_OPTIMIZER, FILE, file_in

_C: Final = CHANNEL_OPTIMIZER.c


def forget(conn: Connection, uid: str) -> None:
    """Begin anew on a channel: with its `max_files`."""
    conn.execute(delete(CHANNEL_OPTIMIZER).where(_C.channel_uid == uid))


def look(conn: Connection, uid: str, every_us: int, time_us: int) -> int | None:
    """Decide on a channel, if its window is over; call it in `Database.write_after_lock`.

    Parameters:
        every_us: how long a window is, microseconds.
        time_us: the present.

    Returns:
        How many files it may move from now on; None: nothing was decided.
    """
    lock(conn, Kind.CHANNELS)
    channel = channels.read_by_uid(conn, uid)
    optimizer = None if channel is None else channel.optimizer
    if channel is None or optimizer is None:
        return None
    row = conn.execute(select(CHANNEL_OPTIMIZER).where(_C.channel_uid == uid)).first()
    if row is None:
        allowed = optimizer.bounded(channel.max_files)
        conn.execute(
            insert(CHANNEL_OPTIMIZER).values(
                channel_uid=uid, allowed_files=allowed, decide_us=time_us
            )
        )
        bump(conn, Kind.CHANNELS)
        return allowed
    if time_us < row.decide_us + every_us:
        return None
    traffic = channels.traffic(conn, uid, row.decide_us, time_us)
    full = _is_full(conn, uid, row.allowed_files)
    window = Window(traffic.finished, traffic.failed, traffic.rate, row.bytes_per_second, full)
    allowed = decide(optimizer, row.allowed_files, window)
    conn.execute(
        update(CHANNEL_OPTIMIZER)
        .where(_C.channel_uid == uid)
        .values(allowed_files=allowed, bytes_per_second=traffic.rate, decide_us=time_us)
    )
    if allowed != row.allowed_files:
        bump(conn, Kind.CHANNELS)
    return allowed


def _is_full(conn: Connection, uid: str, allowed: int) -> bool:
    """Whether files wait that have no place."""
    on_channel = FILE.c.channel_uid == uid
    waits = select(FILE.c.number).where(on_channel, file_in(DUE)).limit(1)
    if conn.execute(waits).first() is None:
        return False
    return queues.places_taken(conn, uid) >= allowed
