"""The server process: rooms, ports, signals, and the order in which everything stops.

Responsible for running the rooms (services) of a process on one gRPC server, for health on a server
and port of its own, for services' calls on one more where that is wanted, for the ready file, for
draining and for the dump of stacks at SIGUSR1. Not for what a call goes through (`registration`)
nor for which rooms there are (the assembly).
"""

import asyncio
import contextlib
import faulthandler
import gc
import json
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import grpc
from grpc import aio

from gridlane_kit import health
from gridlane_kit.logs import logger
from gridlane_kit.metrics import LOOP_LAG_SECONDS, HttpEndpoint
from gridlane_kit.registration import Door, Pipeline
from gridlane_kit.settings import ServerSettings
from gridlane_kit.tls import ServerTls
from gridlane_kit.wire import MAX_MESSAGE_BYTES

MAX_CONCURRENT_CALLS: Final = 10_000
"""A backstop behind admission, which refuses with RetryInfo long before."""

_LAG_PERIOD_S: Final = 0.5
_HEALTH_GRACE_S: Final = 0.2
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.so_reuseport", 0),
    # Bytes of a call's headers. By default gRPC refuses some of those above 8 KiB: a token with
    # many groups must not fail now and then (16 KiB are let through, an assertion is a bit longer).
    ("grpc.max_metadata_size", 32 * 1024),
    ("grpc.absolute_max_metadata_size", 32 * 1024),
    # A client may ping an idle connection, but not more often than this.
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # A peer that vanished is noticed, and its streams end, within this and the timeout.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.ping_timeout_ms", 20_000),  # it is this one that counts; a minute by itself
    ("grpc.http2.max_pings_without_data", 0),  # 0: any number, a quiet stream is no reason to stop
)


class PortUnavailableError(RuntimeError):
    """A port cannot be served on; the message names it, and the cure."""

    def __init__(self, address: str) -> None:
        super().__init__(
            f"cannot serve on {address}: the port is taken, or the address is not one of this"
            " machine's; choose another port (0 takes any free one)"
        )
        self.address = address


class ServiceRoom(Protocol):
    """One service of a process."""

    name: str

    async def start(self) -> None:
        """Opens stores, starts background work, whose first call to a peer waits for all rooms."""

    def handlers(self) -> Sequence[tuple[str, object]]:
        """Returns pairs of a service's full name and its implementation; asked after `start`."""

    async def drain(self) -> None:
        """Finishes: no call comes any more; what is queued is written, background work ends."""

    async def stop(self) -> None:
        """Gives everything back."""


@dataclass(frozen=True, slots=True)
class ReadyInfo:
    """What the ready file says besides the addresses; `server_file` is a second place for it."""

    data_dir: Path | None = None
    token_file: Path | None = None
    server_file: Path | None = None


class Server:
    """One process's servers and rooms.

    Parameters:
        settings: ports, TLS, times.
        rooms: in the order of their start; they stop in the opposite one.
        pipeline: what every call goes through.
        ready: goes into the ready file.
    """

    def __init__(
        self,
        settings: ServerSettings,
        rooms: Sequence[ServiceRoom],
        pipeline: Pipeline,
        ready: ReadyInfo | None = None,
    ) -> None:
        self._settings = settings
        self._rooms = tuple(rooms)
        self._started: list[ServiceRoom] = []
        self._pipeline = pipeline
        self._ready = ready or ReadyInfo()
        # The ready file last: whoever waits for it finds the other one there.
        places = (self._ready.server_file, settings.ready_file)
        self._ready_files = [file for file in places if file is not None]
        self._health = health.HealthShell(pipeline.policy)
        self._services: list[str] = []
        self._grpc: aio.Server | None = None
        self._peer_grpc: aio.Server | None = None
        self._health_grpc: aio.Server | None = None
        self._metrics_endpoint: HttpEndpoint | None = None
        self._lag = _LoopLag()
        self._asked_to_stop = asyncio.Event()
        self._log = logger("server")
        self.address = ""
        self.peer_address = ""
        """Where services call, when that is another place than `address`."""
        self.health_address = ""
        self.metrics_port: int | None = None

    async def start(self) -> None:
        """Starts rooms and servers; when it returns, the server serves and the ready file is there.

        Raises:
            ContractError: a service must not be served as it stands.
            PortUnavailableError: a port cannot be had.
            CertificateError: certificates or keys are not usable.
        """
        try:
            await self._start()
        except BaseException:
            for server in (self._grpc, self._peer_grpc, self._health_grpc):
                if server is not None:
                    await server.stop(None)
            await self._stop_rooms()
            raise

    async def _start(self) -> None:
        self._remove_ready_files()  # one that was killed could not
        for room in self._rooms:
            # One whose start fails has nothing to drain; what it opened ends with the process.
            await room.start()
            self._started.append(room)
        self._grpc = self._calls_server()
        self._health_grpc = aio.server(options=_OPTIONS)
        self._pipeline.register(self._health_grpc, health.SERVICE, self._health)
        settings = self._settings
        port = _listen(self._grpc, settings.host, settings.port, _credentials(settings))
        health_port = _listen(self._health_grpc, settings.health_host, settings.health_port, None)
        self.address = f"{settings.host}:{port}"
        self.health_address = f"{settings.health_host}:{health_port}"
        if settings.peer_listener:
            self._peer_grpc = self._peers_server()
        self._pipeline.complete()
        await self._grpc.start()
        if self._peer_grpc is not None:
            await self._peer_grpc.start()
        await self._health_grpc.start()
        self._observe()
        await self._health.set_all(self._services, health.SERVING)
        for file in self._ready_files:
            _write_whole(file, self._ready_text())
        self._log.info("serving", address=self.address, health_address=self.health_address)

    async def wait(self) -> None:
        """Waits until SIGTERM or SIGINT asks for the stop (`stop_on_signals`), or `ask_to_stop`
        does."""
        await self._asked_to_stop.wait()

    def ask_to_stop(self) -> None:
        """Ends `wait`."""
        self._asked_to_stop.set()

    def stop_on_signals(self) -> None:
        """Lets SIGTERM and SIGINT ask for the stop, a second one end the process at once.

        SIGUSR1 writes the stacks of all threads and tasks to standard error and goes on.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop_signal, number)
        dump_stacks_on(signal.SIGUSR1)

    def _on_stop_signal(self, number: signal.Signals) -> None:
        if self._asked_to_stop.is_set():
            os._exit(128 + number)
        self._log.info("stopping", signal=number.name)
        self.ask_to_stop()

    async def stop(self) -> None:
        """Stops in the order that loses nothing: see the steps."""
        settings = self._settings
        await self._health.set_all(self._services, health.NOT_SERVING)
        # Whoever balances takes a while to notice; calls are still answered meanwhile.
        await asyncio.sleep(settings.endpoint_lag_s)
        self._pipeline.drain_streams()
        both = (server for server in (self._grpc, self._peer_grpc) if server is not None)
        await asyncio.gather(*(server.stop(settings.grace_s) for server in both))
        await self._stop_rooms()
        await self._lag.stop()
        if self._metrics_endpoint is not None:
            await asyncio.to_thread(self._metrics_endpoint.close)
        if self._health_grpc is not None:
            await self._health_grpc.stop(_HEALTH_GRACE_S)
        await asyncio.to_thread(self._pipeline.telemetry.close)
        self._remove_ready_files()
        self._log.info("stopped")

    async def _stop_rooms(self) -> None:
        """Drains, then disposes of what was started; one room's failure keeps no other from it."""
        rooms = list(reversed(self._started))
        self._started.clear()
        for room in rooms:
            await self._attempt(room, room.drain)
        for room in rooms:
            await self._attempt(room, room.stop)

    async def _attempt(
        self, room: ServiceRoom, step: Callable[[], Coroutine[Any, Any, None]]
    ) -> None:
        try:
            await step()
        except Exception as error:
            self._log.error("a room failed to stop", room=room.name, exc_info=error)

    def _calls_server(self) -> aio.Server:
        from grpc_reflection.v1alpha import reflection

        server = aio.server(options=_OPTIONS, maximum_concurrent_rpcs=MAX_CONCURRENT_CALLS)
        door = Door.USERS if self._settings.peer_listener else Door.EVERYBODY
        for room in self._rooms:
            for full_name, implementation in room.handlers():
                self._pipeline.register(server, full_name, implementation, door)
                self._services.append(full_name)
        names = (*self._services, reflection.SERVICE_NAME)
        self._pipeline.register(
            server, reflection.SERVICE_NAME, reflection.aio.ReflectionServicer(names), door
        )
        return server

    def _peers_server(self) -> aio.Server:
        """Makes the server for services alone: the same services, behind mutual TLS."""
        settings = self._settings
        server = aio.server(options=_OPTIONS, maximum_concurrent_rpcs=MAX_CONCURRENT_CALLS)
        for full_name in self._services:
            self._pipeline.serve_also(server, full_name, Door.PEERS)
        credentials = _credentials(settings, settings.peer_ca)
        port = _listen(server, settings.host, settings.peers_at, credentials)
        self.peer_address = f"{settings.host}:{port}"
        return server

    def _observe(self) -> None:
        metrics = self._pipeline.metrics
        metrics.watch(LOOP_LAG_SECONDS, "server", lambda: self._lag.seconds)
        self._lag.start()
        if self._settings.metrics_port is not None:
            host, port = self._settings.metrics_host, self._settings.metrics_port
            self._metrics_endpoint = metrics.expose(port, host)
            self.metrics_port = self._metrics_endpoint.port

    def _remove_ready_files(self) -> None:
        for file in self._ready_files:
            file.unlink(missing_ok=True)

    def _ready_text(self) -> str:
        facts = {
            "address": self.address,
            "peer_address": self.peer_address,
            "health_address": self.health_address,
            "token_file": _optional(self._ready.token_file),
            "data_dir": _optional(self._ready.data_dir),
            "metrics_port": self.metrics_port,
            "pid": os.getpid(),
        }
        return json.dumps(facts, indent=2) + "\n"


class _LoopLag:
    """How late the event loop runs its timers."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._measure(), name="event-loop-lag")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _measure(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + _LAG_PERIOD_S
            await asyncio.sleep(_LAG_PERIOD_S)
            self.seconds = max(0.0, loop.time() - due)


def dump_stacks_on(number: signal.Signals) -> None:
    """Has a signal write the stacks of all threads, then of all tasks, to standard error.

    The threads' come from C code that runs even while the event loop is stuck; the tasks' follow as
    soon as the loop runs again.
    """
    asyncio.get_running_loop().add_signal_handler(number, dump_tasks)
    faulthandler.register(number, all_threads=True, chain=True)


def dump_tasks() -> None:
    """Writes the stacks of all tasks of this event loop to standard error."""
    tasks = asyncio.all_tasks()
    sys.stderr.write(f"--- {len(tasks)} tasks\n")
    for task in tasks:
        sys.stderr.write(f"Task {task.get_name()}:\n")
        for awaited in _awaited_chain(task.get_coro()):
            sys.stderr.write(f"  {awaited}\n")
    sys.stderr.flush()


def _awaited_chain(awaited: Any) -> Iterator[str]:
    """Follows a coroutine to what it waits for; a task's own `print_stack` shows only the first."""
    while awaited is not None:
        frame = _first_of(awaited, "cr_frame", "ag_frame", "gi_frame")
        place = f" {frame.f_code.co_filename}:{frame.f_lineno}" if frame is not None else ""
        yield f"{getattr(awaited, '__qualname__', type(awaited).__name__)}{place}"
        following = _first_of(awaited, "cr_await", "ag_await", "gi_yieldfrom")
        awaited = _hidden_coroutine(awaited) if following is None else following


def _first_of(awaited: Any, *attributes: str) -> Any:
    found = (getattr(awaited, attribute, None) for attribute in attributes)
    return next((value for value in found if value is not None), None)


def _hidden_coroutine(wrapper: Any) -> Any:
    """What `coroutine.__await__()` and `generator.__anext__()` wrap, which no attribute tells."""
    if type(wrapper).__name__ not in ("coroutine_wrapper", "async_generator_asend"):
        return None
    inner = (
        r for r in gc.get_referents(wrapper) if hasattr(r, "cr_frame") or hasattr(r, "ag_frame")
    )
    return next(inner, None)


def rest_collector() -> None:
    """Tells the garbage collector, once a server is up, that what there is will stay.

    It would otherwise walk modules, descriptors and plans again and again: a batch of 1000 files
    costs a fifth less without.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def run(main: Callable[[], Coroutine[Any, Any, int]]) -> int:
    """Runs the program's coroutine, on uvloop where it is installed; returns its exit code."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(main())
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main())


def _credentials(
    settings: ServerSettings, client_roots: Path | None = None
) -> grpc.ServerCredentials | None:
    if settings.tls_certificate is None or settings.tls_key is None:
        return None
    return ServerTls(settings.tls_certificate, settings.tls_key, client_roots).credentials()


def _listen(
    server: aio.Server, host: str, port: int, credentials: grpc.ServerCredentials | None
) -> int:
    address = f"{host}:{port}"
    try:
        if credentials is not None:
            return server.add_secure_port(address, credentials)
        return server.add_insecure_port(address)
    except RuntimeError as error:  # all that gRPC tells
        raise PortUnavailableError(address) from error


def _write_whole(path: Path, text: str) -> None:
    """Writes a file that a reader finds either whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text)
    temporary.replace(path)


def _optional(path: Path | None) -> str | None:
    return None if path is None else str(path)
