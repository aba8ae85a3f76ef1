"""Gridlane with one process a service, for tests: `init`, `migrate`, and five `gridlane-server`s
with TLS between them.

Responsible for starting them, for calling each service where it is, and for ending any of them.
"""

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc
from support import COMMAND, INHERITED, START_SECONDS, Deployment, ServerProcess

from gridlane_kit.sqlite import sqlite_url

# Where several processes may share a database, what a killed one held is free when its lease runs
# out: a minute by default, which no test waits for.
_SHORT_LEASES = {
    "GRIDLANE_REPORTING_LEASE_S": "2",
    "GRIDLANE_TRANSFER_LEASE_S": "5",
    "GRIDLANE_TRANSFER_POLL_S": "1",
    "GRIDLANE_WORKLOAD_LEASE_S": "3",
    "GRIDLANE_WORKLOAD_STEP_TIMEOUT_S": "2",
    "GRIDLANE_WORKLOAD_POLL_S": "1",
}
SERVICES = ("authorization", "transfer", "workload", "reporting", "gateway")


class SplitServer(Deployment):
    """Five processes; each may be ended and started again (`part`).

    Parameters:
        root: a folder for everything.
        databases: the template of the databases' URLs, with `{service}`; empty: SQLite files.
        environment: what all of them are set to, beside their configuration and short leases.
    """

    shape = "split"

    def __init__(
        self, root: Path, databases: str = "", environment: Mapping[str, str] | None = None
    ) -> None:
        self.root = root
        self.data_dir = root / "data"
        self._databases = databases
        self._environment = {**_SHORT_LEASES, **(environment or {})}
        self._made: dict[str, Any] = {}
        self._parts: dict[str, ServerProcess] = {}
        self._channel: _RoutedChannel | None = None

    def start(self) -> "SplitServer":
        """Starts all five at once and waits until they serve."""
        if not self._made:
            self._initialise()
        for part in self._parts.values():
            if not part.alive:
                part.launch()
        for part in self._parts.values():
            part.wait_until_ready()
        return self

    def close(self) -> None:
        """Leaves nothing behind."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        for part in self._parts.values():
            part.close()

    def part(self, service: str) -> ServerProcess:
        return self._parts[service]

    def database_url(self, service: str) -> str:
        template = self._databases or sqlite_url(self.data_dir / "db" / "{service}.sqlite")
        return template.replace("{service}", service)

    def another(self, service: str, root: Path) -> ServerProcess:
        """A further process of a service, on ports of its own; not yet started.

        Parameters:
            root: a folder for its ready file and its log.
        """
        ports = ("--port", "0", "--health-port", "0")
        return ServerProcess(root, [service, "--config", self.config, *ports], self._environment)

    @property
    def alive(self) -> bool:
        return bool(self._parts) and all(part.alive for part in self._parts.values())

    @property
    def channel(self) -> grpc.Channel:
        return self._routed

    def channel_to(self, service: str) -> grpc.Channel:
        return self._routed.to(service)

    @property
    def _routed(self) -> "_RoutedChannel":
        if self._channel is None:
            self._channel = _RoutedChannel(self._made["addresses"], Path(self._made["ca"]))
        return self._channel

    @property
    def output(self) -> str:
        return "".join(f"--- {name}\n{part.output}" for name, part in self._parts.items())

    @property
    def token_file(self) -> Path:
        return Path(self._made["token_file"])

    @property
    def token_key(self) -> Path:
        return self.data_dir / "keys" / "tokens.pem"

    @property
    def client_environment(self) -> Mapping[str, str]:
        return dict(self._made["environment"])

    @property
    def config(self) -> Path:
        """The file of all services' settings."""
        return Path(self._made["config"])

    def _initialise(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        options = ["--first-port", "0", "--database-url-template", self._databases]
        made = run("init", self.data_dir, *options, "--output", "json")
        self._made = json.loads(made)
        run("migrate", "--config", self.config)
        self._parts = {
            service: ServerProcess(self.root, [service, "--config", self.config], self._environment)
            for service in SERVICES
        }


class _RoutedChannel(grpc.Channel):
    """Sends each call to the service that its method belongs to."""

    def __init__(self, addresses: Mapping[str, str], ca: Path) -> None:
        credentials = grpc.ssl_channel_credentials(ca.read_bytes())
        # A process that comes back is found at once; otherwise only after gRPC's pauses.
        options = (("grpc.max_reconnect_backoff_ms", 200),)
        self._channels = {
            service: grpc.secure_channel(address, credentials, options)
            for service, address in addresses.items()
        }

    def unary_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return self._to(method).unary_unary(method, *args, **kwargs)

    def unary_stream(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return self._to(method).unary_stream(method, *args, **kwargs)

    def stream_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return self._to(method).stream_unary(method, *args, **kwargs)

    def stream_stream(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return self._to(method).stream_stream(method, *args, **kwargs)

    def subscribe(self, callback: Any, try_to_connect: bool = False) -> None:
        for channel in self._channels.values():
            channel.subscribe(callback, try_to_connect)

    def unsubscribe(self, callback: Any) -> None:
        for channel in self._channels.values():
            channel.unsubscribe(callback)

    def close(self) -> None:
        for channel in self._channels.values():
            channel.close()

    def __enter__(self) -> "_RoutedChannel":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def to(self, service: str) -> grpc.Channel:
        """The channel to a service."""
        return self._channels[service]

    def _to(self, method: str) -> grpc.Channel:
        package = method.removeprefix("/").split(".")[1]
        # OTLP, "/opentelemetry.proto.…", is Reporting's.
        return self._channels["reporting" if package == "proto" else package]


def run(*arguments: str | Path) -> str:
    """Runs a `gridlane-server` command to its end; returns what it printed."""
    done = subprocess.run(
        [COMMAND, *arguments],
        env=INHERITED,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
