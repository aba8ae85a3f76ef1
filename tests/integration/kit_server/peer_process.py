"""A peer in a process of its own, for the tests of what happens when it dies, hangs or comes back.

Usage: peer_process.py SAMPLE_FILE KEYS_FILE PORT READY_FILE. Serves the sample as "transfer" would,
to whoever asserts ada; every answer names the process.
"""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from gridlane.type.v1 import options_pb2
from gridlane_kit import logs
from gridlane_kit.admission import Admission
from gridlane_kit.assertions import AssertionVerifier
from gridlane_kit.metrics import Metrics
from gridlane_kit.policy import Binding, Policy, PolicyHolder, Role
from gridlane_kit.registration import Pipeline
from gridlane_kit.server import Server, run
from gridlane_kit.settings import ServerSettings
from gridlane_kit.telemetry import Telemetry
from gridlane_kit.tokens import StaticKeys, TokenVerifier

SAMPLE, KEYS = Path(sys.argv[1]).read_bytes(), json.loads(Path(sys.argv[2]).read_text())
PORT, READY = int(sys.argv[3]), Path(sys.argv[4])
SERVICE = "gridlane.transfer.sample.v1.SampleService"


class Things:
    def __init__(self) -> None:
        pool = descriptor_pool.Default()
        self._thing = message_factory.GetMessageClass(
            pool.FindMessageTypeByName("gridlane.transfer.sample.v1.Thing")
        )

    async def GetThing(self, request: Any, call: Any) -> Any:
        if request.name == "things/slow":
            await asyncio.sleep(1.0)
        return self._thing(name=str(os.getpid()))

    async def CreateThing(self, request: Any, call: Any) -> Any:
        return self._thing(name=str(os.getpid()))

    async def WatchThings(self, request: Any, call: Any) -> AsyncIterator[Any]:
        """Counts from the number in the name, and never ends."""
        count = int(request.name.rpartition("-")[2])
        while True:
            call.resume_token = str(count)
            yield self._thing(name=str(os.getpid()), count=count % 10)
            count += 1
            await asyncio.sleep(0.02)


class Room:
    name = "sample"

    async def start(self) -> None:
        """Nothing to open."""

    def handlers(self) -> Sequence[tuple[str, object]]:
        return [(SERVICE, Things())]

    async def drain(self) -> None:
        """Nothing is queued."""

    async def stop(self) -> None:
        """Nothing to give back."""


async def main() -> int:
    assert options_pb2.DESCRIPTOR.name
    file = descriptor_pb2.FileDescriptorProto.FromString(SAMPLE)
    descriptor_pool.Default().AddSerializedFile(file.SerializeToString())
    issuer = "https://issuer.test/"
    pipeline = Pipeline(
        verifier=TokenVerifier({issuer: StaticKeys(KEYS)}, "https://gridlane.test"),
        assertions=AssertionVerifier("transfer", KEYS),
        policy=PolicyHolder(Policy(1, [Binding(issuer, "ada", Role.SUBMITTER, vo="local")])),
        telemetry=Telemetry("transfer"),
        metrics=Metrics(),
        admission=Admission(),
    )
    settings = ServerSettings.load(
        "server", port=PORT, health_port=0, ready_file=READY, grace_s=0.5
    )
    server = Server(settings, [Room()], pipeline)
    await server.start()
    server.stop_on_signals()
    await server.wait()
    await server.stop()
    return 0


if __name__ == "__main__":
    logs.configure(json=True)
    sys.exit(run(main))
