"""One service alone in a process, on an empty data directory, for the benchmarks to call.

`python -m benchmarks.room_server SERVICE DIRECTORY` writes one line of JSON (address, token) when
it serves, and ends at SIGTERM. Responsible for an assembly of one room: pipeline, policy and token
are the real ones, telemetry samples nothing. The room's reconciler is at rest, so that what is
measured is the call and not what it sets going; nothing else is different from `gridlane-server`.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from benchmarks.identity import Identity
from gridlane_kit import logs
from gridlane_kit.admission import Admission
from gridlane_kit.data_directory import DataDirectory
from gridlane_kit.metrics import Metrics
from gridlane_kit.policy import PolicyHolder
from gridlane_kit.registration import Pipeline
from gridlane_kit.server import Server, ServiceRoom, run
from gridlane_kit.settings import ServerSettings
from gridlane_kit.sqlite import sqlite_url
from gridlane_kit.telemetry import Telemetry


class _Process:
    """What the room of a process is made from."""

    def __init__(self, data: DataDirectory) -> None:
        self.identity = Identity()
        self.data = data
        self.policy = PolicyHolder(self.identity.policy)
        self.metrics = Metrics()
        self.telemetry = Telemetry("benchmarks", ratio=0.0)
        self.pipeline = Pipeline(
            verifier=self.identity.verifier,
            policy=self.policy,
            telemetry=self.telemetry,
            metrics=self.metrics,
            admission=Admission(),
        )


async def _at_rest(_self: object) -> None:
    """In the place of a reconciler's start."""


def _workload(process: _Process) -> ServiceRoom:
    from gridlane_workload.reconciler import Reconciler
    from gridlane_workload.room import WorkloadRoom
    from gridlane_workload.settings import WorkloadSettings

    Reconciler.start = _at_rest  # type: ignore[assignment, method-assign]
    return WorkloadRoom(
        WorkloadSettings(),
        database_url=sqlite_url(process.data.database_file("workload")),
        jobs_directory=process.data.jobs,
        peers=process.pipeline.peers_for("workload"),
        telemetry=process.telemetry,
        policy=process.policy,
        address=lambda: "",
        migrate=True,
    )


def _transfer(process: _Process) -> ServiceRoom:
    from gridlane_transfer.reconciler import Reconciler
    from gridlane_transfer.room import TransferRoom
    from gridlane_transfer.settings import TransferSettings, embedded_storage_elements

    Reconciler.start = _at_rest  # type: ignore[assignment, method-assign]
    elements = embedded_storage_elements(process.data.storage, process.data.jobs)
    return TransferRoom(
        TransferSettings().with_storage_elements(elements),
        database_url=sqlite_url(process.data.database_file("transfer")),
        telemetry=process.telemetry,
        policy=process.policy,
        metrics=process.metrics,
        exclusive=True,
    )


_ROOMS: Final[dict[str, Callable[[_Process], ServiceRoom]]] = {
    "workload": _workload,
    "transfer": _transfer,
}


async def _serve(service: str, directory: Path) -> int:
    data = DataDirectory.open(directory)
    process = _Process(data)
    room = _ROOMS[service](process)
    server = Server(ServerSettings(port=0, health_port=0), [room], process.pipeline)
    server.stop_on_signals()
    await server.start()
    print(json.dumps({"address": server.address, "token": process.identity.token}), flush=True)
    await server.wait()
    await server.stop()
    data.close()
    return 0


if __name__ == "__main__":
    logs.configure(level="WARNING")
    sys.exit(run(lambda: _serve(sys.argv[1], Path(sys.argv[2]))))
