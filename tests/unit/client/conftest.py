"""A gRPC server whose answers a test writes down, for what a real Gridlane does only on bad days:
breaking streams, being full, losing answers. It is a real server on loopback; only its rules are
not Gridlane's.
"""

from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

import gridlane
from gridlane.transport import Method

Answer = Callable[[Any, grpc.ServicerContext], Any]


class ScriptedServer(grpc.GenericRpcHandler):
    """Answers each method as the test says.

    Attributes:
        address: where it listens.
        metadata: of every call that came, in order.
    """

    def __init__(self) -> None:
        self._handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
        self._server = grpc.server(futures.ThreadPoolExecutor(8), handlers=[self])
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self.metadata: list[dict[str, str | bytes]] = []
        self._server.start()

    def service(self, details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[Any, Any] | None":
        self.metadata.append(dict(details.invocation_metadata or ()))
        return self._handlers.get(details.method)

    def unary(self, method: Method[Any, Any], answer: Answer) -> None:
        self._add(method, grpc.unary_unary_rpc_method_handler, answer)

    def stream(self, method: Method[Any, Any], answer: Answer) -> None:
        self._add(method, grpc.unary_stream_rpc_method_handler, answer)

    def upload(self, method: Method[Any, Any], answer: Answer) -> None:
        self._add(method, grpc.stream_unary_rpc_method_handler, answer)

    def _add(self, method: Method[Any, Any], kind: Any, answer: Answer) -> None:
        self._handlers[f"/{method.full_name}"] = kind(
            answer,
            request_deserializer=method.request.FromString,
            response_serializer=method.response.SerializeToString,
        )

    def close(self) -> None:
        self._server.stop(None).wait()


def refuse(
    context: grpc.ServicerContext,
    code: grpc.StatusCode,
    message: str = "refused",
    *,
    reason: str = "",
    metadata: dict[str, str] | None = None,
    retry_after_s: float | None = None,
    more: tuple[Message, ...] = (),
) -> None:
    """Ends a call with a rich status, as Gridlane's servers do."""
    details: list[Message] = list(more)
    if reason:
        info = error_details_pb2.ErrorInfo(
            reason=reason, domain="gridlane", metadata=metadata or {}
        )
        details.append(info)
    if retry_after_s is not None:
        delay = duration_pb2.Duration()
        delay.FromMicroseconds(round(retry_after_s * 1e6))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    status = status_pb2.Status(code=code.value[0], message=message)
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(code, message)


@pytest.fixture
def scripted() -> Iterator[ScriptedServer]:
    """The server; its answers are added by the test."""
    server = ScriptedServer()
    yield server
    server.close()


@pytest.fixture
def client(scripted: ScriptedServer) -> Iterator[gridlane.Client]:
    """A client of that server, which repeats quickly."""
    retry = gridlane.RetryPolicy(first_delay_s=0.001, longest_delay_s=0.002)
    with gridlane.Client(scripted.address, token="t0ken", retry=retry) as client:
        yield client


@pytest.fixture(name="refuse")
def refuse_function() -> Callable[..., None]:
    """`refuse`, for tests, which cannot import from here."""
    return refuse
