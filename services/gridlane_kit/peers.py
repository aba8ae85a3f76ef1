"""Peers: how one service calls another.

Responsible for who may call whom (`EDGES`, the table of the design), for typed access to each
service of the contracts, and for calls between rooms of one process: they go through the same steps
as calls over the wire, minus bytes and identity, since the principal is passed along. Messages are
copied on both sides, so that neither room can change what the other holds. Peers in other processes
are called by `wire_peers`.
"""

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Coroutine,
    Generator,
    Mapping,
)
from contextlib import asynccontextmanager
from functools import partial
from time import perf_counter
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from google.protobuf.message import Message

from gridlane_kit import errors
from gridlane_kit.call import CURRENT, Call, Caller
from gridlane_kit.identity import PrincipalKind
from gridlane_kit.plans import MethodPlan
from gridlane_kit.steps import Steps, out_of_time

if TYPE_CHECKING:
    from gridlane.authorization.v1.authorization_service_pb2_grpc import (
        AuthorizationServiceAsyncStub,
    )
    from gridlane.authorization.v1.policy_service_pb2_grpc import PolicyServiceAsyncStub
    from gridlane.authorization.v1.token_service_pb2_grpc import TokenServiceAsyncStub
    from gridlane.reporting.v1.accounting_service_pb2_grpc import AccountingServiceAsyncStub
    from gridlane.reporting.v1.span_service_pb2_grpc import SpanServiceAsyncStub
    from gridlane.transfer.v1.channel_service_pb2_grpc import ChannelServiceAsyncStub
    from gridlane.transfer.v1.event_service_pb2_grpc import TransferEventServiceAsyncStub
    from gridlane.transfer.v1.replica_service_pb2_grpc import ReplicaServiceAsyncStub
    from gridlane.transfer.v1.storage_service_pb2_grpc import StorageServiceAsyncStub
    from gridlane.transfer.v1.transfer_service_pb2_grpc import TransferServiceAsyncStub
    from gridlane.workload.v1.event_service_pb2_grpc import JobEventServiceAsyncStub
    from gridlane.workload.v1.job_service_pb2_grpc import JobServiceAsyncStub

EDGES: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "gateway": frozenset({"authorization", "transfer", "workload", "reporting"}),
        "reporting": frozenset({"authorization", "transfer", "workload"}),
        "workload": frozenset({"authorization", "transfer"}),
        "transfer": frozenset({"authorization"}),
        "authorization": frozenset(),
    }
)
"""Caller → the services that it may call. There is no cycle: what flows upward flows as events."""

SPAN_KEEPER: Final = "reporting"
"""Takes every service's spans, which each sends for itself and waits for in nothing: no edge."""

MARGIN_S: Final = 0.02
"""What a callee's deadline ends before its caller's, so that the caller can still answer."""

StubT = TypeVar("StubT")
MessageT = TypeVar("MessageT")
StubFactory = Callable[[Caller], StubT]


class ForbiddenEdgeError(Exception):
    """A service asks for a peer that the design does not let it call: a defect, seen at start."""


class UnreachablePeerError(Exception):
    """A service has no way to a peer that it calls: the address is not set. Seen at start."""


class Peers:
    """The peers of one service. Take an accessor once, at start; call it with each call's `Caller`.

    Each accessor answers a stub of the generated type, bound to the caller: its principal (on whose
    behalf the service acts), its trace and its deadline. Failures are `GridlaneError`s.
    """

    def __init__(self, service: str, local: "LocalServices | None") -> None:
        if service not in EDGES:
            raise ForbiddenEdgeError(f"{service!r} is no service: {', '.join(EDGES)}")
        self._service = service
        self._local = local

    @property
    def authorization(self) -> "StubFactory[AuthorizationServiceAsyncStub]":
        """Who is who, and the policy."""
        return self._factory("gridlane.authorization.v1.AuthorizationService")

    @property
    def authorization_policy(self) -> "StubFactory[PolicyServiceAsyncStub]":
        """The policy, as it changes."""
        return self._factory("gridlane.authorization.v1.PolicyService")

    @property
    def authorization_tokens(self) -> "StubFactory[TokenServiceAsyncStub]":
        """Jobs' tokens."""
        return self._factory("gridlane.authorization.v1.TokenService")

    @property
    def transfer_jobs(self) -> "StubFactory[TransferServiceAsyncStub]":
        """Transfer jobs and their files."""
        return self._factory("gridlane.transfer.v1.TransferService")

    @property
    def transfer_storage(self) -> "StubFactory[StorageServiceAsyncStub]":
        """Storage elements, and bytes in them."""
        return self._factory("gridlane.transfer.v1.StorageService")

    @property
    def transfer_replicas(self) -> "StubFactory[ReplicaServiceAsyncStub]":
        """The replica catalogue."""
        return self._factory("gridlane.transfer.v1.ReplicaService")

    @property
    def transfer_channels(self) -> "StubFactory[ChannelServiceAsyncStub]":
        """Channels."""
        return self._factory("gridlane.transfer.v1.ChannelService")

    @property
    def transfer_events(self) -> "StubFactory[TransferEventServiceAsyncStub]":
        """The feed of transfer events."""
        return self._factory("gridlane.transfer.v1.TransferEventService")

    @property
    def workload_jobs(self) -> "StubFactory[JobServiceAsyncStub]":
        """Jobs."""
        return self._factory("gridlane.workload.v1.JobService")

    @property
    def workload_events(self) -> "StubFactory[JobEventServiceAsyncStub]":
        """The feed of job events."""
        return self._factory("gridlane.workload.v1.JobEventService")

    @property
    def reporting_accounting(self) -> "StubFactory[AccountingServiceAsyncStub]":
        """Accounting records and reports."""
        return self._factory("gridlane.reporting.v1.AccountingService")

    @property
    def reporting_spans(self) -> "StubFactory[SpanServiceAsyncStub]":
        """Kept spans."""
        return self._factory("gridlane.reporting.v1.SpanService")

    def stubs(self, full_name: str) -> StubFactory[Any]:
        """Answers the accessor of a service by its full name, untyped.

        Raises:
            ForbiddenEdgeError: the design gives this service no such peer.
        """
        return self._factory(full_name)

    def _factory(self, full_name: str) -> StubFactory[Any]:
        target = full_name.split(".")[1]
        if target not in EDGES[self._service]:
            raise ForbiddenEdgeError(
                f"{self._service} does not call {target}; it may call "
                f"{', '.join(sorted(EDGES[self._service])) or 'nobody'}"
            )
        return self._way_to(target, full_name)

    def _way_to(self, target: str, full_name: str) -> StubFactory[Any]:
        if self._local is None:
            raise UnreachablePeerError(
                f"{self._service} calls {target} and has no address of it: set"
                f" GRIDLANE_PEERS__{target.upper()}, for example dns:///{target}:50051"
            )
        return cast("StubFactory[Any]", partial(LocalStub, self._local, self._service, full_name))


class LocalServices:
    """The services of this process, as the other rooms call them."""

    def __init__(self, steps: Steps, default_deadline_s: float) -> None:
        self.steps = steps
        self._default_deadline_s = default_deadline_s
        self._plans: dict[str, Mapping[str, MethodPlan]] = {}
        self._opened = asyncio.Event()

    def add(self, full_name: str, plans: Mapping[str, MethodPlan]) -> None:
        """Takes a service in."""
        self._plans[full_name] = plans

    def open(self) -> None:
        """Lets calls through: all services are there."""
        self._opened.set()

    def plan(self, full_name: str, method: str) -> MethodPlan:
        """Returns the plan of a method.

        Raises:
            GridlaneError: PEER_UNAVAILABLE: this process does not run the service.
            AttributeError: the contract has no such method.
        """
        plans = self._plans.get(full_name)
        if plans is None:
            raise errors.peer_unavailable(full_name.split(".")[1])
        plan = plans.get(method)
        if plan is None:
            raise AttributeError(f"{full_name} has no method {method}")
        return plan

    async def unary(
        self, service: str, caller: Caller, full_name: str, method: str, source: Any
    ) -> Message:
        """Calls a method with one answer; `source` is a request, or an async iterator of them."""
        plan, call = await self.begin(service, caller, full_name, method)
        begun = perf_counter()
        current = CURRENT.set(call)
        code = "OK"
        try:
            handler, request = self.prepared(plan, call, source)
            return _copied(await _in_time(handler(request, call), call.deadline))
        except BaseException as raised:
            code = "CANCELLED"
            error = self.steps.answerable(plan, call, raised)
            code = error.code.name
            try:
                raise error from None
            finally:
                del error  # it keeps this frame, and so the request, as long as this frame names it
        finally:
            self.steps.ended(plan, call, code, begun)
            CURRENT.reset(current)

    async def begin(
        self, service: str, caller: Caller, full_name: str, method: str
    ) -> tuple[MethodPlan, Call]:
        """Waits until the services of this process are there, and makes the call."""
        if not self._opened.is_set():
            await self._opened.wait()
        plan = self.plan(full_name, method)
        return plan, self._call(service, caller, plan)

    def _call(self, service: str, caller: Caller, plan: MethodPlan) -> Call:
        principal = caller.principal
        if principal.kind is not PrincipalKind.SERVICE:
            principal = principal.on_behalf(service)
        deadline = callee_deadline(caller, None if plan.streaming else self._default_deadline_s)
        return Call(principal, deadline, caller.trace.child(), method=plan.name)

    def prepared(self, plan: MethodPlan, call: Call, source: Any) -> tuple[Callable[..., Any], Any]:
        """Goes through the steps before the handler; returns it and what it is called with."""
        remaining = call.remaining()
        if remaining is not None and remaining <= 0:
            raise errors.deadline_exceeded()
        call.decision = self.steps.permit(plan, call.principal)
        if plan.client_streaming:
            handler = self.steps.checked_handler(plan, call, None)
            return handler, self._checked(plan, call, source)
        return self.steps.checked_handler(plan, call, source), _copied(source)

    async def _checked(
        self, plan: MethodPlan, call: Call, requests: AsyncIterator[Message]
    ) -> AsyncIterator[Message]:
        async for request in requests:
            self.steps.check(plan, call, request)
            yield _copied(request)


class LocalStub:
    """A service of this process, bound to a caller; methods are named as in the contract."""

    __slots__ = ("_caller", "_full_name", "_local", "_service")

    def __init__(self, local: LocalServices, service: str, full_name: str, caller: Caller) -> None:
        self._local = local
        self._service = service
        self._full_name = full_name
        self._caller = caller

    def __getattr__(self, method: str) -> "Callable[[Any], LocalCall]":
        return partial(LocalCall, self._local, self._service, self._caller, self._full_name, method)


class LocalCall:
    """One call: await it for its answer, or iterate over it where the method streams answers."""

    __slots__ = ("_call", "_local")

    def __init__(
        self,
        local: LocalServices,
        service: str,
        caller: Caller,
        full_name: str,
        method: str,
        source: Any,
    ) -> None:
        self._local = local
        self._call = (service, caller, full_name, method, source)

    def __await__(self) -> Generator[Any, None, Message]:
        return self._local.unary(*self._call).__await__()

    def __aiter__(self) -> "LocalStream":
        return LocalStream(self._local, *self._call)


class LocalStream:
    """The answers of a streaming call. Who leaves before their end closes it (`aclosing`)."""

    def __init__(
        self,
        local: LocalServices,
        service: str,
        caller: Caller,
        full_name: str,
        method: str,
        source: Any,
    ) -> None:
        self._local = local
        self._target = (service, caller, full_name, method)
        self._source = source
        self._begun = perf_counter()
        self._under_way: tuple[MethodPlan, Call] | None = None
        self._answers: Any = None
        self._ended = False

    def __aiter__(self) -> "LocalStream":
        return self

    async def __anext__(self) -> Message:
        if self._under_way is None:
            self._under_way = await self._local.begin(*self._target)
        plan, call = self._under_way
        current = CURRENT.set(call)
        try:
            if self._answers is None:
                handler, request = self._local.prepared(plan, call, self._source)
                self._answers = handler(request, call)
            return _copied(await anext(self._answers))
        except StopAsyncIteration:
            self._end("OK")
            raise
        except BaseException as raised:
            self._end("CANCELLED" if isinstance(raised, asyncio.CancelledError) else "FAILED")
            raise self._local.steps.answerable(plan, call, raised) from None
        finally:
            CURRENT.reset(current)

    async def aclose(self) -> None:
        """Leaves the stream: its handler cleans up."""
        if self._answers is not None:
            await self._answers.aclose()
        self._end("CANCELLED")

    def _end(self, code: str) -> None:
        if self._under_way is not None and not self._ended:
            self._ended = True
            self._local.steps.ended(*self._under_way, code, self._begun)


def callee_deadline(caller: Caller, default_s: float | None) -> float | None:
    """Returns the deadline of a call that `caller` makes: its own less a margin.

    Parameters:
        default_s: seconds that the call may take at most; None, as for streams, sets no bound.
    """
    deadline = None if caller.deadline is None else caller.deadline - MARGIN_S
    if default_s is None:
        return deadline
    own = asyncio.get_running_loop().time() + default_s
    return own if deadline is None else min(own, deadline)


async def _in_time(answer: Coroutine[Any, Any, Message], deadline: float | None) -> Message:
    limit = asyncio.timeout_at(deadline)
    try:
        async with limit:
            return await answer
    except TimeoutError:
        if limit.expired():
            raise out_of_time() from None
        raise


def _copied(message: Message) -> Message:
    copy = type(message)()
    copy.CopyFrom(message)
    return copy


@asynccontextmanager
async def reading(stream: AsyncIterable[MessageT]) -> AsyncIterator[AsyncIterator[MessageT]]:
    """Reads the stream of a peer; whoever leaves the block before its end leaves the stream.

    `async with reading(stub.WatchJobs(request)) as pages: async for page in pages: …`
    """
    pages = aiter(stream)
    try:
        yield pages
    finally:
        await cast("AsyncGenerator[MessageT]", pages).aclose()
