"""Every method that a running Gridlane serves, as its own reflection tells, and calls of them.

Responsible for finding the methods, for sending requests to any of them with anybody's token, and
for what came back: the answer's messages, or the refusal with all of its parts. Knows no method by
name, and nothing of who may do what.
"""

import importlib
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Self

import grpc
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from split import SERVICES
from support import Deployment, bearer

import gridlane

ANSWER_S: Final = 40.0
HEALTH: Final = "grpc.health.v1.Health"
OTLP: Final = "opentelemetry.proto.collector.trace.v1.TraceService"
DETAILS: Final = "grpc-status-details-bin"


@dataclass(frozen=True)
class Answer:
    """How a call ended. `reason` is the ErrorInfo's, or "OK"; of a stream the first message."""

    code: str
    reason: str
    messages: Sequence[Message] = ()
    text: str = ""
    status: status_pb2.Status | None = None
    trailing: Sequence[tuple[str, str | bytes]] = ()
    seconds: float = 0.0

    @property
    def short(self) -> tuple[str, str]:
        return self.code, self.reason

    @property
    def message(self) -> Any:
        """The only message of a unary answer."""
        (found,) = self.messages
        return found

    @classmethod
    def refused(cls, error: Any, seconds: float) -> Self:
        """Reads an RpcError."""
        trailing = [(key, value) for key, value in error.trailing_metadata() or ()]
        raw = dict(trailing).get(DETAILS)
        status = None if raw is None else status_pb2.Status.FromString(raw)
        reason = "" if status is None else reason_of(status)
        return cls(
            error.code().name,
            reason,
            text=error.details() or "",
            status=status,
            trailing=trailing,
            seconds=seconds,
        )


def reason_of(status: status_pb2.Status) -> str:
    """The reason of Gridlane's ErrorInfo; empty without one."""
    info = error_details_pb2.ErrorInfo()
    found = [info.reason for detail in status.details if detail.Unpack(info)]
    return found[0] if found else ""


class Wire:
    """Calls to all services of a deployment, which several threads may make at once."""

    def __init__(self, server: Deployment) -> None:
        self._server = server
        self._open = ExitStack()
        self._calls: dict[str, Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    @cached_property
    def methods(self) -> Mapping[str, MethodDescriptor]:
        """Everything that is served, by the name of `permission_cells.txt`: "JobService/GetJob"."""
        know_the_contracts()
        pool = descriptor_pool.Default()
        names = {HEALTH, *self._reflected()}
        services = [pool.FindServiceByName(name) for name in sorted(names)]
        return {short_name(method): method for service in services for method in service.methods}

    def request(self, method: str, **fields: Any) -> Any:
        """A request of a method."""
        kind = message_factory.GetMessageClass(self.methods[method].input_type)
        return kind(**fields)

    def call(
        self, method: str, token: str, *requests: Message, timeout_s: float = ANSWER_S
    ) -> Answer:
        """Calls a method: several requests are a client's stream; with no token, without one."""
        described = self.methods[method]
        metadata = bearer(token) if token else ()
        sent = iter(requests) if described.client_streaming else requests[0]
        begun = time.perf_counter()
        try:
            answer = self._method(described)(sent, metadata=metadata, timeout=timeout_s)
            if not isinstance(answer, Iterator):
                return Answer("OK", "OK", [answer], seconds=time.perf_counter() - begun)
            first = next(answer, None)
            answer.cancel()  # type: ignore[attr-defined]
            return Answer("OK", "OK", [] if first is None else [first])
        except grpc.RpcError as error:
            return Answer.refused(error, time.perf_counter() - begun)

    def _method(self, described: MethodDescriptor) -> Any:
        service = described.containing_service.full_name
        path = f"/{service}/{described.name}"
        if path not in self._calls:
            form = {
                (False, False): "unary_unary",
                (False, True): "unary_stream",
                (True, False): "stream_unary",
                (True, True): "stream_stream",
            }[described.client_streaming, described.server_streaming]
            answer = message_factory.GetMessageClass(described.output_type)
            channel = self._health if service == HEALTH else self._channel(service)
            self._calls[path] = getattr(channel, form)(
                path, lambda request: request.SerializeToString(), answer.FromString
            )
        return self._calls[path]

    def _channel(self, service: str) -> grpc.Channel:
        if service.startswith("grpc.reflection."):
            return self._server.channel_to("gateway")
        return self._server.channel

    @cached_property
    def _health(self) -> grpc.Channel:
        address = self._server.part("gateway").health_address
        return self._open.enter_context(grpc.insecure_channel(address))

    def _reflected(self) -> Iterator[str]:
        for service in SERVICES:
            stub = reflection_pb2_grpc.ServerReflectionStub(self._server.channel_to(service))
            ask = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
            (answer,) = self._server.call(stub.ServerReflectionInfo, ask)
            for found in answer.list_services_response.service:
                yield found.name


def short_name(method: MethodDescriptor) -> str:
    """A method as the table calls it: Gridlane's own by the service alone."""
    service = method.containing_service
    own = service.full_name.startswith("gridlane.")
    return f"{service.name if own else service.full_name}/{method.name}"


def know_the_contracts() -> None:
    """Imports every generated module that has a service."""
    root = Path(gridlane.__file__).parent
    for file in sorted(root.rglob("*_service_pb2.py")):
        importlib.import_module(
            ".".join(("gridlane", *file.relative_to(root).with_suffix("").parts))
        )
    importlib.import_module("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
    importlib.import_module(health_pb2.__name__)
