"""The two shapes in which Gridlane runs, for the demo: all in one process, one process a service.

Responsible for starting them in a folder of their own, on free ports, and for stopping them. What
the demo does is the same on both. Everything that is started here is a command that an operator
could type; it is printed before it is run.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

BIN = Path(sys.executable).parent
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0
SERVICES = ("authorization", "transfer", "workload", "reporting", "gateway")
Environment = Mapping[str, str]


@contextmanager
def all_in_one(folder: Path) -> Iterator[Environment]:
    """An embedded server; yields what clients need to find it."""
    data = folder / "data"
    with ExitStack() as stack:
        options = ["--data-dir", str(data), "--port", "0", "--health-port", "0"]
        server = _Process(folder, "all", options)
        stack.callback(server.stop)
        ready = server.wait_until_ready()
        print(f"serving on {ready['address']} after {server.age_s:.1f} s; data in {data}")
        yield {"GRIDLANE_ADDRESS": ready["address"], "BEARER_TOKEN_FILE": ready["token_file"]}


@contextmanager
def one_process_a_service(folder: Path) -> Iterator[Environment]:
    """Five processes on PostgreSQL, which speak TLS with each other and with clients; yields what
    clients need to find them."""
    data = folder / "data"
    with ExitStack() as stack:
        databases = stack.enter_context(_postgresql())
        options = ["--first-port", "0", "--database-url-template", databases]
        made = json.loads(_run("init", str(data), *options, "--output", "json"))
        config = ["--config", made["config"]]
        _run("migrate", *config)
        servers = [_Process(folder, service, config) for service in SERVICES]
        for server in servers:
            stack.callback(server.stop)
        for server in servers:
            ready = server.wait_until_ready()
            print(f"{server.name} serves on {ready['address']} after {server.age_s:.1f} s")
        yield made["environment"]


SHAPES = {"all": all_in_one, "split": one_process_a_service}


class _Process:
    """A `gridlane-server` in the background, its output in a file beside."""

    def __init__(self, folder: Path, name: str, options: list[str]) -> None:
        self.name = name
        self._ready = folder / f"{name}.ready.json"
        self._ready.unlink(missing_ok=True)
        self._log = folder / f"{name}.log"
        self._begun = time.monotonic()
        command = [name, *options, "--ready-file", str(self._ready)]
        _show(command)
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [str(BIN / "gridlane-server"), *command],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def age_s(self) -> float:
        return time.monotonic() - self._begun

    def wait_until_ready(self) -> dict[str, Any]:
        while not self._ready.exists():
            if self._process.poll() is not None or self.age_s > START_TIMEOUT_S:
                sys.exit(f"{self.name} did not start:\n{self._log.read_text()}")
            time.sleep(0.05)
        found: dict[str, Any] = json.loads(self._ready.read_text())
        return found

    def stop(self) -> None:
        if kept():
            print(f"{self.name} is still up: process {self._process.pid}")
            return
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(timeout=STOP_TIMEOUT_S)


def kept() -> bool:
    """Whether everything is left up in the end (KEEP=1)."""
    return bool(os.environ.get("KEEP"))


@contextmanager
def _postgresql() -> Iterator[str]:
    """A PostgreSQL of the demo's own with one database a service; yields the template of their
    URLs."""
    # It looks for a folder that a machine without a desktop need not have, and says so.
    warnings.filterwarnings("ignore", message="XDG_RUNTIME_DIR is not set")
    from pgserver.postgres_server import get_server

    # Not below the demo's folder: started by root, it runs as a user who may not enter that.
    root = Path(tempfile.mkdtemp(prefix="gridlane-demo-"))
    root.chmod(0o755)
    server = get_server(root / "data", cleanup_mode=None if kept() else "stop")
    try:
        for service in SERVICES[:-1]:  # the gateway has none
            server.psql(f"CREATE DATABASE gridlane_{service}")
        uri: str = server.get_uri(database="gridlane_{service}")
        print(f"PostgreSQL runs in {root}")
        yield uri.replace("postgresql:", "postgresql+asyncpg:", 1)
    finally:
        if kept():
            print(f"PostgreSQL is still up: process {server.get_pid()}, in {root}")
        else:
            server.cleanup()
            shutil.rmtree(root, ignore_errors=True)


def _run(*command: str) -> str:
    """Runs `gridlane-server` to its end and returns what it printed."""
    _show(command)
    done = subprocess.run(
        [str(BIN / "gridlane-server"), *command], stdout=subprocess.PIPE, text=True
    )
    if done.returncode:
        sys.exit(done.returncode)
    return done.stdout


def _show(command: list[str] | tuple[str, ...]) -> None:
    print(f"$ gridlane-server {shlex.join(command)}", flush=True)
