"""A server with Workload, Transfer and tokens, as a process of its own that a test can kill or
pause; several may share the databases and the directories.

Arguments: the root directory, the PEM of the key that signs tokens, the URLs of Workload's and
Transfer's databases, the file that gets the address, and settings of Workload as JSON.
"""

import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gridlane.authorization.v1 import authorization_service_pb2
from gridlane_authorization.service import JobTokenShell
from gridlane_kit import logs
from gridlane_kit.admission import Admission
from gridlane_kit.metrics import Metrics
from gridlane_kit.policy import Binding, Policy, PolicyHolder, Role
from gridlane_kit.registration import Pipeline
from gridlane_kit.server import Server, ServiceRoom
from gridlane_kit.settings import ServerSettings
from gridlane_kit.telemetry import Telemetry
from gridlane_kit.tokens import StaticKeys, TokenSigner, TokenVerifier, load_key
from gridlane_transfer.room import TransferRoom
from gridlane_transfer.settings import TransferSettings, embedded_storage_elements
from gridlane_workload.room import WorkloadRoom
from gridlane_workload.settings import WorkloadSettings

ISSUER = "https://issuer.test/"
AUDIENCE = "gridlane"
assert authorization_service_pb2.DESCRIPTOR.name  # a server wants its whole package


class Tokens:
    """A room with Authorization's own shell for jobs' tokens."""

    name = "authorization"

    def __init__(self, signer: TokenSigner) -> None:
        self._signer = signer

    async def start(self) -> None: ...

    def handlers(self) -> Sequence[tuple[str, object]]:
        return [("gridlane.authorization.v1.TokenService", JobTokenShell(self._signer))]

    async def drain(self) -> None: ...

    async def stop(self) -> None: ...


async def main(
    root: Path, key: bytes, urls: tuple[str, str], address: Path, given: dict[str, Any]
) -> None:
    logs.configure(json=False, level="WARNING")
    signer = TokenSigner(load_key(key), ISSUER, AUDIENCE)
    binding = Binding(ISSUER, "ada", Role.SUBMITTER, "local")
    policy = PolicyHolder(Policy(1, [binding], vos=["local"]))
    telemetry = Telemetry("test")
    pipeline = Pipeline(
        verifier=TokenVerifier({ISSUER: StaticKeys(signer.jwks())}, AUDIENCE),
        policy=policy,
        telemetry=telemetry,
        metrics=Metrics(),
        admission=Admission(),
    )
    elements = embedded_storage_elements(root / "storage", root / "jobs")
    transfer = TransferRoom(
        TransferSettings(storage_elements=elements, lease_s=5, poll_s=0.3),
        database_url=urls[1],
        telemetry=telemetry,
        policy=policy,
        exclusive=False,
    )
    workload = WorkloadRoom(
        WorkloadSettings(**given),
        database_url=urls[0],
        jobs_directory=root / "jobs",
        peers=pipeline.peers_for("workload"),
        telemetry=telemetry,
        policy=policy,
        address=lambda: server.address,
        exclusive=False,
    )
    rooms: list[ServiceRoom] = [Tokens(signer), transfer, workload]
    server = Server(ServerSettings(port=0, health_port=0), rooms, pipeline)
    await server.start()
    temporary = address.with_suffix(".new")
    temporary.write_text(server.address)
    temporary.rename(address)
    await server.wait()


if __name__ == "__main__":
    root, key, workload_url, transfer_url, address, given = sys.argv[1:]
    urls = (workload_url, transfer_url)
    asyncio.run(main(Path(root), Path(key).read_bytes(), urls, Path(address), json.loads(given)))
