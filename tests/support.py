"""A real embedded server for tests: the `gridlane-server` command as a child process.

Responsible for starting it on free ports and a data directory of its own, for waiting until it
serves, for ending it in any way a test wants, and for showing what it wrote when something went
wrong. Fixtures: `conftest`.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc

START_SECONDS = 45
STOP_SECONDS = 30
CALL_SECONDS = 20
COMMAND = Path(sys.executable).with_name("gridlane-server")
# Taken once: pytest changes the environment while threads start servers.
INHERITED = {k: v for k, v in os.environ.items() if not k.startswith("GRIDLANE_")}


class EmbeddedServer:
    """One `gridlane-server all`, which may be started again on the same data directory.

    Parameters:
        root: a folder for the data directory, the ready file and the log.
        environment: variables beside those of this process, without its own GRIDLANE_… ones.
        command: the server's program; this environment's unless another is given.
    """

    def __init__(
        self,
        root: Path,
        environment: Mapping[str, str] | None = None,
        command: Path = COMMAND,
    ) -> None:
        self._command = command
        self.root = root
        self.data_dir = root / "data"
        self.environment = dict(environment or {})
        self.port = 0
        """Where to serve at the next start; 0 for any free port."""
        self._ready_file = root / "ready.json"
        self._log = root / "server.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: grpc.Channel | None = None
        self._ready: dict[str, Any] = {}

    def start(self, environment: Mapping[str, str] | None = None) -> "EmbeddedServer":
        """Starts the process and waits until it serves.

        Parameters:
            environment: variables for this start only.
        """
        self.launch(environment)
        self.wait_until_ready()
        return self

    def launch(self, environment: Mapping[str, str] | None = None) -> None:
        """Starts the process without waiting: it may be meant to die on its way."""
        self._disconnect()
        self.root.mkdir(parents=True, exist_ok=True)
        self._ready_file.unlink(missing_ok=True)
        options = ["--data-dir", self.data_dir, "--port", str(self.port), "--health-port", "0"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [self._command, "all", *options, "--ready-file", self._ready_file],
                env={**INHERITED, **self.environment, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def wait_until_ready(self) -> None:
        """Waits for the ready file; fails with the server's output when it does not come."""
        deadline = time.monotonic() + START_SECONDS
        while not self._ready_file.exists():
            code = self._running.poll()
            assert code is None, f"the server ended with {code}:\n{self.output}"
            assert time.monotonic() < deadline, f"the server does not serve:\n{self.output}"
            time.sleep(0.02)  # another process writes the file; there is no event to await
        self._ready = json.loads(self._ready_file.read_text())

    def stop(self) -> int:
        """Asks for the end (SIGTERM) and returns the exit code; fails when it does not come."""
        self._disconnect()
        if self._running.poll() is None:
            self._running.send_signal(signal.SIGTERM)
        return self.wait_dead(STOP_SECONDS)

    def kill(self) -> None:
        """Ends the process with SIGKILL, wherever it stands."""
        self._disconnect()
        if self._running.poll() is None:
            self._running.kill()
        self._running.wait(STOP_SECONDS)

    def wait_dead(self, timeout_s: float = STOP_SECONDS) -> int:
        """Waits until the process has ended by itself; returns its exit code (-9: SIGKILL)."""
        try:
            return self._running.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the server did not end in time:\n{self.output}") from None

    def close(self) -> None:
        """Leaves nothing behind."""
        self._disconnect()
        if self._process is not None and self._process.poll() is None:
            self.kill()

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def address(self) -> str:
        """Where it serves, `host:port`."""
        return str(self._ready["address"])

    @property
    def health_address(self) -> str:
        """Where it answers about its health, `host:port`."""
        return str(self._ready["health_address"])

    @property
    def pid(self) -> int:
        """The server's process."""
        return int(self._ready["pid"])

    @property
    def token_file(self) -> Path:
        """The file with the local user's token."""
        return Path(self._ready["token_file"])

    @property
    def token(self) -> str:
        """The local user's token."""
        return self.token_file.read_text()

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What a call of the local user sends along."""
        return bearer(self.token)

    @property
    def channel(self) -> grpc.Channel:
        """A channel to the server, one for each start."""
        if self._channel is None:
            self._channel = grpc.insecure_channel(self.address)
        return self._channel

    @property
    def output(self) -> str:
        """Everything that was written to standard output and standard error, by all starts."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def call(self, method: Any, request: Any, *, token: str | None = None) -> Any:
        """Calls a method of a stub on `channel`, as the local user or with a token."""
        metadata = self.metadata if token is None else bearer(token)
        return method(request, metadata=metadata, timeout=CALL_SECONDS)

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "the server was not started"
        return self._process

    def _disconnect(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    """The metadata of a call with a token."""
    return (("authorization", f"Bearer {token}"),)
