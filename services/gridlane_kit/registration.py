"""The one pipeline: every call of every service over the wire goes through `Pipeline`.

Responsible for the order of the steps — deadline, admission, identity, parse, coarse permission,
validation, handler — and for the form of the answer. Handlers are registered from the descriptors
with bytes in and out, because gRPC's stock registration parses outside of anybody's `try` and tells
the caller the parser's and the handler's exception texts. The steps themselves stand in `steps`.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from enum import Enum
from functools import partial
from time import perf_counter
from typing import Any, Final, Protocol

import grpc
from google.protobuf.message import DecodeError, Message
from grpc import aio

from gridlane_kit import errors
from gridlane_kit.admission import Admission
from gridlane_kit.assertions import AssertionVerifier, BearerVerifier, ServiceKeysError
from gridlane_kit.call import CURRENT, Call
from gridlane_kit.decision import Decision
from gridlane_kit.errors import GridlaneError
from gridlane_kit.identity import Principal, Trust
from gridlane_kit.metrics import Metrics
from gridlane_kit.peers import LocalServices, Peers
from gridlane_kit.plans import MethodPlan, plan_service, refuse_stripped
from gridlane_kit.policy import Policy, PolicyHolder
from gridlane_kit.sessions import Session, Sessions, Verifier, refuse_revoked
from gridlane_kit.steps import Steps, denial, out_of_time
from gridlane_kit.streams import OpenStream, OpenStreams, ProvenStream
from gridlane_kit.telemetry import Telemetry
from gridlane_kit.wire import (
    MAX_MESSAGE_BYTES,
    caller_and_traceparent,
    help_links,
    send_error,
    send_trace_id,
)

ANONYMOUS: Final = Principal(issuer="", subject="anonymous")
"""The principal of a call before its identity is known, and of methods that need none."""

_FINISH_S: Final = 0.25
_FINISH_MESSAGES: Final = 16
"""For how long, and for how many messages, a refused caller may go on sending."""

Context = aio.ServicerContext[bytes, bytes]
Serve = Callable[[Any, Context], Awaitable[bytes | None]]

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


class Door(Enum):
    """Whom a listener lets in, and so whose word counts there."""

    EVERYBODY = "users and services"
    USERS = "users alone: services have a listener of their own"
    PEERS = "services alone"


class Pipeline:
    """Everything that stands between gRPC and the handlers of this process.

    Parameters:
        verifier: proves users' tokens.
        assertions: proves services' assertions; None where no service calls over the wire.
        policy: the policy in force; when it is replaced, open streams are decided anew.
        telemetry, metrics, admission: one each a process.
        default_deadline_s: deadline of unary calls that bring none. Streams without one have none.
        log_calls: also writes a line for each call that went well.
        errors_page: URL of the page about the reasons of errors, to which errors then point.
    """

    def __init__(
        self,
        *,
        verifier: Verifier,
        assertions: AssertionVerifier | None = None,
        policy: PolicyHolder,
        telemetry: Telemetry,
        metrics: Metrics,
        admission: Admission,
        default_deadline_s: float = 30.0,
        log_calls: bool = False,
        errors_page: str = "",
    ) -> None:
        self.telemetry = telemetry
        self.metrics = metrics
        self.policy = policy
        self._sessions = _sessions(verifier, assertions, policy)
        self._admission = admission
        self._default_deadline_s = default_deadline_s
        self._steps = Steps(policy, telemetry, log_calls=log_calls)
        self._links = help_links(errors_page)
        self._streams = OpenStreams()
        self._plans: dict[str, Mapping[str, MethodPlan]] = {}
        self._local = LocalServices(self._steps, default_deadline_s)
        metrics.watch_admission(admission)
        policy.subscribe(self._decide_streams_again)

    def register(
        self,
        server: Registrar,
        service_name: str,
        implementation: object,
        door: Door = Door.EVERYBODY,
    ) -> None:
        """Serves a service on a gRPC server, and to the other rooms of this process.

        Parameters:
            door: whom that server lets in.

        Raises:
            ContractError: the service must not be served as it stands (see `plans`).
        """
        plans = plan_service(service_name, implementation, self._admission, self.metrics)
        self._plans[service_name] = plans
        self._local.add(service_name, plans)
        self.serve_also(server, service_name, door)

    def serve_also(self, server: Registrar, service_name: str, door: Door) -> None:
        """Serves a service that is registered on one more gRPC server.

        Raises:
            ServiceKeysError: the door is for services, and nothing proves their assertions.
        """
        sessions = self._sessions.get(door)
        if sessions is None:
            raise ServiceKeysError(
                "a listener for services alone needs their public keys, and this process has none"
            )
        server.add_registered_method_handlers(
            service_name,
            {
                name: self._wire_handler(plan, sessions)
                for name, plan in self._plans[service_name].items()
            },
        )

    def peers_for(self, service: str) -> Peers:
        """Returns the peers that a service ("workload") may call; all are in this process."""
        return Peers(service, self._local)

    @property
    def local(self) -> LocalServices:
        """The services of this process, as `WirePeers` calls those that are no wire away."""
        return self._local

    def complete(self) -> None:
        """Says that every service is registered: calls between rooms, which waited, may run.

        Raises:
            ContractError: the contract of a package lost its validation rules.
        """
        refuse_stripped(self._plans)
        self._local.open()

    def drain_streams(self) -> None:
        """Ends every open stream with UNAVAILABLE, DRAINING; new ones are refused."""
        self._streams.drain()

    @property
    def open_streams(self) -> int:
        """How many streams are open."""
        return len(self._streams)

    def _wire_handler(self, plan: MethodPlan, sessions: Sessions) -> Any:
        make = self._streaming if plan.streaming else self._unary
        serve = make(plan, sessions)
        return _HANDLER_MAKERS[(plan.client_streaming, plan.server_streaming)](serve)

    def _unary(self, plan: MethodPlan, sessions: Sessions) -> Serve:
        """Makes what serves a unary method. Its steps' order is the contract with every caller."""
        steps, gate, permission = self._steps, plan.gate, plan.rule.permission
        links = self._links

        async def serve(raw: bytes, context: Context) -> bytes:
            begun = perf_counter()
            header, group, traceparent = caller_and_traceparent(context.invocation_metadata())
            call = Call(
                ANONYMOUS,
                None,
                self.telemetry.continued(traceparent),
                method=plan.name,
                peer=context.peer,
            )
            current = CURRENT.set(call)
            code, entered, timer = "OK", False, None
            try:
                timer = self._set_deadline(call, context.time_remaining())
                entered = gate.enter()
                if not entered:
                    raise gate.refusal()
                if permission is None:
                    request = _parsed(plan, raw)
                else:
                    session = sessions.known(header, group) or await sessions.prove(header, group)
                    call.principal = session.principal
                    request = _parsed(plan, raw)
                    call.decision = _permitted(sessions, session, permission)
                answer = await steps.checked_handler(plan, call, request)(request, call)
                encoded = _encoded(plan, answer)
                if call.trace.sampled:
                    send_trace_id(context, call)
                return encoded
            except BaseException as raised:
                code = "CANCELLED"
                code = send_error(context, call, steps.answerable(plan, call, raised), links)
                return b""
            finally:
                if timer is not None:
                    timer.cancel()
                if entered:
                    gate.leave()
                steps.ended(plan, call, code, begun)
                CURRENT.reset(current)

        return serve

    def _streaming(self, plan: MethodPlan, sessions: Sessions) -> Serve:
        """Makes what serves a method that streams; the same steps in the same order."""
        steps, gate, permission = self._steps, plan.gate, plan.rule.permission
        links = self._links

        async def serve(source: Any, context: Context) -> bytes | None:
            begun = perf_counter()
            header, group, traceparent = caller_and_traceparent(context.invocation_metadata())
            call = Call(
                ANONYMOUS,
                None,
                self.telemetry.continued(traceparent),
                method=plan.name,
                peer=context.peer,
            )
            current = CURRENT.set(call)
            stream = OpenStream(call, plan, asyncio.current_task())
            proven: ProvenStream | None = None
            code, entered = "OK", False
            try:
                _take_deadline(call, context.time_remaining())
                entered = gate.enter()
                if not entered:
                    raise gate.refusal()
                self._streams.add(stream)
                session = None
                if permission is not None:
                    session = sessions.known(header, group) or await sessions.prove(header, group)
                    call.principal = session.principal
                    anew = partial(_trust_anew, sessions, header, group)
                    proven = ProvenStream(stream, session.trust, anew)
                request = None if plan.client_streaming else _parsed(plan, source)
                if session is not None and permission is not None:
                    call.decision = _permitted(sessions, session, permission)
                handler = steps.checked_handler(plan, call, request)
                requests = _Requests(plan, call, steps, source) if request is None else request
                if plan.server_streaming:
                    await _pump(plan, stream, handler(requests, call), context)
                    return None
                return _encoded(plan, await handler(requests, call))
            except BaseException as raised:
                code = "CANCELLED"
                code = send_error(context, call, steps.answerable(plan, call, raised), links)
                if plan.client_streaming:
                    await _let_finish(source)
                return b""
            finally:
                if entered:
                    gate.leave()
                if proven is not None:
                    proven.end()
                self._streams.discard(stream)
                steps.ended(plan, call, code, begun)
                CURRENT.reset(current)

        return serve

    def _set_deadline(self, call: Call, given_s: float | None) -> asyncio.TimerHandle | None:
        """Fixes a unary call's deadline; answers the timer of one that the caller did not send.

        gRPC ends a call at the deadline that it was given; the default one it does not know.
        """
        if given_s is not None:
            _take_deadline(call, given_s)
            return None
        loop = asyncio.get_running_loop()
        call.deadline = loop.time() + self._default_deadline_s
        return loop.call_at(call.deadline, _expire, call, asyncio.current_task())

    def _decide_streams_again(self, _policy: Policy) -> None:
        self._streams.decide_again(self._lost_right)

    def _lost_right(self, stream: OpenStream) -> GridlaneError | None:
        permission = stream.plan.rule.permission
        if permission is None:
            return None
        try:
            refuse_revoked(stream.call.principal, self.policy.current)
            stream.call.decision = self._steps.permit(stream.plan, stream.call.principal)
        except GridlaneError as denied:
            return denied
        return None


def _sessions(
    tokens: Verifier, assertions: AssertionVerifier | None, policy: PolicyHolder
) -> dict[Door, Sessions]:
    users = Sessions(tokens, policy)
    if assertions is None:
        return {Door.EVERYBODY: users, Door.USERS: users}
    return {
        Door.EVERYBODY: Sessions(BearerVerifier(tokens, assertions), policy),
        Door.USERS: users,
        Door.PEERS: Sessions(assertions, policy),
    }


async def _trust_anew(sessions: Sessions, header: str, group: str) -> Trust:
    return (await sessions.prove(header, group)).trust


def _permitted(sessions: Sessions, session: Session, permission: str) -> Decision:
    decision = sessions.decision(session, permission)
    if not decision.allowed:
        raise denial(decision, permission)
    return decision


def _take_deadline(call: Call, given_s: float | None) -> None:
    if given_s is not None:
        if given_s <= 0:
            raise errors.deadline_exceeded()
        call.deadline = asyncio.get_running_loop().time() + given_s


def _expire(call: Call, task: "asyncio.Task[object] | None") -> None:
    call.cut = out_of_time()
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


async def _let_finish(source: AsyncIterator[bytes]) -> None:
    """Takes for a moment, and thrown away, what a refused caller still sends.

    A caller that finds the call ended while it writes may not see why: gRPC's asyncio client then
    reports an internal error of its own instead of the answer.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_FINISH_S):
            requests = aiter(source)
            for _ in range(_FINISH_MESSAGES):
                if await anext(requests, None) is None:
                    return


async def _pump(plan: MethodPlan, stream: OpenStream, answers: Any, context: Context) -> None:
    """Sends what a handler yields until it ends or the stream is cut."""
    call = stream.call
    try:
        async for answer in answers:
            raw = _encoded(plan, answer)
            stream.writing = True
            await context.write(raw)
            stream.writing = False
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
    encoded = answer.SerializeToString()
    if len(encoded) > MAX_MESSAGE_BYTES:
        raise ValueError(f"{plan.name} answered {len(encoded)} bytes: page or stream them")
    return encoded
