"""Real WebDAV servers on loopback: nginx, and XRootD with its third-party copy.

Responsible for starting them on a directory and for ending them, and for what is done where they
cannot run: a test is skipped and says why; in CI it fails.

XRootD listens on every address of its machine, so that it runs in a network namespace that has
loopback alone; the tests that speak with it run there too, in a pytest of their own (`inside`).
"""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from certificates import Authority

_UP_S = 20.0
XROOTD_USER = "xrootd"
_XROOTD_LIBRARIES = ("libXrdHttp-5.so", "libXrdHttpTPC-5.so")
_INSIDE = "GRIDLANE_TEST_IN_NAMESPACE"
_INSIDE_S = 400
_passed: Final = re.compile(r"\b([0-9]+) passed").search
in_ci = bool(os.environ.get("CI"))

inside = pytest.mark.skipif(
    _INSIDE not in os.environ, reason="run inside, by the test that says so"
)
"""Tests that speak with XRootD."""
outside = pytest.mark.skipif(_INSIDE in os.environ, reason="it is what starts the others")
"""The test that runs them."""


@dataclass(frozen=True)
class Peer:
    """A running server.

    Parameters:
        root: what it serves below `url`.
        log: what it tells of what it does; XRootD's tells of third-party copies.
    """

    url: str
    root: Path
    log: Path


@contextmanager
def nginx(folder: Path, *, moves: bool = True) -> Iterator[Peer]:
    """nginx with its WebDAV module.

    Parameters:
        moves: whether it knows MOVE.
    """
    root, port = folder / "data", _free_port()
    root.mkdir(parents=True)
    methods = "PUT DELETE MKCOL COPY MOVE" if moves else "PUT DELETE MKCOL"
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    configuration = folder / "nginx.conf"
    configuration.write_text(
        f"""
daemon off;
master_process off;
worker_processes 1;
pid {folder}/pid;
error_log {folder}/error.log;
events {{ worker_connections 128; }}
http {{
    access_log {folder}/access.log;
    {temporary}
    client_max_body_size 0;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            root {root};
            dav_methods {methods};
        }}
    }}
}}
"""
    )
    with _running(["nginx", "-p", str(folder), "-c", str(configuration)], port):
        yield Peer(f"http://127.0.0.1:{port}", root, folder / "access.log")


@contextmanager
def xrootd(folder: Path, authority: Authority) -> Iterator[Peer]:
    """XRootD over https, with third-party copy and ADLER32; it runs as its package's user and
    listens on every address, so that it wants a network namespace of its own.
    """
    root, port = folder / "root/data", _free_port()
    root.mkdir(parents=True)
    certificate, key = authority.write_pair(folder, "xrootd")
    key.chmod(0o600)
    roots = authority.write_roots(folder / "roots.pem")
    configuration = folder / "xrootd.cfg"
    configuration.write_text(
        f"""
all.adminpath {folder}/admin
all.pidpath {folder}/admin
all.export /data
oss.localroot {folder}/root
xrd.port {port}
xrd.network nodnr
xrd.tls {certificate} {key}
xrd.tlsca certfile {roots}
xrd.protocol XrdHttp:{port} libXrdHttp.so
http.cert {certificate}
http.key {key}
http.cafile {roots}
http.exthandler xrdtpc libXrdHttpTPC.so
xrootd.chksum max 2 adler32
tpc.trace info
"""
    )
    user = XROOTD_USER
    for path in (folder, *folder.rglob("*")):
        shutil.chown(path, user)
    command = ["xrootd", "-c", str(configuration), "-l", str(folder / "log"), "-R", user]
    with _running(command, port):
        yield Peer(f"https://localhost:{port}/data", root, folder / "log")


def require_nginx() -> None:
    """Skips a test where nginx cannot be run; fails it in CI."""
    if shutil.which("nginx") is None:
        _do_without("nginx is not installed (Debian: nginx-light)")


def require_xrootd() -> None:
    """Skips a test where XRootD cannot be run; fails it in CI."""
    if shutil.which("xrootd") is None:
        _do_without("xrootd is not installed (Debian: xrootd-server, xrootd-server-plugins)")
    if not all(any(Path("/usr/lib").glob(f"*/{name}")) for name in _XROOTD_LIBRARIES):
        _do_without("xrootd's HTTP plugins are not installed (Debian: xrootd-server-plugins)")
    if os.geteuid() != 0:
        _do_without("only root can start xrootd as its own user, alone in a network")


def run_inside(file: str, tests: int) -> None:
    """Runs the tests of a file that are marked `inside`, where XRootD is alone in its network.

    Where no network namespace can be made, as in some containers: in CI in this network, which is
    there for nothing else; elsewhere the test is skipped.

    Parameters:
        tests: how many there are at least.
    """
    run = f"exec {sys.executable} -m pytest -q -p no:cacheprovider {file} -m long -k inside"
    command = ["unshare", "-n", "sh", "-c", f"ip link set lo up && {run}"]
    why = _missing_namespace()
    if why:
        if not in_ci:
            pytest.skip(why)
        command = ["sh", "-c", run]
    done = subprocess.run(
        command,
        env={**os.environ, _INSIDE: "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=_INSIDE_S,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
    passed = _passed(done.stdout)
    count = 0 if passed is None else int(passed[1])
    assert count >= tests, done.stdout[-4000:]


def _missing_namespace() -> str:
    """Why no network namespace can be made here; empty when one can."""
    make = ["unshare", "-n", "ip", "link", "set", "lo", "up"]
    try:
        done = subprocess.run(make, capture_output=True, text=True, check=False, timeout=20)
    except FileNotFoundError as error:
        return f"{error.filename} is not installed (Debian: util-linux)"
    return f"no network namespace can be made here: {done.stderr}" if done.returncode else ""


def _do_without(why: str) -> None:
    if in_ci:
        pytest.fail(why)
    pytest.skip(why)


@contextmanager
def _running(command: Sequence[str], port: int) -> Iterator[None]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline_s = time.monotonic() + _UP_S
        while not _answers(port):
            if process.poll() is not None or time.monotonic() > deadline_s:
                raise RuntimeError(f"{command[0]} did not come up")
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


def _answers(port: int) -> bool:
    with socket.socket() as sock:
        sock.settimeout(1)
        return sock.connect_ex(("127.0.0.1", port)) == 0


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
