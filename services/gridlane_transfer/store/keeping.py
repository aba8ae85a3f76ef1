"""Leases of files that move: renewed by who works on them.

Responsible for that one write, which also tells what became of each file meanwhile. Files are
leased by `queues` and `moving`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from sqlalchemy import Connection

from gridlane_kit.leases import renew_all
from gridlane_transfer.states import RUNNING, FileState
from gridlane_transfer.store.tables import FILE, file_in

_RUNNING: Final = file_in(RUNNING)


@dataclass(frozen=True, slots=True)
class Keep:
    """A holder's wish to keep a file that it works on for another `ttl`."""

    number: int
    holder: str
    epoch: int
    ttl: timedelta


def keep(conn: Connection, wishes: Sequence[Keep]) -> list[FileState | Exception | None]:
    """Renew leases: the file's state; None for one that was lost or has ended."""
    epochs: dict[tuple[str, timedelta], dict[int, int]] = {}
    for wish in wishes:
        of_holder = epochs.setdefault((wish.holder, wish.ttl), {})
        # Of two wishes for one file that of the earlier epoch is lost in any case.
        of_holder[wish.number] = max(wish.epoch, of_holder.get(wish.number, 0))
    states: dict[tuple[str, int, int], FileState] = {}
    for (holder, ttl), mine in epochs.items():
        kept = renew_all(
            conn,
            FILE,
            where=_RUNNING,
            holder=holder,
            epochs=mine,
            ttl=ttl,
            returning=FILE.c.state,
        )
        for number, state in kept.items():
            states[holder, number, mine[number]] = FileState(state)
    return [states.get((wish.holder, wish.number, wish.epoch)) for wish in wishes]
