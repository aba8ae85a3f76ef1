"""Peers that die, hang and come back, each a process of its own."""

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from google.protobuf import descriptor_pb2
from integration.kit_server.served import SignerOf, WirePeersOf
from integration.kit_server.wire_things import ADA, failure_of

from gridlane_kit import channels
from gridlane_kit.assertions import service_jwks
from gridlane_kit.call import Caller
from gridlane_kit.errors import GridlaneError
from gridlane_kit.peers import EDGES, reading
from gridlane_kit.telemetry import Telemetry

PROGRAM = Path(__file__).with_name("peer_process.py")
SAMPLE = "gridlane.transfer.sample.v1.SampleService"
START_S = 30
REQUEST_ID = "01930000-0000-7000-8000-000000000000"


@pytest.fixture(autouse=True)
async def _limit() -> AsyncIterator[None]:
    async with asyncio.timeout(90):
        yield


class PeerProcess:
    """One replica of the peer, on a port that it keeps."""

    def __init__(self, folder: Path, sample: Path, keys: Path, port: int) -> None:
        self.address = f"127.0.0.1:{port}"
        self._ready = folder / f"ready-{port}.json"
        arguments = (sample, keys, str(port), self._ready)
        self._command: list[str | Path] = [sys.executable, PROGRAM, *arguments]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def launch(self) -> None:
        self._ready.unlink(missing_ok=True)
        self._process = subprocess.Popen(self._command, stderr=subprocess.DEVNULL)

    async def start(self) -> None:
        self.launch()
        while not self._ready.exists():
            await asyncio.sleep(0.02)

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    async def end(self, number: signal.Signals = signal.SIGKILL) -> None:
        if self._process is not None and self._process.poll() is None:
            self.send(number)
            await asyncio.to_thread(self._process.wait, START_S)

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(START_S)


Replica = Callable[[], PeerProcess]


@pytest.fixture
def replica(
    tmp_path: Path,
    sample_file: descriptor_pb2.FileDescriptorProto,
    messages: SimpleNamespace,
    signer_of: SignerOf,
    unused_tcp_port_factory: Callable[[], int],
) -> Iterator[Replica]:
    """Makes replicas of the peer; all are gone when the test is."""
    sample, keys = tmp_path / "sample.binpb", tmp_path / "service_keys.json"
    sample.write_bytes(sample_file.SerializeToString())
    keys.write_text(json.dumps(service_jwks({s: signer_of(s)._key for s in EDGES})))
    made: list[PeerProcess] = []

    def make() -> PeerProcess:
        made.append(PeerProcess(tmp_path, sample, keys, unused_tcp_port_factory()))
        return made[-1]

    yield make
    for process in made:
        process.close()


def caller(timeout_s: float | None = 20) -> Caller:
    deadline = None if timeout_s is None else asyncio.get_running_loop().time() + timeout_s
    return Caller(ADA, deadline, Telemetry("workload").root())


async def test_calls_outlive_a_restart_of_the_peer(
    replica: Replica, wire_peers: WirePeersOf, messages: SimpleNamespace
) -> None:
    peer = replica()
    await peer.start()
    stub = wire_peers(peer.address).stubs(SAMPLE)(caller())
    request = messages.GetThingRequest(name="things/a")
    creation = messages.CreateThingRequest(thing=messages.Thing(name="a"), request_id=REQUEST_ID)
    assert (await stub.GetThing(request)).name == str(peer.pid)
    await peer.end()
    calls = [
        asyncio.ensure_future(call) for call in (stub.GetThing(request), stub.CreateThing(creation))
    ]
    once = messages.CreateThingRequest(thing=messages.Thing(name="a"))
    assert (await failure_of(stub.CreateThing(once))).reason == "PEER_UNAVAILABLE"
    await peer.start()
    assert [answer.name for answer in await asyncio.gather(*calls)] == [str(peer.pid)] * 2


async def test_calls_under_way_outlive_a_peer_that_is_killed(
    replica: Replica, wire_peers: WirePeersOf, messages: SimpleNamespace
) -> None:
    peer, other = replica(), replica()
    await asyncio.gather(peer.start(), other.start())
    both = f"ipv4:///{peer.address},{other.address}"
    stub = wire_peers(both).stubs(SAMPLE)(caller())
    slow = messages.GetThingRequest(name="things/slow")
    calls = [asyncio.ensure_future(stub.GetThing(slow)) for _ in range(4)]
    await asyncio.sleep(0.5)
    await peer.end()
    assert not any(call.done() for call in calls)
    assert {answer.name for answer in await asyncio.gather(*calls)} == {str(other.pid)}


async def test_a_stopped_process_is_a_deadline_that_passed(
    replica: Replica, wire_peers: WirePeersOf, messages: SimpleNamespace
) -> None:
    peer = replica()
    await peer.start()
    peers = wire_peers(peer.address)
    request = messages.GetThingRequest(name="things/a")
    await peers.stubs(SAMPLE)(caller()).GetThing(request)
    peer.send(signal.SIGSTOP)
    begun = time.monotonic()
    failure = await failure_of(peers.stubs(SAMPLE)(caller(0.7)).GetThing(request))
    assert failure.reason == "DEADLINE_EXCEEDED"
    assert time.monotonic() - begun < 3
    peer.send(signal.SIGCONT)
    assert (await peers.stubs(SAMPLE)(caller()).GetThing(request)).name == str(peer.pid)


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM])
async def test_a_reader_resumes_at_another_replica_where_its_stream_was_cut(
    ending: signal.Signals, replica: Replica, wire_peers: WirePeersOf, messages: SimpleNamespace
) -> None:
    replicas = [replica(), replica()]
    await asyncio.gather(*(process.start() for process in replicas))
    address = "ipv4:///" + ",".join(process.address for process in replicas)
    stub = wire_peers(address).stubs(SAMPLE)(caller(None))
    seen: list[int] = []
    served_by: list[str] = []
    cuts: list[GridlaneError] = []
    while len(seen) < 40:
        request = messages.GetThingRequest(name=f"things/from-{len(seen)}")
        try:
            async with reading(stub.WatchThings(request)) as pages:
                async for thing in pages:
                    seen.append(thing.count)
                    served_by.append(thing.name)
                    if len(seen) == 20 and not cuts:
                        (gone,) = (p for p in replicas if str(p.pid) == thing.name)
                        gone.send(ending)
                    if len(seen) == 40:
                        break
        except GridlaneError as cut:
            cuts.append(cut)
            await asyncio.sleep(0.05)
    assert seen == [count % 10 for count in range(40)]
    assert len(set(served_by)) == 2
    assert {cut.reason.value for cut in cuts} <= {"DRAINING", "PEER_UNAVAILABLE"}
    if ending is signal.SIGTERM:
        assert cuts[0].reason == "DRAINING"


@pytest.mark.slow
async def test_a_stream_from_a_process_that_hangs_ends_without_a_deadline(
    replica: Replica,
    wire_peers: WirePeersOf,
    messages: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sooner = {"grpc.keepalive_time_ms": 10_000, "grpc.http2.ping_timeout_ms": 1_000}
    options = tuple({**dict(channels._OPTIONS), **sooner}.items())
    monkeypatch.setattr(channels, "_OPTIONS", options)
    peer = replica()
    await peer.start()
    stub = wire_peers(peer.address).stubs(SAMPLE)(caller(None))
    async with reading(stub.WatchThings(messages.GetThingRequest(name="things/from-0"))) as pages:
        await anext(pages)
        peer.send(signal.SIGSTOP)
        begun = time.monotonic()

        async def read_all() -> None:
            async for _ in pages:
                pass

        assert (await failure_of(read_all())).reason == "PEER_UNAVAILABLE"
        assert time.monotonic() - begun < 20


async def test_a_replica_that_comes_back_is_used_again_within_seconds(
    replica: Replica, wire_peers: WirePeersOf, messages: SimpleNamespace
) -> None:
    first, second = replica(), replica()
    await asyncio.gather(first.start(), second.start())
    stub = wire_peers(f"ipv4:///{first.address},{second.address}").stubs(SAMPLE)
    request = messages.GetThingRequest(name="things/a")
    await first.end()
    for _ in range(5):
        assert (await stub(caller()).GetThing(request)).name == str(second.pid)
    await first.start()
    back = time.monotonic()
    while (await stub(caller()).GetThing(request)).name != str(first.pid):
        assert time.monotonic() - back < 8
        await asyncio.sleep(0.05)
