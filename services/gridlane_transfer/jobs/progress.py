"""How far the running files of jobs have come, which no row says while they move.

Responsible for adding to jobs, as they are told, what their running attempts have moved and how
fast. Of files that another process moves on the same database, nothing is known here.
"""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from gridlane.transfer.v1 import transfer_job_pb2
from gridlane_kit.clock import now_us
from gridlane_kit.database import Database
from gridlane_transfer import messages
from gridlane_transfer.backends.base import TransferBackend
from gridlane_transfer.states import FileState
from gridlane_transfer.store import jobs
from gridlane_transfer.store.tables import JobRow

_ACTIVE = str(int(FileState.ACTIVE))


@dataclass(slots=True)
class Moving:
    """What running attempts have moved, and what they move in a second, in bytes."""

    moved: int = 0
    per_second: int = 0


class Progress:
    """Tells of jobs."""

    def __init__(self, db: Database, backend: TransferBackend) -> None:
        self._db = db
        self._backend = backend

    async def messages(self, rows: Sequence[JobRow]) -> list[transfer_job_pb2.TransferJob]:
        """Jobs without their files, in order."""
        told = [messages.job_message(row) for row in rows]
        active = [row.number for row in rows if _has_active(row)]
        if not active:
            return told
        moving = await self.of(active)
        for row, message in zip(rows, told, strict=True):
            if row.number in moving:
                message.transferred_bytes += moving[row.number].moved
                message.throughput_bytes_per_second = moving[row.number].per_second
        return told

    async def of(self, job_numbers: Sequence[int]) -> dict[int, Moving]:
        """What runs of some jobs, by their numbers; those of which nothing does are left out."""
        running = await self._db.read(lambda conn: jobs.running(conn, job_numbers))
        now = now_us()
        found: dict[int, Moving] = defaultdict(Moving)
        for job_number, number, start_us in running:
            moved = self._backend.progress(number)
            if moved:
                found[job_number].moved += moved
                found[job_number].per_second += messages.bytes_per_second(moved, start_us, now)
        return found


def _has_active(row: JobRow) -> bool:
    return f'"{_ACTIVE}"' in row.counts and json.loads(row.counts).get(_ACTIVE, 0) > 0
