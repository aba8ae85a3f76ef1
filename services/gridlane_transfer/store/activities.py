"""The shares of activities as rows, one for each VO that was given any.

Responsible for reading and writing them and for what is in each now; what they may be is
`activities`'.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import Connection, Row, func, insert, select, update

from gridlane_transfer.states import DUE, RUNNING
from gridlane_transfer.store.tables import ACTIVITY_SHARES, CHANNEL, FILE, file_in

_C: Final = ACTIVITY_SHARES.c


@dataclass(frozen=True, slots=True)
class Shares:
    """The shares of a VO; the defaults are those of one that nobody gave any.

    Parameters:
        weights: by activity, in the order given.
        update_us: when they last changed, microseconds since 1970-01-01 UTC; 0: never.
    """

    vo: str
    weights: Mapping[str, int] = field(default_factory=dict)
    active: bool = True
    update_us: int = 0
    revision: int = 0


def read(conn: Connection, vo: str) -> Shares:
    """The shares of a VO."""
    row = conn.execute(select(ACTIVITY_SHARES).where(_C.vo == vo)).first()
    if row is None:
        return Shares(vo)
    return Shares(vo, json.loads(row.weights), bool(row.active), row.update_us, row.revision)


def write(conn: Connection, shares: Shares) -> None:
    """Write the shares of a VO."""
    values = {
        "weights": json.dumps(dict(shares.weights)),
        "active": shares.active,
        "update_us": shares.update_us,
        "revision": shares.revision,
    }
    changed = conn.execute(update(ACTIVITY_SHARES).where(_C.vo == shares.vo).values(**values))
    if not changed.rowcount:
        conn.execute(insert(ACTIVITY_SHARES).values(vo=shares.vo, **values))


def moving(conn: Connection, vo: str) -> Counter[str]:
    """How many files of a VO move, by activity."""
    statement = select(FILE.c.queue, func.count()).where(file_in(RUNNING)).group_by(FILE.c.queue)
    return _by_activity(conn.execute(statement), vo)


def waiting(conn: Connection, vo: str) -> Counter[str]:
    """How many files of a VO wait for their start, by activity; along the index of what is due."""
    statement = (
        select(FILE.c.queue, func.count())
        .where(
            FILE.c.channel_uid.in_(select(CHANNEL.c.uid)),
            FILE.c.queue >= f"{vo}/",
            # The character after the slash.
            FILE.c.queue < f"{vo}0",
            file_in(DUE),
        )
        .group_by(FILE.c.queue)
    )
    return _by_activity(conn.execute(statement), vo)


def _by_activity(counts: Iterable[Row[str, int]], vo: str) -> Counter[str]:
    found: Counter[str] = Counter()
    for queue, count in counts:
        its, _, activity = queue.partition("/")
        if its == vo:
            found[activity] += count
    return found
