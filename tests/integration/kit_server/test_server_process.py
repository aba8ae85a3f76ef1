"""A server process: ready file, health on its own port, signals, stacks, the order of a stop."""

import asyncio
import json
import signal
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
import raw_calls
from grpc import aio
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_reflection.v1alpha import reflection_pb2
from integration.kit_server.served import FailureOf

SAMPLE = "gridlane.transfer.sample.v1.SampleService"
WATCH = f"/{SAMPLE}/WatchThings"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
SERVING = HealthCheckResponse.SERVING
NOT_SERVING = HealthCheckResponse.NOT_SERVING


@dataclass
class Process:
    """A running server process and channels to it."""

    process: asyncio.subprocess.Process
    ready: dict[str, Any]
    ready_file: Path
    notes_file: Path
    calls: aio.Channel
    health: aio.Channel

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        token = Path(self.ready["token_file"]).read_text()
        return (("authorization", f"Bearer {token}"),)

    def notes(self) -> list[str]:
        return self.notes_file.read_text().split()

    async def noted(self, text: str) -> None:
        async with asyncio.timeout(10):
            while text not in self.notes():
                await asyncio.sleep(0.01)

    def get(self, name: str, messages: Any) -> Any:
        request = messages.GetThingRequest(name=name).SerializeToString()
        call = raw_calls.unary(self.calls, f"/{SAMPLE}/GetThing")
        return asyncio.ensure_future(collect(call(request, metadata=self.headers, timeout=20)))

    async def check(self, service: str = "", metadata: Any = None) -> int:
        call = raw_calls.unary(self.health, "/grpc.health.v1.Health/Check")
        request = HealthCheckRequest(service=service).SerializeToString()
        answer = await call(request, timeout=5, metadata=metadata)
        return HealthCheckResponse.FromString(answer).status

    async def ended(self, within_s: float = 15) -> tuple[int, str]:
        async with asyncio.timeout(within_s):
            _, stderr = await self.process.communicate()
        return self.process.returncode or 0, stderr.decode()


async def collect(call: Any) -> Any:
    return await call


async def end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
    await process.communicate()


Start = Callable[..., Awaitable[Process]]


@pytest.fixture
async def start(
    sample_file: Any, messages: SimpleNamespace, tmp_path: Path
) -> AsyncIterator[Start]:
    async with AsyncExitStack() as stack:

        async def start(lag_s: float = 0.0) -> Process:
            sample, ready, notes = (tmp_path / n for n in ("sample.binpb", "ready", "notes"))
            sample.write_bytes(sample_file.SerializeToString())
            program = Path(__file__).with_name("served_process.py")
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *(str(a) for a in (program, sample, ready, notes, lag_s)),
                stderr=subprocess.PIPE,
            )
            stack.push_async_callback(end, process)
            async with asyncio.timeout(30):
                while not ready.exists():
                    assert process.returncode is None, (await process.communicate())[1].decode()
                    await asyncio.sleep(0.02)
            facts = json.loads(ready.read_text())
            calls = aio.insecure_channel(facts["address"])
            health = aio.insecure_channel(facts["health_address"])
            stack.push_async_callback(calls.close)
            stack.push_async_callback(health.close)
            return Process(process, facts, ready, notes, calls, health)

        yield start


async def test_the_ready_file_says_where_and_who_and_is_gone_after_the_stop(
    start: Start, tmp_path: Path
) -> None:
    server = await start()
    assert server.ready["pid"] == server.process.pid
    assert server.ready["data_dir"] == str(tmp_path)
    assert not list(server.ready_file.parent.glob("*.tmp"))
    assert server.ready["address"] != server.ready["health_address"]
    server.process.send_signal(signal.SIGTERM)
    assert (await server.ended())[0] == 0
    assert not server.ready_file.exists()
    assert server.notes() == ["start", "drain", "stop", "exit"]


async def test_health_is_told_without_a_token_by_server_and_by_service(start: Start) -> None:
    server = await start()
    assert await server.check() == SERVING
    assert await server.check(SAMPLE) == SERVING
    with pytest.raises(aio.AioRpcError) as caught:
        await server.check("no.such.Service")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    with pytest.raises(aio.AioRpcError) as caught:
        await raw_calls.unary(server.health, "/grpc.health.v1.Health/Check")(b"\xff\xff", timeout=5)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    with pytest.raises(aio.AioRpcError) as caught:
        await raw_calls.unary(server.health, "/grpc.health.v1.Health/List")(b"", timeout=5)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_stop_says_not_serving_first_and_goes_on_serving_for_the_lag(
    start: Start, messages: SimpleNamespace
) -> None:
    server = await start(lag_s=1.5)
    watch = raw_calls.unary_stream(server.health, "/grpc.health.v1.Health/Watch")(
        HealthCheckRequest().SerializeToString(), timeout=20
    )
    assert HealthCheckResponse.FromString(await raw_calls.read(watch)).status == SERVING
    server.process.send_signal(signal.SIGTERM)
    assert HealthCheckResponse.FromString(await raw_calls.read(watch)).status == NOT_SERVING
    await server.get("things/a", messages)
    assert await server.check(SAMPLE) == NOT_SERVING
    assert (await server.ended())[0] == 0


async def test_a_stop_ends_streams_lets_calls_finish_and_then_drains_the_rooms(
    start: Start, messages: SimpleNamespace, failure: FailureOf
) -> None:
    server = await start()
    request = messages.GetThingRequest(name="things/a").SerializeToString()
    stream = raw_calls.unary_stream(server.calls, WATCH)(
        request, metadata=server.headers, timeout=20
    )
    await stream.read()
    slow = server.get("things/slow", messages)
    await server.noted("called")
    server.process.send_signal(signal.SIGINT)
    with pytest.raises(aio.AioRpcError) as caught:
        await stream.read()
    assert failure(caught.value).reason == "DRAINING"
    assert messages.Thing.FromString(await slow).name == "things/slow"
    assert (await server.ended())[0] == 0
    assert server.notes() == ["start", "called", "answered", "drain", "stop", "exit"]


async def test_a_second_signal_ends_the_process_at_once(
    start: Start, messages: SimpleNamespace
) -> None:
    server = await start()
    hanging = server.get("things/hangs", messages)
    await server.noted("called")
    server.process.send_signal(signal.SIGTERM)
    await asyncio.sleep(0.3)
    assert server.process.returncode is None
    server.process.send_signal(signal.SIGTERM)
    assert (await server.ended(within_s=3))[0] == 128 + signal.SIGTERM
    with pytest.raises(aio.AioRpcError):
        await hanging


async def test_sigusr1_dumps_threads_and_tasks_and_the_server_goes_on(
    start: Start, messages: SimpleNamespace
) -> None:
    server = await start()
    hanging = server.get("things/hangs", messages)
    await server.noted("called")
    request = messages.GetThingRequest(name="things/a").SerializeToString()
    stream = raw_calls.unary_stream(server.calls, WATCH)(request, metadata=server.headers)
    await stream.read()
    for _ in range(2):
        server.process.send_signal(signal.SIGUSR1)
        await asyncio.sleep(0.2)
    await server.get("things/a", messages)
    hanging.cancel()
    stream.cancel()
    server.process.send_signal(signal.SIGTERM)
    code, stderr = await server.ended()
    assert code == 0
    assert stderr.count("Current thread") == 2, "threads, from C code"
    assert "a_place_that_hangs" in stderr
    assert "Things.WatchThings" in stderr
    assert stderr.count(" tasks\n") == 2


async def test_reflection_lists_the_services_to_those_who_are_known(
    start: Start, messages: SimpleNamespace, failure: FailureOf
) -> None:
    server = await start()
    call = raw_calls.stream_stream(server.calls, REFLECTION)
    request = reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString()
    stream = call(iter([request]), metadata=server.headers, timeout=5)
    answer = reflection_pb2.ServerReflectionResponse.FromString(await raw_calls.read(stream))
    assert SAMPLE in {s.name for s in answer.list_services_response.service}
    with pytest.raises(aio.AioRpcError) as caught:
        await call(iter([request]), timeout=5).read()
    assert failure(caught.value).reason == "TOKEN_MISSING"


async def test_a_caller_refused_while_it_sends_sees_why(start: Start, failure: FailureOf) -> None:
    """An answer that overtakes the sending reads, at a gRPC asyncio client, as INTERNAL."""
    server = await start()
    call = raw_calls.stream_stream(server.calls, REFLECTION)
    request = reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString()

    async def refused(messages_sent: int) -> str:
        with pytest.raises(aio.AioRpcError) as caught:
            await call(iter([request] * messages_sent), timeout=10).read()
        return str(failure(caught.value).reason)

    for _ in range(10):
        seen = await asyncio.gather(*(refused(1 + number % 3) for number in range(50)))
        assert set(seen) == {"TOKEN_MISSING"}


async def test_metrics_are_exposed_by_name(start: Start, messages: SimpleNamespace) -> None:
    server = await start()
    await server.get("things/a", messages)
    url = f"http://127.0.0.1:{server.ready['metrics_port']}/metrics"

    def scrape() -> str:
        with urllib.request.urlopen(url, timeout=5) as answer:
            text: bytes = answer.read()
            return text.decode()

    text = await asyncio.to_thread(scrape)
    method = f'method="{SAMPLE}/GetThing"'
    assert f'gridlane_calls_total{{code="OK",{method}}} 1.0' in text
    assert f'gridlane_call_seconds_bucket{{le="+Inf",{method}}} 1.0' in text
    assert 'gridlane_admission_in_flight{class="unary"} 0.0' in text
    assert 'gridlane_event_loop_lag_seconds{of="server"}' in text
