"""A server process for the tests of starting, stopping and dumping: the sample service, served.

Usage: served_process.py SAMPLE_FILE READY_FILE NOTES_FILE LAG_S. Writes what its room is asked to
NOTES_FILE.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from gridlane.type.v1 import options_pb2
from gridlane_kit import logs
from gridlane_kit.admission import Admission
from gridlane_kit.metrics import Metrics
from gridlane_kit.policy import Policy, PolicyHolder
from gridlane_kit.registration import Pipeline
from gridlane_kit.server import ReadyInfo, Server, run
from gridlane_kit.settings import ServerSettings
from gridlane_kit.telemetry import Telemetry
from gridlane_kit.tokens import StaticKeys, TokenSigner, TokenVerifier, new_key

SAMPLE, READY, NOTES = (Path(argument) for argument in sys.argv[1:4])
LAG_S = float(sys.argv[4])
SERVICE = "gridlane.transfer.sample.v1.SampleService"
ISSUER = "https://issuer.test/"


def note(text: str) -> None:
    with NOTES.open("a") as file:
        file.write(text + "\n")


class Things:
    def __init__(self) -> None:
        pool = descriptor_pool.Default()
        message = pool.FindMessageTypeByName("gridlane.transfer.sample.v1.Thing")
        self._thing = message_factory.GetMessageClass(message)

    async def GetThing(self, request: Any, call: Any) -> Any:
        note("called")
        if request.name == "things/slow":
            await asyncio.sleep(1.0)
        if request.name == "things/hangs":
            await a_place_that_hangs()
        note("answered")
        return self._thing(name=request.name)

    async def WatchThings(self, request: Any, call: Any) -> AsyncIterator[Any]:
        yield self._thing(name=request.name)
        await asyncio.sleep(600)


async def a_place_that_hangs() -> None:
    await asyncio.sleep(600)


class Room:
    name = "sample"

    async def start(self) -> None:
        note("start")

    def handlers(self) -> Sequence[tuple[str, object]]:
        return [(SERVICE, Things())]

    async def drain(self) -> None:
        note("drain")

    async def stop(self) -> None:
        note("stop")


async def main() -> int:
    assert options_pb2.DESCRIPTOR.name
    file = descriptor_pb2.FileDescriptorProto.FromString(SAMPLE.read_bytes())
    descriptor_pool.Default().AddSerializedFile(file.SerializeToString())
    signer = TokenSigner(new_key(), ISSUER, "https://gridlane.test")
    token_file = READY.with_name("token")
    token_file.write_text(signer.sign_user("ada", lifetime_s=600, vos=["local"]))
    keys = StaticKeys(signer.jwks())
    pipeline = Pipeline(
        verifier=TokenVerifier({ISSUER: keys}, "https://gridlane.test"),
        policy=PolicyHolder(Policy(1)),
        telemetry=Telemetry("sample"),
        metrics=Metrics(),
        admission=Admission(),
    )
    settings = ServerSettings.load(
        "server",
        port=0,
        health_port=0,
        metrics_port=0,
        ready_file=READY,
        endpoint_lag_s=LAG_S,
        grace_s=5,
    )
    server = Server(settings, [Room()], pipeline, ReadyInfo(READY.parent, token_file))
    await server.start()
    server.stop_on_signals()
    await server.wait()
    await server.stop()
    note("exit")
    return 0


if __name__ == "__main__":
    logs.configure(json=True)
    sys.exit(run(main))
