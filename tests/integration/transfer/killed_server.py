"""A server with Transfer's room, as a process of its own that a test can kill or pause.

Arguments: the root directory, the PEM of the key that signs tokens, the database's URL, the file
that gets the address, and settings of Transfer as JSON.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from gridlane_kit import logs
from gridlane_kit.admission import Admission
from gridlane_kit.metrics import Metrics
from gridlane_kit.policy import Binding, Policy, PolicyHolder, Role
from gridlane_kit.registration import Pipeline
from gridlane_kit.server import Server
from gridlane_kit.settings import ServerSettings
from gridlane_kit.sqlite import sqlite_file
from gridlane_kit.telemetry import Telemetry
from gridlane_kit.tokens import StaticKeys, TokenSigner, TokenVerifier, load_key
from gridlane_transfer.room import TransferRoom
from gridlane_transfer.settings import TransferSettings, embedded_storage_elements

ISSUER = "https://issuer.test/"
AUDIENCE = "https://gridlane.test"


async def main(root: Path, key: bytes, url: str, address: Path, given: dict[str, Any]) -> None:
    logs.configure(json=False, level="WARNING")
    signer = TokenSigner(load_key(key), ISSUER, AUDIENCE)
    policy = PolicyHolder(
        Policy(1, [Binding(ISSUER, "sue", Role.SUBMITTER, "local")], vos=["local"])
    )
    elements = embedded_storage_elements(root / "storage", root / "jobs")
    settings = TransferSettings(**{"storage_elements": elements, **given})
    telemetry = Telemetry("test")
    room = TransferRoom(
        settings,
        database_url=url,
        telemetry=telemetry,
        policy=policy,
        exclusive=sqlite_file(url) is not None,
    )
    pipeline = Pipeline(
        verifier=TokenVerifier({ISSUER: StaticKeys(signer.jwks())}, AUDIENCE),
        policy=policy,
        telemetry=telemetry,
        metrics=Metrics(),
        admission=Admission(),
    )
    server = Server(ServerSettings(port=0, health_port=0), [room], pipeline)
    await server.start()
    temporary = address.with_suffix(".new")
    temporary.write_text(server.address)
    temporary.rename(address)
    await server.wait()


if __name__ == "__main__":
    root, key, url, address, given = sys.argv[1:]
    asyncio.run(main(Path(root), Path(key).read_bytes(), url, Path(address), json.loads(given)))
