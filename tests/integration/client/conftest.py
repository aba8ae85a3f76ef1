"""The command `gridlane` and the client, against the run's real embedded server."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support import EmbeddedServer

import gridlane
from gridlane.ids import uuid7

COMMAND = Path(sys.executable).with_name("gridlane")
COMMAND_SECONDS = 60
# A session takes the first terminal that it opens as the one that Ctrl-C comes from. No Python runs
# between fork and exec: gRPC's threads do not survive the fork.
_ON_TERMINAL = 'exec <"$0"; exec "$@"'


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Terminal:
    """A command on a terminal of its own, as a person has it."""

    def __init__(self, arguments: Sequence[str], environment: dict[str, str], folder: Path) -> None:
        self._master, slave = pty.openpty()
        # A test run in the background ignores Ctrl-C, and so would whatever it starts.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            self.process = subprocess.Popen(
                ["/bin/sh", "-c", _ON_TERMINAL, os.ttyname(slave), COMMAND, *arguments],
                stdin=slave,
                stdout=slave,
                stderr=slave,
                env={**environment, "TERM": "xterm-256color", "COLUMNS": "120"},
                cwd=folder,
                start_new_session=True,
            )
        finally:
            signal.signal(signal.SIGINT, before)
        os.close(slave)
        self.shown = ""

    def wait_for(self, text: str) -> None:
        """Waits until the terminal shows a text."""
        deadline = time.monotonic() + COMMAND_SECONDS
        while text not in self.shown:
            assert time.monotonic() < deadline, f"{text!r} was never shown:\n{self.shown}"
            assert self._read(), f"{text!r} was never shown, and the command ended:\n{self.shown}"

    def press(self, keys: bytes) -> None:
        """Types."""
        os.write(self._master, keys)

    def wait(self) -> int:
        """Waits for the end; returns the exit code."""
        while self._read():
            pass
        return self.process.wait(COMMAND_SECONDS)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._master)

    def _read(self) -> bool:
        ready, _, _ = select.select([self._master], [], [], COMMAND_SECONDS)
        try:
            piece = os.read(self._master, 65_536) if ready else b""
        except OSError:  # the other side is closed
            return False
        self.shown += piece.decode(errors="replace")
        return bool(piece)


@pytest.fixture
def environment(embedded_server: EmbeddedServer, tmp_path: Path) -> dict[str, str]:
    """The environment of a user of the server: nothing but the address and the token's place."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("GRIDLANE_", "BEARER_"))}
    return {
        **kept,
        "HOME": str(tmp_path),
        "GRIDLANE_ADDRESS": embedded_server.address,
        "BEARER_TOKEN_FILE": str(embedded_server.token_file),
    }


@pytest.fixture
def command(environment: dict[str, str], tmp_path: Path) -> Callable[..., Ended]:
    """Runs `gridlane` in a folder of the test's own; standard output and error are pipes."""

    def run(*arguments: str, env: dict[str, str] | None = None) -> Ended:
        done = subprocess.run(
            [COMMAND, *arguments],
            cwd=tmp_path,
            env={**environment, **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        assert "Traceback" not in done.stderr or "gridlane/cli" not in done.stderr, done.stderr
        return Ended(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def terminal(environment: dict[str, str], tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    """Runs `gridlane` on a terminal."""
    opened: list[Terminal] = []

    def run(*arguments: str) -> Terminal:
        opened.append(Terminal(arguments, environment, tmp_path))
        return opened[-1]

    yield run
    for made in opened:
        made.close()


@pytest.fixture
def client(embedded_server: EmbeddedServer) -> Iterator[gridlane.Client]:
    """A client of the local user's."""
    with gridlane.Client(embedded_server.address, token=embedded_server.token) as client:
        yield client


@pytest.fixture
def folder() -> str:
    """A folder in the store that no other test uses."""
    return f"LFN:/local/tests/{uuid7()}"
