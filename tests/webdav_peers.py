"""Real WebDAV servers on loopback: nginx, and XRootD with its third-party copy.

Responsible for starting them on a directory and for ending them; who wants them says in words why
they are not there.
"""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from certificates import Authority

_UP_S = 20.0
_XROOTD_LIBRARIES = "libXrdHttp-5.so"


@dataclass(frozen=True)
class Peer:
    """A running server: `root` is what it serves below `url`."""

    url: str
    root: Path


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
        yield Peer(f"http://127.0.0.1:{port}", root)


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
"""
    )
    user = "xrootd"
    for path in (folder, *folder.rglob("*")):
        shutil.chown(path, user)
    command = ["xrootd", "-c", str(configuration), "-l", str(folder / "log"), "-R", user]
    with _running(command, port):
        yield Peer(f"https://localhost:{port}/data", root)


def missing_xrootd() -> str:
    """Why XRootD cannot be run here; empty when it can."""
    if shutil.which("xrootd") is None:
        return "xrootd is not installed (Debian: xrootd-server, xrootd-server-plugins)"
    found = any(Path("/usr/lib").glob(f"*/{_XROOTD_LIBRARIES}"))
    return "" if found else "xrootd's HTTP plugin is not installed (Debian: xrootd-server-plugins)"


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
