"""Many tasks at once on the same deployment, by clients that call again by themselves.

Responsible for what is different where a life is not alone: what it calls its own. What must hold
of each is what holds of one that is alone.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

from faults import checks, lives
from support import Deployment

import gridlane
from gridlane.workload.v1.job_pb2 import Job
from gridlane_workload import states

_AT_ONCE = 10
_PATIENCE_S = 90


class OneOfMany(lives.TaskLife):
    """A small task with an input and an output; its callers see no failure that passes."""

    retry: ClassVar[gridlane.RetryPolicy] = gridlane.RetryPolicy()
    inputs: ClassVar[dict[str, bytes]] = {"in.txt": b"seven\n" * 50}
    outputs: ClassVar[dict[str, bytes]] = {"out.txt": b"seven\n" * 50}
    program: ClassVar[str] = "sleep 0.2; cp in.txt out.txt"

    def watch(self) -> None:
        with self.client() as client:
            for event in client.jobs.watch(self.name, timeout=_PATIENCE_S):
                self.watched.append(event)
                if event.state in states.ENDED:
                    return

    def of_this_life(self, items: Iterable[lives.Created]) -> list[str]:
        own = str(self.executions)
        jobs = [item for item in items if isinstance(item, Job)]
        return [
            j.name for j in jobs if j.description.executors[0].environment.get("EXECUTIONS") == own
        ]

    def check_moves(self) -> None:
        """Nothing: it is checked once for all of them (`end_well`)."""

    def check_stored(self, client: gridlane.Client, there: Mapping[str, bytes]) -> None:
        checks.storage(self.server.data_dir, client, there, f"{self.place}/")


class Producer(OneOfMany):
    """A task without an input."""

    inputs: ClassVar[dict[str, bytes]] = {}
    program: ClassVar[str] = "yes seven | head -n 50 > out.txt"


class Plain(Producer):
    """A task without files: Transfer is not needed to hand it in."""

    outputs: ClassVar[dict[str, bytes]] = {}
    program: ClassVar[str] = "true"


class Waiter(Producer):
    """One whose payload runs until `let_go`."""

    program: ClassVar[str] = (
        f'until test -e "$EXECUTIONS.go"; do sleep 0.1; done; {Producer.program}'
    )

    def let_go(self) -> None:
        """Lets the payload end."""
        self.executions.with_suffix(".go").touch()


def crowd(
    life: type[OneOfMany], count: int, server: Deployment, folder: Path
) -> Sequence[OneOfMany]:
    """Lives that have not begun, each with a folder of its own."""
    made = []
    for _ in range(count):
        own = folder / gridlane.uuid7()
        own.mkdir(parents=True)
        made.append(life(server, own))
    return made


def live(many: Sequence[OneOfMany]) -> None:
    """Lives all of them to their ends, some at once; raises what any was cut short by."""
    _at_once([life.go_on for life in many])


def end_well(many: Sequence[OneOfMany]) -> None:
    """Checks each of them, and what all of them together moved."""
    _at_once([life.end_well for life in many])
    lives.Life.check_moves(min(many, key=lambda life: life.begun))


def _at_once(calls: Sequence[Callable[[], None]]) -> None:
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="life") as pool:
        for ended in [pool.submit(call) for call in calls]:
            ended.result()
