"""The `gridlane-server` command as operators meet it: starts, refusals, exit codes, output."""

import json
import os
import pty
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from support import COMMAND, EmbeddedServer


def health(server: EmbeddedServer) -> Any:
    with grpc.insecure_channel(server.health_address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        return stub.Check(health_pb2.HealthCheckRequest(), timeout=10).status


def test_a_ready_server_says_where_it_is_and_is_healthy(embedded_server: EmbeddedServer) -> None:
    assert health(embedded_server) == health_pb2.HealthCheckResponse.SERVING
    assert embedded_server.data_dir.is_dir()
    assert stat.S_IMODE(embedded_server.token_file.stat().st_mode) == 0o600


def test_the_token_s_path_is_printed_and_its_value_is_not(start_server: Any) -> None:
    server = start_server()
    deadline = time.monotonic() + 10
    while str(server.token_file) not in server.output:  # it serves before all is printed
        assert time.monotonic() < deadline, server.output
        time.sleep(0.02)
    assert server.token not in server.output


def test_a_server_collects_what_it_drops_before_it_waits_for_others() -> None:
    program = """
import asyncio, gc
from gridlane_server import command

class Server:
    def stop_on_signals(self):
        assert gc.isenabled()
        raise OSError("seen")

gc.disable()
assert asyncio.run(command.serve(Server, (), print)) == command.EX_UNAVAILABLE
assert gc.get_freeze_count() > 0
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_on_a_terminal_the_token_s_value_is_printed(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    ready = tmp_path / "ready.json"
    ports = ("--port", "0", "--health-port", "0")
    options: list[str | Path] = ["--data-dir", tmp_path / "data", *ports]
    process = subprocess.Popen(
        [COMMAND, "all", *options, "--ready-file", ready],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=subprocess.DEVNULL,
    )
    os.close(theirs)
    printed = b""
    guard = threading.Timer(60, process.kill)
    guard.start()
    try:
        while b"eyJ" not in printed and process.poll() is None:
            printed += os.read(ours, 65536)
    finally:
        guard.cancel()
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        os.close(ours)
    assert b"eyJ" in printed


def test_sigterm_ends_a_server_in_good_order(start_server: Any) -> None:
    server = start_server()
    assert server.stop() == 0
    assert not (server.root / "ready.json").exists()


def test_the_data_directory_says_where_its_server_serves_while_it_does(start_server: Any) -> None:
    server = start_server()
    file = server.data_dir / "server.json"
    assert json.loads(file.read_text())["address"] == server.address
    server.kill()
    first = server.address
    server.start()
    assert json.loads(file.read_text())["address"] == server.address != first
    server.stop()
    assert not file.exists()


def test_a_second_start_keeps_the_data_directory_and_renews_the_token(start_server: Any) -> None:
    server = start_server()
    key = (server.data_dir / "keys/authorization.pem").read_bytes()
    token = server.token
    server.stop()
    server.start()
    assert (server.data_dir / "keys/authorization.pem").read_bytes() == key
    assert server.token != token


def test_a_second_process_on_the_same_data_directory_is_told_to_try_elsewhere(
    embedded_server: EmbeddedServer, command: Any
) -> None:
    done = command("all", "--data-dir", embedded_server.data_dir, "--port", "0")
    assert done.returncode == 75
    assert str(embedded_server.data_dir) in done.stderr
    assert str(embedded_server.pid) in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_that_is_taken_is_named(command: Any, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        options = ("--data-dir", tmp_path / "data", "--port", port, "--health-port", 0)
        done = command("all", *options)
    assert done.returncode == 69
    assert str(port) in done.stderr
    assert "Traceback" not in done.stderr


def test_a_database_that_cannot_be_opened_is_all_that_is_told(command: Any, tmp_path: Path) -> None:
    database = tmp_path / "data/db/workload.sqlite"
    database.parent.mkdir(parents=True)
    database.write_text("not a database\n")
    ended = command("all", "--data-dir", tmp_path / "data", "--port", 0, "--health-port", 0)
    assert ended.returncode == 69
    assert str(database) in ended.stderr
    assert len(ended.stderr.splitlines()) == 1, ended.stderr


def test_a_broken_signing_key_is_named_with_the_cure(command: Any, tmp_path: Path) -> None:
    keys = tmp_path / "data" / "keys"
    keys.mkdir(parents=True)
    (keys / "authorization.pem").write_text("no key")
    done = command("all", "--data-dir", tmp_path / "data", "--port", 0, "--health-port", 0)
    assert done.returncode == 69
    assert str(keys / "authorization.pem") in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "environment", "named"),
    [
        (("all", "--port", "x"), {}, "--port"),
        (("authorization",), {}, "GRIDLANE_AUTHORIZATION_DATABASE_URL"),
        (("all",), {"GRIDLANE_SERVER_PORT": "many"}, "port"),
        (("all",), {"GRIDLANE_CONFIG": "/does/not/exist.toml"}, "/does/not/exist.toml"),
        (("config",), {"GRIDLANE_GATEWAY_PING_TIMEOUT_S": "-1"}, "ping_timeout_s"),
    ],
)
def test_a_wrong_usage_or_setting_is_named_and_ends_with_64(
    command: Any, tmp_path: Path, arguments: Any, environment: dict[str, str], named: str
) -> None:
    done = command(*arguments, GRIDLANE_DATA_DIR=str(tmp_path / "data"), **environment)
    assert done.returncode == 64
    assert named in done.stderr
    assert "Traceback" not in done.stderr


def test_an_address_beyond_this_machine_needs_tls(command: Any, tmp_path: Path) -> None:
    done = command("all", "--data-dir", tmp_path / "data", "--host", "0.0.0.0", "--port", 0)
    assert done.returncode == 64
    assert "not loopback" in done.stderr


def test_config_prints_what_is_in_force_from_every_source(command: Any, tmp_path: Path) -> None:
    file = tmp_path / "gridlane.toml"
    file.write_text('[server]\nport = 7001\n[authorization]\nlocal_user = "ada"\n')
    environment = {"GRIDLANE_CONFIG": str(file), "GRIDLANE_SERVER_PORT": "7002"}
    done = command("config", "--output", "json", **environment)
    shown = json.loads(done.stdout)
    assert shown["server"]["port"] == 7002
    assert shown["authorization"]["local_user"] == "ada"
    assert shown["data_dir"] == str(tmp_path / ".local/share/gridlane")
    text = command("config", **environment).stdout
    assert 'authorization.local_user = "ada"' in text.splitlines()


def test_migrate_makes_every_database_and_a_server_starts_on_them(
    command: Any, start_server: Any, tmp_path: Path
) -> None:
    data = tmp_path / "server-0" / "data"
    done = command("migrate", "--data-dir", data)
    assert done.returncode == 0, done.stderr
    names = {"authorization", "transfer", "workload", "reporting"}
    assert {file.stem for file in (data / "db").glob("*.sqlite")} == names
    assert start_server().data_dir == data


def test_the_version_is_that_of_the_distribution(command: Any) -> None:
    from importlib.metadata import version

    assert command("--version").stdout == f"gridlane-server {version('gridlane-services')}\n"


def test_failpoints_of_every_room_can_be_listed(command: Any) -> None:
    names = command("failpoints").stdout.split()
    rooms = {name.partition(".")[0] for name in names}
    assert rooms >= {"authorization", "transfer", "workload", "reporting"}
    assert names == sorted(set(names))
