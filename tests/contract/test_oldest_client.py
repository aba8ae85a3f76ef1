"""The client under the oldest protobuf and grpcio works against the newest server."""

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from workers import Told

CLIENT_PROGRAM = Path(__file__).with_name("oldest_client.py")
START_SECONDS = 60
# The key of option buf.validate.field (1159, length-delimited).
RULES_KEY = "ba48"

Oldest = Callable[..., dict[str, Any]]
AssertOlder = Callable[[dict[str, str]], None]


@pytest.fixture
def oldest(tools: Path, tmp_path: Path) -> Oldest:
    """Runs the client program under the oldest versions; gives what it printed."""

    def run_oldest(*arguments: str) -> dict[str, Any]:
        done = subprocess.run(
            [tools / "oldest/bin/python", CLIENT_PROGRAM, *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        printed: dict[str, Any] = json.loads(done.stdout)
        return printed

    return run_oldest


def wait_for(path: Path, server: subprocess.Popen[bytes], log: Path) -> dict[str, Any]:
    """What the server wrote to its ready file, once it serves."""
    deadline = time.monotonic() + START_SECONDS
    while not path.exists():
        assert server.poll() is None, f"the server ended: {log.read_text()}"
        assert time.monotonic() < deadline, f"the server does not serve: {log.read_text()}"
        time.sleep(0.05)  # another process writes the file; there is no event to await
    ready: dict[str, Any] = json.loads(path.read_text())
    return ready


@pytest.fixture
def server(bin_directory: Path, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """A real embedded server of this environment, and what its ready file says."""
    ready, log = tmp_path / "ready.json", tmp_path / "server.log"
    options = ["--data-dir", str(tmp_path / "data"), "--port", "0", "--ready-file", str(ready)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [bin_directory / "gridlane-server", "all", *options],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield wait_for(ready, process, log)
    finally:
        process.terminate()
        process.wait(timeout=30)


@pytest.fixture
def assert_older(tell: Told) -> AssertOlder:
    """Tells both sets of versions; the test would prove nothing if they were the same."""

    def assert_older(versions: dict[str, str]) -> None:
        newest = {name: version(name) for name in versions}
        for name, oldest_version in versions.items():
            tell("oldest client", [f"{name}: client {oldest_version}, server {newest[name]}"])
            assert oldest_version != newest[name], f"{name} is the same on both sides"

    return assert_older


def test_the_oldest_client_calls_the_newest_server(
    oldest: Oldest, server: dict[str, Any], assert_older: AssertOlder
) -> None:
    token = Path(server["token_file"]).read_text().strip()
    answer = oldest("call", server["address"], token)
    assert_older(answer["versions"])
    assert answer["subject"]
    assert {"authorization", "transfer", "workload", "reporting"} <= set(answer["reachable"])


def test_the_facade_works_under_the_oldest_versions(
    oldest: Oldest, server: dict[str, Any], assert_older: AssertOlder
) -> None:
    token = Path(server["token_file"]).read_text().strip()
    answer = oldest("facade", server["address"], token)
    assert_older(answer["versions"])
    assert (answer["log"], answer["unknown"]) == ("old", "NOT_FOUND")
    assert answer["states"][0] == answer["states"][1]
    assert answer["violations"] == ["job.description.inputs[0].path"]


def test_the_rules_stay_in_the_stubs_under_the_oldest_protobuf(
    oldest: Oldest, assert_older: AssertOlder
) -> None:
    answer = oldest("stubs")
    assert_older(answer["versions"])
    assert RULES_KEY in answer["options"]["name"]
