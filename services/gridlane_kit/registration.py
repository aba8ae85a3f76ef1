"""The one pipeline: every call of every service over the wire goes through `Pipeline`.

Responsible for the order of the steps — deadline, admission, identity, parse, coarse permission,
validation, handler — and for the form of the answer. Handlers are registered from the descriptors
with bytes in and out, because gRPC's stock registration parses outside of anybody's `try` and tells
the caller the parser's and the handler's exception texts. The steps themselves stand in `steps`.
"""

import asyncio
from collections.abc import AsyncIterator
from time import perf_counter
from typing import Any, Final, Protocol

import grpc
from google.protobuf.message import DecodeError, Message
from grpc import aio

from gridlane_kit import errors
from gridlane_kit.admission import Admission
from gridlane_kit.call import CURRENT, Call
from gridlane_kit.errors import GridlaneError
from gridlane_kit.identity import Principal
from gridlane_kit.metrics import Metrics
from gridlane_kit.peers import LocalServices, Peers
from gridlane_kit.plans import MethodPlan, plan_service, refuse_stripped
from gridlane_kit.policy import Policy, PolicyHolder
from gridlane_kit.steps import Steps, out_of_time
from gridlane_kit.streams import OpenStream, OpenStreams
from gridlane_kit.telemetry import Telemetry
from gridlane_kit.tokens import TokenVerifier
from gridlane_kit.wire import bearer_and_traceparent, send_error, send_trace_id

ANONYMOUS: Final = Principal(issuer="", subject="anonymous")
"""The principal of a call before its identity is known, and of methods that need none."""

_HANDLER_MAKERS: Final = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


class Registrar(Protocol):
    """What registration needs of a gRPC server."""

    def add_registered_method_handlers(
        self, service_name: str, method_handlers: dict[str, Any]
    ) -> None:
        """Has calls of these methods served by these handlers."""


class Pipeline:
    """Everything that stands between gRPC and the handlers of this process.

    Parameters:
        verifier: proves identities.
        policy: the policy in force; when it is replaced, open streams are decided anew.
        telemetry, metrics, admission: one each a process.
        default_deadline_s: deadline of unary calls that bring none. Streams without one have none.
        log_calls: also writes a line for each call that went well.
    """

    def __init__(
        self,
        *,
        verifier: TokenVerifier,
        policy: PolicyHolder,
        telemetry: Telemetry,
        metrics: Metrics,
        admission: Admission,
        default_deadline_s: float = 30.0,
        log_calls: bool = False,
    ) -> None:
        self.telemetry = telemetry
        self.metrics = metrics
        self.policy = policy
        self._verifier = verifier
        self._admission = admission
        self._default_deadline_s = default_deadline_s
        self._steps = Steps(policy, telemetry, log_calls=log_calls)
        self._streams = OpenStreams()
        self._registered: list[str] = []
        self._local = LocalServices(self._steps, default_deadline_s)
        metrics.watch_admission(admission)
        policy.subscribe(self._decide_streams_again)

    def register(self, server: Registrar, service_name: str, implementation: object) -> None:
        """Serves a service on a gRPC server, and to the other rooms of this process.

        Raises:
            ContractError: the service must not be served as it stands (see `plans`).
        """
        plans = plan_service(service_name, implementation, self._admission, self.metrics)
        self._registered.append(service_name)
        self._local.add(service_name, plans)
        server.add_registered_method_handlers(
            service_name, {name: self._wire_handler(plan) for name, plan in plans.items()}
        )

    def peers_for(self, service: str) -> Peers:
        """Returns the peers that a service ("workload") may call."""
        return Peers(service, self._local)

    def complete(self) -> None:
        """Says that every service is registered: calls between rooms, which waited, may run.

        Raises:
            ContractError: the contract of a package lost its validation rules.
        """
        refuse_stripped(self._registered)
        self._local.open()

    def drain_streams(self) -> None:
        """Ends every open stream with UNAVAILABLE, DRAINING; new ones are refused."""
        self._streams.drain()

    @property
    def open_streams(self) -> int:
        """How many streams are open."""
        return len(self._streams)

    def _wire_handler(self, plan: MethodPlan) -> Any:
        async def serve(source: Any, context: "aio.ServicerContext[bytes, bytes]") -> bytes | None:
            return await self._serve(plan, source, context)

        return _HANDLER_MAKERS[(plan.client_streaming, plan.server_streaming)](serve)

    async def _serve(
        self, plan: MethodPlan, source: Any, context: "aio.ServicerContext[bytes, bytes]"
    ) -> bytes | None:
        """Serves one call: the order of its steps is the contract with every caller."""
        begun = perf_counter()
        bearer, traceparent = bearer_and_traceparent(context.invocation_metadata())
        call = Call(ANONYMOUS, None, self.telemetry.continued(traceparent), method=plan.name)
        current = CURRENT.set(call)
        stay = _Stay(plan, call, self._streams)
        code = "OK"
        try:
            stay.enter(context.time_remaining(), self._default_deadline_s)
            if plan.rule.permission is not None:
                call.principal = await self._identity(bearer)
            request = source if plan.client_streaming else _parsed(plan, source)
            if plan.rule.permission is not None:
                call.decision = self._steps.permit(plan, call.principal)
            if plan.handler is None:
                raise errors.not_implemented(plan.name)
            if plan.client_streaming:
                request = _Requests(plan, call, self._steps, source)
            else:
                self._steps.check(plan, call, request)
            if plan.server_streaming:
                await _pump(plan, call, stay, plan.handler(request, call), context)
                answer = None
            else:
                answer = _encoded(plan, await plan.handler(request, call))
            if call.trace.sampled:
                send_trace_id(context, call)
            return answer
        except BaseException as raised:
            code = "CANCELLED"
            error = self._steps.answerable(plan, call, raised)
            code = error.code.name
            send_error(context, call, error)
            return b""
        finally:
            stay.leave()
            self._steps.ended(plan, call, code, begun)
            CURRENT.reset(current)

    async def _identity(self, bearer: str) -> Principal:
        if not bearer:
            raise errors.token_missing()
        return self._verifier.remembered(bearer) or await self._verifier.verify(bearer)

    def _decide_streams_again(self, _policy: Policy) -> None:
        self._streams.decide_again(self._lost_right)

    def _lost_right(self, stream: OpenStream) -> GridlaneError | None:
        permission = stream.plan.rule.permission
        if permission is None:
            return None
        try:
            stream.call.decision = self._steps.permit(stream.plan, stream.call.principal)
        except GridlaneError as denied:
            return denied
        return None


class _Stay:
    """A call's stay in the server: its place, its deadline, its entry among the open streams."""

    __slots__ = ("_call", "_entered", "_plan", "_stream", "_streams", "_timer")

    def __init__(self, plan: MethodPlan, call: Call, streams: OpenStreams) -> None:
        self._plan = plan
        self._call = call
        self._streams = streams
        self._stream: OpenStream | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._entered = False

    def enter(self, given_s: float | None, default_s: float) -> None:
        """Fixes the deadline and takes a place.

        Raises:
            GridlaneError: DEADLINE_EXCEEDED, OVERLOADED, DRAINING.
        """
        plan, call = self._plan, self._call
        if given_s is not None:
            if given_s <= 0:
                raise errors.deadline_exceeded()
            call.deadline = asyncio.get_running_loop().time() + given_s
        elif not plan.streaming:
            loop = asyncio.get_running_loop()
            call.deadline = loop.time() + default_s
            # gRPC ends a call at the deadline that it was given; this one it does not know.
            self._timer = loop.call_at(call.deadline, self._expire, asyncio.current_task())
        if not plan.gate.enter():
            raise plan.gate.refusal()
        self._entered = True
        if plan.streaming:
            stream = OpenStream(call, plan, asyncio.current_task())
            self._streams.add(stream)
            self._stream = stream

    def leave(self) -> None:
        """Gives back what was taken."""
        if self._timer is not None:
            self._timer.cancel()
        if self._entered:
            self._plan.gate.leave()
        if self._stream is not None:
            self._streams.discard(self._stream)

    def mark_writing(self, writing: bool) -> None:
        """Notes that a message of the stream is on its way, or has gone."""
        if self._stream is not None:
            self._stream.writing = writing

    def _expire(self, task: "asyncio.Task[object] | None") -> None:
        self._call.cut = out_of_time()
        if task is not None:
            task.cancel()


class _Requests:
    """The requests of a streaming call, each parsed and validated when it comes."""

    __slots__ = ("_call", "_plan", "_source", "_steps")

    def __init__(
        self, plan: MethodPlan, call: Call, steps: Steps, source: AsyncIterator[bytes]
    ) -> None:
        self._plan = plan
        self._call = call
        self._steps = steps
        self._source = aiter(source)

    def __aiter__(self) -> "_Requests":
        return self

    async def __anext__(self) -> Message:
        message = _parsed(self._plan, await anext(self._source))
        self._steps.check(self._plan, self._call, message)
        return message


async def _pump(
    plan: MethodPlan,
    call: Call,
    stay: _Stay,
    answers: Any,
    context: "aio.ServicerContext[bytes, bytes]",
) -> None:
    """Sends what a handler yields until it ends or the stream is cut."""
    try:
        async for answer in answers:
            raw = _encoded(plan, answer)
            stay.mark_writing(True)
            await context.write(raw)
            stay.mark_writing(False)
            plan.stats.sent += 1
            if call.cut is not None:
                raise call.cut
    finally:
        await answers.aclose()


def _parsed(plan: MethodPlan, raw: bytes) -> Message:
    try:
        return plan.request_class.FromString(raw)
    except DecodeError:
        raise errors.malformed_message() from None


def _encoded(plan: MethodPlan, answer: object) -> bytes:
    if not isinstance(answer, plan.response_class):
        raise TypeError(f"{plan.name} answered {type(answer).__name__}")
    return answer.SerializeToString()
