"""Peers in other processes: what `peers` is between rooms of one process, over the wire.

Responsible for the other side of `peers.Peers`: the same accessors and stubs, the caller's deadline
less a margin, its trace, an assertion of its identity, attempts made again while a peer is away,
and failures as the `GridlaneError` that the peer raised. Not for who may call whom (`peers`), for
what is repeated (`repeats`), for connections (`channels`) nor for certificates (`tls`).
"""

import asyncio
import importlib
import logging
import pkgutil
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any, Final, cast

import grpc
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from grpc import aio

from gridlane_kit import errors
from gridlane_kit.assertions import AssertionSigner
from gridlane_kit.call import Caller
from gridlane_kit.channels import ChannelClosedError, PeerChannel
from gridlane_kit.errors import ErrorReason, GridlaneError
from gridlane_kit.peers import LocalServices, Peers, StubFactory, callee_deadline
from gridlane_kit.repeats import PATIENCE_S, pause_s, repeatable
from gridlane_kit.steps import out_of_time
from gridlane_kit.telemetry import CLIENT_KIND, AttributeValue, FinishedSpan, Telemetry
from gridlane_kit.tls import ClientTls
from gridlane_kit.wire import MAX_MESSAGE_BYTES, read_error

ATTEMPTS: Final = "gridlane.attempts"
"""Attribute of a call's span: how often it was made, when that is more than once."""
_SETTLE_S: Final = 0.05
_log = logging.getLogger(__name__)


class WirePeers(Peers):
    """The peers of one service, some of them in other processes.

    Parameters:
        service: who calls: "workload".
        addresses: for each peer in another process a gRPC target: "host:port" (by DNS, all its
            replicas in turn), "dns:///host:port", "ipv4:///10.0.0.1:50053,10.0.0.2:50053".
        signer: asserts on whose behalf the service calls.
        credentials: TLS; None for plaintext, on loopback only.
        telemetry: takes a span of each sampled call.
        local: the services of this process, which are called without a wire; `close` is not for
            them.
        default_deadline_s: deadline of unary calls whose caller has none, or a longer one.
    """

    def __init__(
        self,
        service: str,
        addresses: Mapping[str, str],
        signer: AssertionSigner,
        credentials: ClientTls | None,
        telemetry: Telemetry,
        *,
        local: LocalServices | None = None,
        default_deadline_s: float = 30.0,
    ) -> None:
        super().__init__(service, local)
        self._lines = {
            peer: Line(
                service,
                peer,
                PeerChannel(address, credentials),
                signer,
                telemetry,
                default_deadline_s,
            )
            for peer, address in addresses.items()
        }

    async def close(self, grace_s: float = 0.0) -> None:
        """Closes the channels; calls under way get `grace_s` seconds, then end PEER_UNAVAILABLE."""
        await asyncio.gather(*(line.channel.close(grace_s) for line in self._lines.values()))

    def _way_to(self, target: str, full_name: str) -> StubFactory[Any]:
        line = self._lines.get(target)
        if line is None:
            return super()._way_to(target, full_name)
        return cast("StubFactory[Any]", partial(WireStub, line, _methods(full_name)))


@dataclass(frozen=True, slots=True)
class Line:
    """What the calls of one service to one peer share."""

    service: str
    peer: str
    channel: PeerChannel
    signer: AssertionSigner
    telemetry: Telemetry
    default_deadline_s: float


@dataclass(frozen=True, slots=True)
class WireMethod:
    """One method of the contract, ready to be called.

    `name` is "package.Service/Method"; `form` gRPC's name for the way in which it streams.
    `may_repeat` says whether a request of it may be sent twice.
    """

    name: str
    form: str
    streaming: bool
    response_class: type[Message]
    may_repeat: Callable[[Any], bool]
    span_attributes: Mapping[str, AttributeValue]


class WireStub:
    """A service of another process, bound to a caller; methods are named as in the contract."""

    __slots__ = ("_caller", "_line", "_methods")

    def __init__(self, line: Line, methods: Mapping[str, WireMethod], caller: Caller) -> None:
        self._line = line
        self._methods = methods
        self._caller = caller

    def __getattr__(self, method: str) -> "Callable[[Any], WireCall]":
        found = self._methods.get(method)
        if found is None:
            raise AttributeError(f"the service of {self._line.peer} has no method {method}")
        return partial(WireCall, self._line, found, self._caller)


class WireCall:
    """One call: await it for its answer, or iterate over it where the method streams answers."""

    __slots__ = ("_caller", "_line", "_method", "_source")

    def __init__(self, line: Line, method: WireMethod, caller: Caller, source: Any) -> None:
        self._line = line
        self._method = method
        self._caller = caller
        self._source = source

    def __await__(self) -> Generator[Any, None, Message]:
        call = _Attempts(self._line, self._method, self._caller)
        upload = self._method.form == "stream_unary"
        answer = call.upload(self._source) if upload else call.unary(self._source)
        return answer.__await__()

    def __aiter__(self) -> "WireStream":
        call = _Attempts(self._line, self._method, self._caller)
        return WireStream(call, self._source, chat=self._method.form == "stream_stream")


class _Attempts:
    """One call over its attempts: its deadline, its span, and what its failures mean."""

    def __init__(self, line: Line, method: WireMethod, caller: Caller) -> None:
        self._line = line
        self._method = method
        self._principal = caller.principal
        self._trace = caller.trace.child()
        self._begun = perf_counter()
        default_s = None if method.streaming else line.default_deadline_s
        self._deadline = callee_deadline(caller, default_s)
        self._made = 0
        self._ended = False

    async def unary(self, request: Message) -> Message:
        """Calls a method with one request and one answer, again while that may help."""
        with self._span():
            raw = self.encoded(request)
            may_repeat = self._method.may_repeat(request)
            patience_ends = asyncio.get_running_loop().time() + PATIENCE_S
            away: GridlaneError | None = None
            while True:
                try:
                    with self.failing():
                        return self.decoded(await self.begin(raw))
                except GridlaneError as failure:
                    pause = self._pause_s(failure, patience_ends if may_repeat else 0.0)
                    if pause is None:
                        # Time that ran out on a peer that was away: that it is away says more.
                        late = failure.reason is ErrorReason.DEADLINE_EXCEEDED
                        raise (away if late and away is not None else failure) from None
                    away = failure
                await asyncio.sleep(pause)

    async def upload(self, requests: AsyncIterator[Message]) -> Message:
        """Calls a method with a stream of requests and one answer, once."""
        with self._span(), self.failing():
            call = self.begin()
            sending = asyncio.create_task(self._send(call, requests))
            # A message under way when the call ends would hide what it ended with.
            call.add_done_callback(lambda _ended: sending.cancel())
            try:
                return self.decoded(await call)
            except aio.AioRpcError as error:
                raise await _settled(call, error) from None
            finally:
                call.cancel()
                sending.cancel()
                await asyncio.wait([sending])
                if not sending.cancelled() and (broke := sending.exception()) is not None:
                    raise broke

    def begin(self, *source: Any) -> Any:
        """Begins an attempt; returns gRPC's call.

        Raises:
            GridlaneError: DEADLINE_EXCEEDED.
            ChannelClosedError: the process stops.
        """
        left_s = None
        if self._deadline is not None:
            left_s = self._deadline - asyncio.get_running_loop().time()
            if left_s <= 0:
                raise errors.deadline_exceeded()
        self._made += 1
        line = self._line
        start = line.channel.callable(self._method.form, f"/{self._method.name}")
        metadata = (
            ("authorization", line.signer.header(self._principal, line.peer)),
            ("traceparent", self._trace.traceparent),
        )
        return start(*source, timeout=left_s, metadata=metadata)

    def encoded(self, request: Message) -> bytes:
        """Returns the bytes of a request.

        Raises:
            GridlaneError: INVALID_FIELDS: no peer would take so many.
        """
        raw = request.SerializeToString()
        if len(raw) > MAX_MESSAGE_BYTES:
            limit = f"expected at most {MAX_MESSAGE_BYTES} bytes, not {len(raw)}"
            raise errors.invalid([(request.DESCRIPTOR.name, limit)])
        return raw

    def decoded(self, raw: bytes) -> Message:
        """Returns the message of an answer.

        Raises:
            GridlaneError: PEER_UNAVAILABLE: it is none.
        """
        self._line.channel.note(True)
        try:
            return self._method.response_class.FromString(raw)
        except DecodeError:
            _log.error("%s answered with what is no message of the contract", self._method.name)
            raise errors.peer_unavailable(self._line.peer) from None

    @contextmanager
    def failing(self) -> Iterator[None]:
        """Turns what gRPC raises into what a peer raises."""
        try:
            yield
        except aio.AioRpcError as error:
            raise self._failure(error) from None
        except (ChannelClosedError, aio.UsageError):
            raise errors.peer_unavailable(self._line.peer) from None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Nobody cancelled the task: it is the channel that was closed.
            raise errors.peer_unavailable(self._line.peer) from None

    def ended(self, code: str) -> None:
        """Passes the span on; the first end counts."""
        if self._ended or not self._trace.sampled:
            return
        self._ended = True
        attributes: dict[str, AttributeValue] = dict(self._method.span_attributes)
        attributes["rpc.grpc.status"] = code
        if self._made > 1:
            attributes[ATTEMPTS] = self._made
        end_ns = time.time_ns()
        self._line.telemetry.ended(
            FinishedSpan(
                self._trace.trace_id,
                self._trace.span_id,
                self._trace.parent_id,
                self._method.name,
                CLIENT_KIND,
                end_ns - int((perf_counter() - self._begun) * 1e9),
                end_ns,
                self._line.service,
                attributes,
                "" if code == "OK" else code,
            )
        )

    @contextmanager
    def _span(self) -> Iterator[None]:
        code = "OK"
        try:
            yield
        except BaseException as raised:
            code = code_of(raised)
            raise
        finally:
            self.ended(code)

    def _pause_s(self, failure: GridlaneError, patience_ends: float) -> float | None:
        """Returns the seconds until the next attempt, None when there is to be none."""
        if isinstance(failure, _AssertionRefusedError):
            return 0.0 if self._made == 1 else None  # nothing was done; a new one may be taken
        if failure.code is not grpc.StatusCode.UNAVAILABLE or self._line.channel.closed:
            return None
        ends = patience_ends if self._deadline is None else min(patience_ends, self._deadline)
        return pause_s(failure, self._made - 1, ends - asyncio.get_running_loop().time())

    async def _send(self, call: Any, requests: AsyncIterator[Message]) -> None:
        try:
            async for request in requests:
                raw = self.encoded(request)
                try:
                    await call.write(raw)
                except (aio.AioRpcError, asyncio.InvalidStateError):
                    return  # the call has ended: its answer says why
            await call.done_writing()
        except BaseException:
            call.cancel()
            raise

    def _failure(self, error: aio.AioRpcError) -> GridlaneError:
        """Returns what the caller is told of a call that failed; the log has the rest."""
        code, peer = error.code(), self._line.peer
        told = read_error(code, tuple(error.trailing_metadata() or ()))
        if code is grpc.StatusCode.UNAUTHENTICATED:
            _log.error("%s does not take the assertions of %s", peer, self._line.service)
            self._line.signer.forget(self._principal, peer)
            return _AssertionRefusedError(peer)
        if told is not None:
            return told
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return out_of_time()
        if code is grpc.StatusCode.UNIMPLEMENTED:
            return errors.not_implemented(self._method.name)
        self._line.channel.note(False, f"{code.name} ({error.details()})")
        return errors.peer_unavailable(peer)


class _AssertionRefusedError(GridlaneError):
    """The peer does not believe this service; to the caller it is a peer that does not answer."""

    def __init__(self, peer: str) -> None:
        plain = errors.peer_unavailable(peer)
        super().__init__(plain.reason, plain.message, plain.metadata, plain.details)


class WireStream:
    """The answers of a streaming call. Who leaves before their end closes it (`reading`)."""

    def __init__(self, attempts: _Attempts, source: Any, *, chat: bool) -> None:
        self._attempts = attempts
        self._source = source
        self._chat = chat
        self._call: Any = None
        self._answers: Any = None
        self._ended = False

    def __aiter__(self) -> "WireStream":
        return self

    async def __anext__(self) -> Message:
        if self._ended:
            raise StopAsyncIteration
        try:
            with self._attempts.failing():
                if self._call is None:
                    self._begin()
                return self._attempts.decoded(await anext(self._answers))
        except StopAsyncIteration:
            self._end("OK")
            raise
        except BaseException as raised:
            self._end(code_of(raised))
            raise

    async def aclose(self) -> None:
        """Leaves the stream: the peer is told, and its handler cleans up."""
        self._end("CANCELLED")

    def _begin(self) -> None:
        if self._chat:
            self._call = self._attempts.begin(self._sent())
        else:
            self._call = self._attempts.begin(self._attempts.encoded(self._source))
        self._answers = aiter(self._call)

    async def _sent(self) -> AsyncIterator[bytes]:
        async for request in self._source:
            yield self._attempts.encoded(request)

    def _end(self, code: str) -> None:
        self._ended = True
        if self._call is not None:
            self._call.cancel()
            self._attempts.ended(code)


async def _settled(call: Any, error: aio.AioRpcError) -> aio.AioRpcError:
    """Returns what a call that was written to ended with.

    gRPC's asyncio client reports a write that found the call ended as an internal error of its own,
    and the peer's status a moment later.
    """
    if error.code() is not grpc.StatusCode.INTERNAL:
        return error
    await asyncio.sleep(_SETTLE_S)
    return aio.AioRpcError(
        await call.code(),
        await call.initial_metadata(),
        await call.trailing_metadata(),
        await call.details(),
    )


def code_of(raised: BaseException) -> str:
    """Returns what a span says of the end of a call."""
    if isinstance(raised, GridlaneError):
        return raised.code.name
    return "CANCELLED" if isinstance(raised, asyncio.CancelledError) else "FAILED"


def _methods(full_name: str) -> dict[str, WireMethod]:
    service = _descriptor(full_name)
    return {method.name: _method(service, method) for method in service.methods}


def _method(service: ServiceDescriptor, method: MethodDescriptor) -> WireMethod:
    sides = ("stream" if s else "unary" for s in (method.client_streaming, method.server_streaming))
    form = "_".join(sides)
    return WireMethod(
        name=f"{service.full_name}/{method.name}",
        form=form,
        streaming=form != "unary_unary",
        response_class=message_factory.GetMessageClass(method.output_type),
        may_repeat=repeatable(method),
        span_attributes={
            "rpc.system": "grpc",
            "rpc.service": service.full_name,
            "rpc.method": method.name,
        },
    )


def _descriptor(full_name: str) -> ServiceDescriptor:
    """Finds a service of the contracts; a process that does not serve it may not have it yet."""
    with suppress(KeyError):
        return descriptor_pool.Default().FindServiceByName(full_name)
    package = importlib.import_module(full_name.rpartition(".")[0])
    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        if module.name.endswith("_service_pb2"):
            importlib.import_module(module.name)
    return descriptor_pool.Default().FindServiceByName(full_name)
