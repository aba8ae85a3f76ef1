"""What it costs to choose and lease a file that starts, among a million that are stored, against
the same among a thousand.

One transaction of Transfer's store, without the server: what runs is counted, the queues of a
channel are gone through, a file is chosen, locked and read as it is leased; then it is undone. What
writes the lease is the file's start, which is not measured.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Final

from sqlalchemy import Connection

from benchmarks.processes import succeed
from benchmarks.row import Bound, Measured, Row, Target
from benchmarks.run import Run
from gridlane_kit.database import Database
from gridlane_kit.sqlite import sqlite_url
from gridlane_transfer.channels.bundles import ElementRoom
from gridlane_transfer.channels.scheduling import ActivityWeights, Choice, Standing
from gridlane_transfer.room import MIGRATIONS
from gridlane_transfer.store import channels, queues
from gridlane_transfer.store.tables import METADATA

_SMALL: Final = 1_000
_FILES: Final = 1
_CLAIMS: Final = 200
_LEASE: Final = timedelta(seconds=60)


class _UndoneError(Exception):
    """Ends a transaction of which nothing is to be kept."""


@asynccontextmanager
async def _store(stored: int) -> AsyncIterator[Database]:
    with tempfile.TemporaryDirectory(prefix="gridlane-benchmark-") as directory:
        url = sqlite_url(Path(directory) / "transfer.sqlite")
        await succeed(sys.executable, "-m", "benchmarks.stores", "transfer", url, str(stored))
        db = await Database.open(url, metadata=METADATA, migrations=MIGRATIONS, migrate=False)
        try:
            yield db
        finally:
            await db.close()


async def _claim_us(db: Database) -> float:
    """The processor time of a claim, microseconds."""
    (found, _) = await db.read(channels.read_all)
    spent: list[float] = []

    def claim(conn: Connection) -> None:
        begun = time.thread_time()
        moving = queues.running(conn, [one.uid for one in found], elements=False)
        room = ElementRoom({}, {})
        lanes, idle = queues.lanes(conn, found, moving, room, _FILES)
        choice = Choice(lanes, ActivityWeights(), Standing(), room, idle)
        chosen = list(islice(iter(choice.next_place, None), _FILES))
        numbers = [one.number for place in chosen for one in place]
        queues.leased(conn, numbers, holder="benchmark", ttl=_LEASE)
        spent.append((time.thread_time() - begun) * 1_000_000)
        raise _UndoneError

    for _ in range(_CLAIMS):
        try:
            await db.write(claim)
        except _UndoneError:
            continue
    return statistics.median(spent)


async def _measure(run: Run) -> Measured:
    small = await run.shared(_store, _SMALL)
    large = await run.shared(_store, run.effort.stored)
    pairs = [(await _claim_us(small), await _claim_us(large)) for _ in range(run.effort.rounds)]
    return Measured.of(
        [many / few for few, many in pairs],
        stored=run.effort.stored,
        small_us=statistics.median(few for few, _ in pairs),
        large_us=statistics.median(many for _, many in pairs),
    )


ROWS = (
    Row(
        name="scale-claim",
        title="Claim of due files among very many",
        unit="× among a thousand",
        measure=_measure,
        target=Target(Bound.AT_MOST, 1.2, "× among a thousand"),
        conditions="CPU of the transaction's statements, one free place, two VOs wait, SQLite",
    ),
)
