"""Hostile messages to every method that the server serves, with a good token, a bad one and none.

Whatever comes, the answer is a documented one: never UNKNOWN or INTERNAL, with a reason of the
enum, without a word about the server's inside; and the server is well afterwards.
"""

import asyncio
import base64
import importlib
import json
import random
import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc
import psutil
import pytest
from faults.hostility import Hostility, Known
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from support import EmbeddedServer, bearer
from workers import Told

import gridlane
from gridlane.authorization.v1.signing_key_service_pb2 import RotateSigningKeyRequest
from gridlane.gateway.v1 import task_service_pb2, task_service_pb2_grpc
from gridlane.transfer.v1 import (
    storage_service_pb2,
    storage_service_pb2_grpc,
    transfer_job_pb2,
    transfer_service_pb2,
    transfer_service_pb2_grpc,
)
from gridlane.type.v1 import error_reason_pb2
from gridlane.workload.v1 import job_pb2
from gridlane_authorization.settings import AuthorizationSettings
from gridlane_authorization.tokens import open_signer

SEED: Final = "gridlane"
ROUNDS: Final = 5
"""Of some ten messages each, a method and a caller."""
TOGETHER: Final = 8
OPEN_S: Final = 0.1
"""How long a stream that has begun to answer, and stays open, is listened to."""
ANSWER_S: Final = 20.0
ENOUGH: Final = 20
"""Messages of one stream: what more there is tells nothing new."""
GROWTH_BYTES: Final = 200 * 1024 * 1024
"""Of a server that has answered the first of them, by which its pools are filled."""
FIRST: Final = 3000
POOLS_BYTES: Final = 400 * 1024 * 1024
HEALTH: Final = "grpc.health.v1.Health"
OTLP: Final = "opentelemetry.proto.collector.trace.v1.TraceService"
GOOD: Final = "good token"
OPEN: Final = "OPEN"
SILENT: Final = "SILENT"
NEVER: Final = {grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL}
INSIDE: Final = re.compile(
    r"Traceback|File \"|\.py\b|site-packages|sqlite|sqlalchemy|protobuf|\w+(Error|Exception)\b",
    re.IGNORECASE,
)
REASONS: Final = {
    name.removeprefix("ERROR_REASON_")
    for name, number in error_reason_pb2.ErrorReason.items()
    if number
}
pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@dataclass(frozen=True)
class Shot:
    """One call: what is sent where, and by whom."""

    method: MethodDescriptor
    kind: str
    caller: str
    requests: Sequence[bytes]
    metadata: Sequence[tuple[str, str]]

    @property
    def may_stay(self) -> bool:
        """Whether the call may be let in, and a stream of it stay open."""
        return self.caller == GOOD or self.method.containing_service.full_name == HEALTH

    def __str__(self) -> str:
        sent = b" ".join(raw[:200] for raw in self.requests)
        return f"{self.method.full_name}, {self.kind}, {self.caller}: {sent!r}"


@dataclass(frozen=True)
class Answer:
    """How a call ended: OPEN for a stream that would have gone on."""

    code: grpc.StatusCode | str
    text: str
    details: bytes | None

    @property
    def word(self) -> str:
        return self.code if isinstance(self.code, str) else self.code.name


OK: Final = Answer(grpc.StatusCode.OK, "", None)


def know_the_contracts() -> None:
    """Imports every generated module that has a service."""
    root = Path(gridlane.__file__).parent
    for file in sorted(root.rglob("*_service_pb2.py")):
        importlib.import_module(
            ".".join(("gridlane", *file.relative_to(root).with_suffix("").parts))
        )
    importlib.import_module("opentelemetry.proto.collector.trace.v1.trace_service_pb2")


def served(server: EmbeddedServer) -> list[MethodDescriptor]:
    """Every method of every service on the server's two ports."""
    stub = reflection_pb2_grpc.ServerReflectionStub(server.channel)
    ask = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    (answer,) = server.call(stub.ServerReflectionInfo, ask)
    names = [service.name for service in answer.list_services_response.service]
    know_the_contracts()
    pool = descriptor_pool.Default()
    services = [pool.FindServiceByName(name) for name in (*sorted(names), HEALTH)]
    return [method for service in services for method in service.methods]


@pytest.fixture
def known(embedded_server: EmbeddedServer) -> Known:
    """What lies on the server, so that hostile messages get past the first look-up."""
    call, channel = embedded_server.call, embedded_server.channel
    storage = storage_service_pb2_grpc.StorageServiceStub(channel)
    header = storage_service_pb2.PutContentHeader(
        file="LFN:/local/hostile/a", size_bytes=3, overwrite=True
    )
    parts = [storage_service_pb2.PutContentRequest(header=header)]
    parts.append(storage_service_pb2.PutContentRequest(chunk=b"abc"))
    url = call(storage.PutContent, iter(parts)).url
    tasks = task_service_pb2_grpc.TaskServiceStub(channel)
    description = job_pb2.JobDescription(executors=[job_pb2.Executor(command=["true"])])
    submit = task_service_pb2.SubmitTaskRequest(job=job_pb2.Job(description=description))
    task = call(tasks.SubmitTask, submit)
    file = transfer_job_pb2.FileTransfer(source=url, target="LFN:/local/hostile/b")
    transfers = transfer_service_pb2_grpc.TransferServiceStub(channel)
    job = transfer_job_pb2.TransferJob(files=[file])
    request = transfer_service_pb2.SubmitTransferJobRequest(transfer_job=job)
    transfer = call(transfers.SubmitTransferJob, request)
    return Known(
        {
            "JobService": [task.job.name],
            "TaskService": [task.name],
            "TransferService": [transfer.name],
            "StorageService": ["storageElements/local"],
            "ChannelService": ["channels/default"],
            "job": [task.job.name],
            "lfn": ["LFN:/local/hostile/a", "LFN:/local/hostile/new"],
            "lfns": ["LFN:/local/hostile/a"],
            "prefix": ["LFN:/local/"],
            "file": ["LFN:/local/hostile/a", url],
            "url": [url],
            "source": ["LFN:/local/hostile/a", url],
            "target": ["LFN:/local/hostile/c"],
            "path": ["a/b"],
            "command": ["true"],
            "value": ["00000001"],
            "vo": ["local"],
            "service": ["", "gridlane.workload.v1.JobService"],
            "filter": ['vo = "local"', ""],
            "file_containing_symbol": ["gridlane.workload.v1.JobService"],
            "odd filter": ['state = "NOPE"', "vo =", 'vo = "a" vo = "b"', "= = =", '"' * 200],
            "odd page_token": list(_tokens(task.job.name)),
            "odd resume_token": list(_tokens(task.job.name)),
        }
    )


def _tokens(job: str) -> Iterator[str]:
    """Page and resume tokens that look like the server's own."""
    form = (1, job)
    for raw in (
        "x",
        f"{'9' * 40}:{'9' * 40}",
        "00000000-0000-0000-0000-000000000000:-1",
        ":" * 300,
        "[" * 2900,
        json.dumps([*form, "\ud800", False, {}]),
        json.dumps([*form, "x", True, {"transfers/\ud800": "x"}]),
        json.dumps([*form, "", False, {"nonsense": ""}]),
        json.dumps([*form, "", 1, []]),
    ):
        yield base64.urlsafe_b64encode(raw.encode("utf-8", "surrogatepass")).decode().rstrip("=")


def known_to(known: Known, method: MethodDescriptor) -> Known:
    """The same, with the names of what the method's service has."""
    names = known.of(method.containing_service.name)
    return Known({**known.values, "name": names, "names": names, "parent": names})


def shots(server: EmbeddedServer, known: Known) -> Iterator[Shot]:
    """Everything that is sent in a run."""
    settings = AuthorizationSettings()
    signer = open_signer(server.data_dir / "keys", settings.issuer, settings.audience)
    job_token = signer.sign_job(
        settings.issuer,
        "local",
        job=known.of("job")[0],
        attempt=1,
        vos=["local"],
        lifetime_s=600,
    )
    for method in served(server):
        full = method.full_name
        hostility = Hostility(f"{SEED} {full}", known_to(known, method))
        good = job_token if method.containing_service.full_name == OTLP else server.token
        for kind, raw in hostility.messages(method, ROUNDS):
            if ends_tokens(method, raw):
                continue
            metadata = [*bearer(good), *hostility.metadata()]
            requests = [raw] if not method.client_streaming else [*hostility.stream(method), raw]
            yield Shot(method, kind, GOOD, requests, metadata)
        for kind, raw in hostility.messages(method, 1):
            if len(raw) < 100_000:
                yield Shot(method, kind, "no token", [raw], ())
                bad = (("authorization", hostility.token(server.token)),)
                yield Shot(method, kind, "bad token", [raw], bad)


def ends_tokens(method: MethodDescriptor, raw: bytes) -> bool:
    """Whether a message, taken by a method, ends the token with which all others are sent."""
    if method.name != "RotateSigningKey":
        return False
    with suppress(DecodeError):
        return bool(RotateSigningKeyRequest.FromString(raw).revoke_present)
    return False


class Range:
    """Where the shots are fired: one channel a port and form.

    Streams of requests go through the synchronous client: the other one calls it an internal error
    when a server answers before it has read them all.
    """

    def __init__(self, server: EmbeddedServer) -> None:
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        self._calls = aio.insecure_channel(server.address, options=options)
        self._health = aio.insecure_channel(server.health_address, options=options)
        self._uploads = server.channel
        self._places = asyncio.Semaphore(TOGETHER)

    async def close(self) -> None:
        await self._calls.close()
        await self._health.close()

    async def fire(self, shot: Shot) -> Answer:
        """Sends one, and waits for its end, or a while when it does not end."""
        async with self._places:
            if shot.method.client_streaming:
                return await asyncio.to_thread(self._uploaded, shot)
            call = self._call(shot)
            try:
                if shot.method.server_streaming:
                    return OK if await _listened(call) else Answer(OPEN, "", None)
                async with asyncio.timeout(ANSWER_S):
                    await call
                return OK
            except aio.AioRpcError as error:
                return _answer(error)
            except TimeoutError:
                return Answer(SILENT, "", None)
            finally:
                call.cancel()

    def _call(self, shot: Shot) -> Any:
        service, method = shot.method.containing_service.full_name, shot.method
        channel = self._health if service == HEALTH else self._calls
        form: Any = channel.unary_stream if method.server_streaming else channel.unary_unary
        return form(f"/{service}/{method.name}")(shot.requests[0], metadata=shot.metadata)

    def _uploaded(self, shot: Shot) -> Answer:
        service, method = shot.method.containing_service.full_name, shot.method
        channel = self._uploads
        form: Any = channel.stream_stream if method.server_streaming else channel.stream_unary
        call = form(f"/{service}/{method.name}")
        try:
            answer = call(iter(shot.requests), metadata=shot.metadata, timeout=ANSWER_S)
            if method.server_streaming:
                list(answer)
        except grpc.RpcError as error:
            return _answer(error)
        return OK


async def _listened(call: Any) -> bool:
    """Reads a stream: its first message, then for a while what follows; whether it ended."""
    seconds = ANSWER_S
    for _ in range(ENOUGH):
        try:
            async with asyncio.timeout(seconds):
                if await call.read() is aio.EOF:
                    return True
        except TimeoutError:
            if seconds == ANSWER_S:
                raise
            return False
        seconds = OPEN_S
    return False


def _answer(error: Any) -> Answer:
    details = next(
        (value for key, value in error.trailing_metadata() if key == "grpc-status-details-bin"),
        None,
    )
    return Answer(error.code(), error.details() or "", details)


def wrong(answer: Answer) -> str:
    """What is wrong with an answer; empty when it is as promised."""
    if answer.code in (OPEN, grpc.StatusCode.OK):
        return ""
    if answer.code == SILENT:
        return f"no answer within {ANSWER_S:g} s"
    if "metadata size" in answer.text:
        return f"more than clients take: {answer.text[:300]}"
    if answer.code in NEVER:
        return f"{answer.word}: {answer.text[:300]}"
    if answer.details is None:
        return f"{answer.word} without details: {answer.text[:300]}"
    status = status_pb2.Status.FromString(answer.details)
    info = error_details_pb2.ErrorInfo()
    if not status.details or not status.details[0].Unpack(info):
        return f"{answer.word} without ErrorInfo"
    if info.domain != "gridlane" or info.reason not in REASONS:
        return f"an undocumented reason: {info.domain} {info.reason}"
    told = f"{answer.text} {status} {info}"
    inside = INSIDE.search(told)
    return f"tells of the inside ({inside[0]}): {told[:300]}" if inside else ""


async def test_no_message_makes_a_method_answer_what_is_not_documented(
    embedded_server: EmbeddedServer, known: Known, tell: Told
) -> None:
    server = embedded_server
    process = psutil.Process(server.pid)
    written = len(server.output)
    every = list(shots(server, known))
    random.Random(SEED).shuffle(every)  # noqa: S311
    begun = time.monotonic()
    place = Range(server)
    memory = [process.memory_info().rss]
    answers: list[Answer] = []
    try:
        for volley in (every[:FIRST], every[FIRST:]):
            answers += await asyncio.gather(*(place.fire(shot) for shot in volley))
            memory.append(process.memory_info().rss)
    finally:
        await place.close()
    seconds = time.monotonic() - begun
    filled, grown = memory[1] - memory[0], memory[2] - memory[1]
    total = report(every, answers)
    tell(
        "hostile messages",
        [
            f"{total}; {seconds:.1f} s",
            f"memory grew by {filled >> 20} MiB with the first {FIRST}, then by {grown >> 20} MiB",
        ],
    )
    faults = [
        f"{shot}\n    {what}" for shot, a in zip(every, answers, strict=True) if (what := wrong(a))
    ]
    assert not faults, f"{len(faults)} of {len(every)}:\n" + "\n".join(faults[:25])
    assert "unexpected error" not in server.output[written:]
    believed = [
        f"{shot}\n    {answer}"
        for shot, answer in zip(every, answers, strict=True)
        if not shot.may_stay and answer.code is not grpc.StatusCode.UNAUTHENTICATED
    ]
    assert not believed, "\n".join(believed)
    assert filled < POOLS_BYTES
    assert grown < GROWTH_BYTES
    assert well(server)


@pytest.mark.parametrize("size", [6_000, 10_000, 60_000])
def test_headers_of_any_size_are_answered_or_refused(
    embedded_server: EmbeddedServer, size: int
) -> None:
    tasks = task_service_pb2_grpc.TaskServiceStub(embedded_server.channel)
    with pytest.raises(grpc.RpcError) as refused:
        embedded_server.call(tasks.Ping, task_service_pb2.PingRequest(), token="a" * size)
    # Beyond 8 KiB it is gRPC itself that refuses, before the call is anybody's.
    assert refused.value.code().name in ("UNAUTHENTICATED", "RESOURCE_EXHAUSTED")
    assert well(embedded_server)


def test_a_message_over_4_mib_is_refused_before_it_is_read(embedded_server: EmbeddedServer) -> None:
    raw: Any = embedded_server.channel.unary_unary("/gridlane.workload.v1.JobService/GetJob")
    with pytest.raises(grpc.RpcError) as refused:
        embedded_server.call(raw, bytes(5 * 1024 * 1024))
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert well(embedded_server)


def report(every: Sequence[Shot], answers: Sequence[Answer]) -> str:
    """Prints methods × messages × codes; returns the sum."""
    codes: dict[str, Counter[str]] = {}
    for shot, answer in zip(every, answers, strict=True):
        codes.setdefault(shot.method.full_name, Counter())[answer.word] += 1
    for name, counter in sorted(codes.items()):
        listed = ", ".join(f"{word} {count}" for word, count in counter.most_common())
        print(f"{name:<75} {counter.total():>4}  {listed}")
    total = sum(codes.values(), Counter())
    listed = ", ".join(f"{word} {count}" for word, count in total.most_common())
    return f"{len(codes)} methods, {len(every)} hostile messages: {listed}"


def well(server: EmbeddedServer) -> bool:
    """Whether the server serves and says so."""
    with grpc.insecure_channel(server.health_address) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        serving = health.Check(health_pb2.HealthCheckRequest(), timeout=ANSWER_S).status
    tasks = task_service_pb2_grpc.TaskServiceStub(server.channel)
    ping = server.call(tasks.Ping, task_service_pb2.PingRequest())
    return serving == health_pb2.HealthCheckResponse.SERVING and all(
        service.reachable and service.authenticated for service in ping.services
    )
