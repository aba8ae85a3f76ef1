"""One service alone in a process, or all five, for the benchmarks to call.

`python -m benchmarks.room_server DIRECTORY URLS` writes one line of JSON (address, token) when it
serves, and ends at SIGTERM; URLS is a JSON object of databases by service: of one, or of all that
have one. Responsible for an assembly of rooms: pipeline, policy and token are the real ones,
telemetry samples nothing. The reconcilers are at rest, so that what is measured is the call and not
what it sets going; nothing else is different from `gridlane-server`.
"""

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from benchmarks.identity import Identity
from gridlane_authorization.key_files import KeyFiles
from gridlane_authorization.settings import AuthorizationSettings
from gridlane_authorization.tokens import open_signer, verifier_of
from gridlane_kit import logs
from gridlane_kit.data_directory import DataDirectory
from gridlane_kit.issuers import TrustedIssuers
from gridlane_kit.server import Server, ServiceRoom, rest_collector, run
from gridlane_kit.sessions import Verifier
from gridlane_server.configuration import Configuration
from gridlane_server.process import Process
from gridlane_server.rooms import Rooms
from gridlane_transfer.settings import embedded_storage_elements

_QUIET: Final = {"port": 0, "health_port": 0, "sampling_ratio": 0.0}


def _nobody() -> TrustedIssuers:
    return TrustedIssuers(AuthorizationSettings().audience)


class _Assembly:
    """The rooms of a process."""

    def __init__(self, data: DataDirectory, urls: Mapping[str, str], verifier: Verifier) -> None:
        self.configuration = Configuration.load(**_QUIET)
        self.process = Process(self.configuration.server, "benchmarks", verifier, _nobody())
        self._data = data
        self.make = Rooms(
            self.configuration,
            self.process,
            peers=self.process.pipeline.peers_for,
            database_url=urls.__getitem__,
            migrate=True,
        )

    def workload(self) -> ServiceRoom:
        """Workload, which starts no payload."""
        from gridlane_workload.reconciler import Reconciler

        Reconciler.start = _at_rest  # type: ignore[assignment, method-assign]
        return self.make.workload(self._data.jobs, lambda: "")

    def transfer(self) -> ServiceRoom:
        """Transfer, which moves no file."""
        from gridlane_transfer.moving.reconciler import Reconciler

        Reconciler.start = _at_rest  # type: ignore[assignment, method-assign]
        elements = embedded_storage_elements(self._data.storage, self._data.jobs)
        return self.make.transfer(self.configuration.transfer.with_storage_elements(elements))

    def server(self, *rooms: ServiceRoom) -> Server:
        """The server of these rooms."""
        return Server(self.configuration.server, rooms, self.process.pipeline)


async def _at_rest(_self: object) -> None:
    """In the place of a reconciler's start."""


async def _alone(data: DataDirectory, urls: Mapping[str, str]) -> None:
    identity = Identity()
    assembly = _Assembly(data, urls, identity.verifier)
    assembly.process.policy.replace(identity.policy)
    room = assembly.workload() if "workload" in urls else assembly.transfer()
    await _serve(assembly.server(room), lambda: identity.token)


async def _all(data: DataDirectory, urls: Mapping[str, str]) -> None:
    settings = Configuration.load().authorization
    signer = open_signer(data.keys, settings.issuer, settings.audience)
    assembly = _Assembly(data, urls, verifier_of(signer))
    server = assembly.server(
        assembly.make.authorization(signer, KeyFiles.in_folder(data.keys), data.token_file),
        assembly.transfer(),
        assembly.workload(),
        assembly.make.reporting(),
        assembly.make.gateway(),
    )
    await _serve(server, data.token_file.read_text)


async def _serve(server: Server, token: Callable[[], str]) -> None:
    server.stop_on_signals()
    await server.start()
    rest_collector()
    print(json.dumps({"address": server.address, "token": token().strip()}), flush=True)
    await server.wait()
    await server.stop()


async def _main(directory: Path, urls: Mapping[str, str]) -> int:
    data = DataDirectory.open(directory)
    try:
        await (_all if len(urls) > 1 else _alone)(data, urls)
    finally:
        data.close()
    return 0


if __name__ == "__main__":
    logs.configure(level="WARNING")
    sys.exit(run(lambda: _main(Path(sys.argv[1]), json.loads(sys.argv[2]))))
