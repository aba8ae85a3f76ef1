"""What the pipeline itself adds to a call: deadline, admission, identity, permission, metrics,
span.

The pipeline's handler is called as gRPC calls it, with the bytes of a request and a context, and
compared with a handler that only parses, answers and encodes. The method has no validation rules,
and no line is logged for a call that went well: neither is counted. The token has been verified
before, as in all rows.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, cast

from grpc import aio

from benchmarks.identity import Identity
from benchmarks.row import Bound, Measured, Row, Target
from benchmarks.run import Run
from gridlane.type.v1 import status_pb2
from gridlane.workload.v1 import job_service_pb2
from gridlane_kit.admission import Admission
from gridlane_kit.call import Call
from gridlane_kit.metrics import Metrics
from gridlane_kit.policy import PolicyHolder
from gridlane_kit.registration import Pipeline
from gridlane_kit.telemetry import FinishedSpan, Telemetry

_SERVICE: Final = "gridlane.workload.v1.JobService"
_CALLS: Final = 5_000
_TRACEPARENT: Final = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-{flags}"

_Handler = Callable[[bytes, Any], Awaitable[bytes | None]]


class _Jobs:
    async def GetWorkloadStatus(  # noqa: N802 - the contract's name
        self, _request: job_service_pb2.GetWorkloadStatusRequest, _call: Call
    ) -> status_pb2.ServiceStatus:
        return _ANSWER


_ANSWER: Final = status_pb2.ServiceStatus()


class _Registrar:
    """Keeps the handlers instead of serving them."""

    def __init__(self) -> None:
        self.handlers: dict[str, Any] = {}

    def add_registered_method_handlers(self, _name: str, method_handlers: dict[str, Any]) -> None:
        self.handlers.update(method_handlers)


class _Context:
    """What the pipeline asks of gRPC's context, at no cost of its own."""

    def __init__(self, metadata: tuple[tuple[str, str], ...]) -> None:
        self._metadata = metadata

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return self._metadata

    def peer(self) -> str:
        return "ipv4:127.0.0.1:50051"

    def time_remaining(self) -> float:
        return 30.0

    def set_trailing_metadata(self, _metadata: object) -> None: ...

    def set_code(self, code: object) -> None:
        raise AssertionError(f"the pipeline refused the call: {code}")

    def set_details(self, details: str) -> None: ...


async def _measure(run: Run, *, sampled: bool) -> Measured:
    spans: list[FinishedSpan] = []
    identity = Identity()
    pipeline = Pipeline(
        verifier=identity.verifier,
        policy=PolicyHolder(identity.policy),
        telemetry=Telemetry("benchmarks", ratio=0.0, sinks=[spans.append]),
        metrics=Metrics(),
        admission=Admission(),
    )
    registrar = _Registrar()
    pipeline.register(registrar, _SERVICE, _Jobs())
    through: _Handler = registrar.handlers["GetWorkloadStatus"].unary_unary
    context = _context(identity.token, sampled=sampled)
    pairs: list[tuple[float, float]] = []
    end = time.process_time() + run.effort.seconds * run.effort.rounds
    while time.process_time() < end or not pairs:
        pairs.append((await _cost(_bare, context), await _cost(through, context)))
        assert len(spans) == (_CALLS if sampled else 0), "not sampled as asked"
        spans.clear()
    return Measured.of(
        [whole - bare for bare, whole in pairs],
        bare_us=Measured.of([bare for bare, _ in pairs]).value,
        whole_us=Measured.of([whole for _, whole in pairs]).value,
    )


def _context(token: str, *, sampled: bool) -> "aio.ServicerContext[bytes, bytes]":
    traceparent = _TRACEPARENT.format(flags="01" if sampled else "00")
    metadata = (
        ("user-agent", "grpc-python-asyncio/1.85.1 grpc-c/55.0.0 (linux; chttp2)"),
        ("authorization", f"Bearer {token}"),
        ("traceparent", traceparent),
    )
    return cast("aio.ServicerContext[bytes, bytes]", _Context(metadata))


async def _bare(request: bytes, _context: object) -> bytes:
    job_service_pb2.GetWorkloadStatusRequest.FromString(request)
    return _ANSWER.SerializeToString()


async def _cost(handler: _Handler, context: object) -> float:
    """Returns the processor time of one call in µs, in a task of its own as gRPC has it."""

    async def calls() -> float:
        begun = time.process_time()
        for _ in range(_CALLS):
            await handler(b"", context)
        return (time.process_time() - begun) / _CALLS * 1e6

    return await asyncio.create_task(calls())


def _row(name: str, title: str, limit: float, *, sampled: bool) -> Row:
    return Row(
        name=name,
        title=title,
        unit="µs",
        measure=partial(_measure, sampled=sampled),
        target=Target(Bound.AT_MOST, limit, "µs"),
        conditions="CPU above parsing and encoding, in process, no validation, no log line",
    )


ROWS = (
    _row("interceptor", "Interceptor's own time, unsampled", 12.0, sampled=False),
    _row("interceptor-sampled", "Interceptor's own time, sampled", 40.0, sampled=True),
)
