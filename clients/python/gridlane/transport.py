"""The two ways in which bytes go out and come in: blocking, and beneath asyncio.

Responsible for one attempt of a call over one channel: it applies a deadline, sends metadata, and
turns gRPC's errors into `GridlaneError`. It neither repeats nor resumes (`calls.py`), nor knows any
resource.

The blocking transport has the same coroutines, which never suspend; `modes.py` says why.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, cast

import grpc
from google.protobuf.message import Message

from gridlane.errors import GridlaneError, error_from_call
from gridlane.tracing import trace_id

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)
P = ParamSpec("P")
T = TypeVar("T")

Metadata = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Method(Generic[Request, Response]):
    """One RPC of the contracts.

    Attributes:
        service: the service's full name, "gridlane.workload.v1.JobService".
        name: the method's name, "GetJob".
        request: the class of its requests.
        response: the class of its responses.
    """

    service: str
    name: str
    request: type[Request]
    response: type[Response]

    @property
    def full_name(self) -> str:
        """As errors name it."""
        return f"{self.service}/{self.name}"

    @property
    def room(self) -> str:
        """The service package that serves it: "workload"."""
        return self.service.split(".")[1]


class Transport(Protocol):
    """One attempt of a call, in one of two ways."""

    blocking: bool

    async def unary(
        self,
        method: Method[Request, Response],
        request: Request,
        timeout_s: float,
        metadata: Metadata,
    ) -> Response:
        """One request, one response."""

    def responses(
        self,
        method: Method[Request, Response],
        request: Request,
        timeout_s: float,
        metadata: Metadata,
    ) -> AsyncGenerator[Response]:
        """One request, a stream of responses; closing the generator cancels the call."""

    async def upload(
        self,
        method: Method[Request, Response],
        requests: Iterator[Request],
        timeout_s: float,
        metadata: Metadata,
    ) -> Response:
        """A stream of requests, one response."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""

    async def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function that reads or writes files, without holding up anybody else."""

    async def close(self) -> None:
        """Close the channels; calls under way end."""


def _failure(
    error: Any, method: Method[Any, Any], timeout_s: float, metadata: Metadata
) -> GridlaneError:
    """What gRPC raised, sync or aio, as ours."""
    code: grpc.StatusCode = error.code()
    message: str = error.details() or ""
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        message = f"no answer within {timeout_s:.3g} s ({message})"
    trace = next((value for key, value in metadata if key == "traceparent"), "")
    return error_from_call(
        code,
        message,
        error.trailing_metadata() or (),
        trace_id=trace_id(trace),
        method=method.full_name,
    )


class _Callables:
    """gRPC's callable of each method, made once."""

    def __init__(self, channels: Mapping[str, Any]) -> None:
        self._channels = channels
        self._made: dict[tuple[str, str], Any] = {}

    def get(self, kind: str, method: Method[Any, Any]) -> Any:
        key = (method.service, method.name)
        made = self._made.get(key)
        if made is None:
            make = getattr(self._channels[method.room], kind)
            made = self._made[key] = make(
                f"/{method.full_name}",
                request_serializer=method.request.SerializeToString,
                response_deserializer=method.response.FromString,
            )
        return made


class BlockingTransport:
    """Calls that block.

    Parameters:
        channels: a channel for each service package ("workload"); several may share one.
    """

    blocking = True

    def __init__(self, channels: Mapping[str, grpc.Channel]) -> None:
        self._channels = channels
        self._callables = _Callables(channels)

    async def unary(
        self,
        method: Method[Request, Response],
        request: Request,
        timeout_s: float,
        metadata: Metadata,
    ) -> Response:
        call = self._callables.get("unary_unary", method)
        try:
            return cast("Response", call(request, timeout=timeout_s, metadata=metadata))
        except grpc.RpcError as error:
            raise _failure(error, method, timeout_s, metadata) from error

    async def responses(
        self,
        method: Method[Request, Response],
        request: Request,
        timeout_s: float,
        metadata: Metadata,
    ) -> AsyncGenerator[Response]:
        start = self._callables.get("unary_stream", method)
        call = start(request, timeout=timeout_s, metadata=metadata)
        try:
            for response in call:
                yield response
        except grpc.RpcError as error:
            raise _failure(error, method, timeout_s, metadata) from error
        finally:
            call.cancel()

    async def upload(
        self,
        method: Method[Request, Response],
        requests: Iterator[Request],
        timeout_s: float,
        metadata: Metadata,
    ) -> Response:
        call = self._callables.get("stream_unary", method)
        try:
            return cast("Response", call(requests, timeout=timeout_s, metadata=metadata))
        except grpc.RpcError as error:
            raise _failure(error, method, timeout_s, metadata) from error

    async def sleep(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251 - this transport blocks

    async def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return function(*args, **kwargs)

    async def close(self) -> None:
        for channel in set(self._channels.values()):
            channel.close()


class AsyncioTransport:
    """Calls beneath an event loop, the one in which the channels were made.

    Parameters:
        channels: a channel for each service package ("workload"); several may share one.
    """

    blocking = False

    def __init__(self, channels: Mapping[str, grpc.aio.Channel]) -> None:
        self._channels = channels
        self._callables = _Callables(channels)

    async def unary(
        self,
        method: Method[Request, Response],
        request: Request,
        timeout_s: float,
        metadata: Metadata,
    ) -> Response:
        call = self._callables.get("unary_unary", method)
        try:
            return cast("Response", await call(request, timeout=timeout_s, metadata=metadata))
        except grpc.aio.AioRpcError as error:
            raise _failure(error, method, timeout_s, metadata) from error

    async def responses(
        self,
        method: Method[Request, Response],
        request: Request,
        timeout_s: float,
        metadata: Metadata,
    ) -> AsyncGenerator[Response]:
        start = self._callables.get("unary_stream", method)
        call = start(request, timeout=timeout_s, metadata=metadata)
        try:
            async for response in call:
                yield response
        except grpc.aio.AioRpcError as error:
            raise _failure(error, method, timeout_s, metadata) from error
        finally:
            call.cancel()

    async def upload(
        self,
        method: Method[Request, Response],
        requests: Iterator[Request],
        timeout_s: float,
        metadata: Metadata,
    ) -> Response:
        call = self._callables.get("stream_unary", method)
        try:
            answer = call(self._off_loop(requests), timeout=timeout_s, metadata=metadata)
            return cast("Response", await answer)
        except grpc.aio.AioRpcError as error:
            raise _failure(error, method, timeout_s, metadata) from error

    async def _off_loop(self, items: Iterator[T]) -> AsyncIterator[T]:
        while (item := await asyncio.to_thread(next, items, None)) is not None:
            yield item

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.to_thread(function, *args, **kwargs)

    async def close(self) -> None:
        for channel in set(self._channels.values()):
            await channel.close()
