"""A WebDAV storage on loopback, with real files and with faults as a test says.

Responsible for speaking as RFC 9110, RFC 4918 and WLCG's HTTP-TPC have it: ranges and conditions,
PUT, MOVE, MKCOL, DELETE, checksums (RFC 3230), and third-party COPY, in which it fetches or sends
the bytes itself. It is our own, since no other can be told to break in the middle; nginx and XRootD
are what the mover is shown against besides (`test_webdav_peers.py`).
"""

import base64
import hashlib
import http.client
import os
import shutil
import socket
import ssl
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

BLOCK = 1 << 16
_NO_LINGER = struct.pack("ii", 1, 0)


@dataclass
class Fault:
    """Something that goes wrong.

    Parameters:
        method: of the requests that meet it; `ends`: how their paths end.
        kind: "status", "redirect", "reset", "truncate", "stall", "unheard", "full",
            "wrong_digest", "copy_fails", "copy_unfinished" or "change".
        after: bytes of the body that still pass.
        times: how many requests meet it.
    """

    method: str
    kind: str
    ends: str = ""
    status: int = 500
    location: str = ""
    after: int = 0
    times: int = 1


@dataclass
class Heard:
    """A request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    status: int = 0


@dataclass
class Storage:
    """What a server has and how it behaves."""

    root: Path
    moves: bool = True
    digests: bool = True
    copies: bool = True
    etags: bool = True
    ranges: bool = True
    properties: bool = True
    conditions: bool = True
    unescapes: bool = True
    token: str = ""
    faults: list[Fault] = field(default_factory=list)
    heard: list[Heard] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    url: str = ""
    peers_ca: str | None = None
    after_put: Callable[[Path], None] = lambda path: None
    finished_copies: int = 0

    def count(self, method: str) -> int:
        """How many requests of a method came."""
        return sum(1 for one in self.heard if one.method == method)

    def path(self, name: str) -> Path:
        """Where a file of it lies."""
        return self.root / name

    def files(self) -> list[str]:
        """All files, below the root."""
        found = (path for path in self.root.rglob("*") if path.is_file())
        return sorted(str(path.relative_to(self.root)) for path in found)

    def due(self, method: str, path: str, *kinds: str) -> Fault | None:
        """The fault that a request meets, if it is of one of these kinds."""
        with self.lock:
            for fault in self.faults:
                fits = fault.method == method and path.endswith(fault.ends)
                if fits and fault.times > 0 and fault.kind in kinds:
                    fault.times -= 1
                    return fault
        return None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "_Server"

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @property
    def storage(self) -> Storage:
        return self.server.storage

    @property
    def file(self) -> Path:
        return self.storage.root / unquote(urlsplit(self.path).path).strip("/")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass

    def handle_expect_100(self) -> bool:
        return True  # said when the body is read

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        self._request.status = int(code)

    def parse_request(self) -> bool:
        if not super().parse_request():
            return False
        self._request = Heard(self.command, self.path, dict(self.headers.items()))
        self.storage.heard.append(self._request)
        return True

    def say(self, status: int, text: str = "", **headers: str) -> None:
        body = text.encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", "text/plain")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refused(self) -> bool:
        """Whether a request ended before it was begun."""
        token = self.storage.token
        if token and self.headers.get("Authorization") != f"Bearer {token}":
            self.close_connection = self.command == "PUT"
            self.say(401, "who are you?", WWW_Authenticate="Bearer")
            return True
        fault = self.storage.due(self.command, self.path, "status", "redirect")
        if fault is None:
            return False
        self.close_connection = self.command == "PUT"
        if fault.kind == "redirect":
            self.say(307, "", Location=fault.location)
        else:
            self.say(fault.status, "as the test says\r\n")
        return True

    def broken(self) -> None:
        """Reset the connection."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self.close_connection = True
        self.connection.close()

    # Reading

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        if self.refused():
            return
        if self.file.is_dir():
            self.say(200)
            return
        if not self.file.is_file():
            self.say(404)
            return
        etag = self.etag()
        if self.storage.conditions and self.headers.get("If-Match", etag) != etag:
            self.say(412)
            return
        size = self.file.stat().st_size
        start, stop = 0, size
        wanted = self.headers.get("Range", "")
        if wanted and self.storage.ranges:
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start, stop = int(first), min(int(last) + 1 if last else size, size)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{size}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(stop - start))
        if self.storage.ranges:
            self.send_header("Accept-Ranges", "bytes")
        if self.storage.etags:
            self.send_header("ETag", etag)
            modified = formatdate(self.file.stat().st_mtime, usegmt=True)
            self.send_header("Last-Modified", modified)
        if self.storage.digests and "Want-Digest" in self.headers:
            self.send_header("Digest", self.digest())
        self.end_headers()
        if self.command == "GET":
            self.pour(start, stop)

    def etag(self) -> str:
        known = self.file.stat()
        return f'"{known.st_ino}-{known.st_mtime_ns}-{known.st_size}"'

    def digest(self) -> str:
        content = self.file.read_bytes()
        if self.storage.due(self.command, self.path, "wrong_digest"):
            content += b"!"
        found = {
            "adler32": f"{zlib.adler32(content):08x}",
            "md5": base64.b64encode(hashlib.md5(content).digest()).decode(),  # noqa: S324
            "sha-256": base64.b64encode(hashlib.sha256(content).digest()).decode(),
        }
        names = self.headers["Want-Digest"].split(",")
        return ",".join(f"{name}={found[name]}" for name in names if name in found)

    def pour(self, start: int, stop: int) -> None:
        """Send bytes of the file, as far as no fault comes between."""
        fault = self.storage.due("GET", self.path, "reset", "truncate", "stall", "change")
        end = stop if fault is None else min(stop, start + fault.after)
        with self.file.open("rb") as file:
            file.seek(start)
            left = end - start
            while left and (data := file.read(min(left, BLOCK))):
                self.wfile.write(data)
                left -= len(data)
        if fault is None:
            return
        if fault.kind == "change":
            self.file.write_bytes(os.urandom(self.file.stat().st_size))
        if fault.kind == "stall":
            self.storage.released.wait(60)
        if fault.kind == "reset":
            self.broken()
        else:
            self.close_connection = True

    # Writing

    def do_PUT(self) -> None:
        if self.refused():
            return
        if not self.file.parent.is_dir():
            self.close_connection = True
            self.say(409, "no such directory")
            return
        if self.headers.get("If-None-Match") == "*" and self.file.exists():
            self.close_connection = True
            self.say(412)
            return
        if self.headers.get("Expect") == "100-continue":
            self.send_response_only(100)
            self.end_headers()
        fault = self.storage.due("PUT", self.path, "reset", "stall", "unheard", "full")
        with self.file.open("wb") as file:
            written = 0
            for data in self.body():
                file.write(data)
                written += len(data)
                if fault is not None and fault.kind != "unheard" and written >= fault.after:
                    break
        if fault is not None:
            self.failing(fault)
            return
        self.storage.after_put(self.file)
        self.say(201)

    def failing(self, fault: Fault) -> None:
        """End a PUT as a fault has it."""
        if fault.kind == "full":
            self.close_connection = True
            self.file.unlink()
            self.say(507, "no room")
            # Who closes at once may take its own answer back (RFC 9112, 9.6).
            while self.rfile.read(BLOCK):
                pass
            return
        if fault.kind == "stall":
            self.storage.released.wait(60)
        self.broken()

    def body(self) -> Iterator[bytes]:
        """The request's body."""
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return
        left = int(self.headers.get("Content-Length", "0"))
        while left and (data := self.rfile.read(min(left, BLOCK))):
            left -= len(data)
            yield data

    def do_MOVE(self) -> None:
        if self.refused():
            return
        target = self.storage.root / self.destination().strip("/")
        if not self.storage.moves:
            self.say(405)
        elif not self.file.is_file():
            self.say(404)
        elif self.headers.get("Overwrite") == "F" and target.exists():
            self.say(412)
        else:
            fault = self.storage.due("MOVE", self.path, "unheard", "reset")
            if target.is_dir():
                shutil.rmtree(target)
            if fault is None or fault.kind == "unheard":
                self.file.replace(target)
            if fault is not None:
                self.broken()
            else:
                self.say(201)

    def destination(self) -> str:
        """The path that MOVE is given, as this storage reads it."""
        given = self.headers["Destination"].encode("latin-1").decode()
        if self.storage.unescapes:
            return unquote(urlsplit(given).path)
        return given.partition("://")[2].partition("/")[2]

    def do_MKCOL(self) -> None:
        if self.refused():
            return
        try:
            self.file.mkdir()
        except FileExistsError:  # two may ask for it at once
            self.say(405)
        except (FileNotFoundError, NotADirectoryError):
            self.say(409)
        else:
            self.say(201)

    def do_PROPFIND(self) -> None:
        if self.refused():
            return
        if not self.storage.properties:
            self.say(405)
            return
        kind = "<D:collection/>" if self.file.is_dir() else ""
        self.say(
            207,
            '<?xml version="1.0"?><D:multistatus xmlns:D="DAV:"><D:response>'
            f"<D:href>{self.path}</D:href><D:propstat><D:prop><D:resourcetype>{kind}"
            "</D:resourcetype></D:prop></D:propstat></D:response></D:multistatus>",
        )

    def do_DELETE(self) -> None:
        if self.refused():
            return
        if self.file.is_dir():
            shutil.rmtree(self.file)
            self.say(204)
        elif not self.file.is_file():
            self.say(404)
        else:
            self.file.unlink()
            self.say(204)

    # Copies between storages

    def do_COPY(self) -> None:
        if self.refused():
            return
        source, destination = self.headers.get("Source"), self.headers.get("Destination")
        if not self.storage.copies or not (source or destination):
            self.say(400, "no such copy")
            return
        self.send_response(201)
        self.send_header("Transfer-Encoding", "chunked")
        self.send_header("Content-Type", "text/perf-marker-stream")
        self.end_headers()
        fault = self.storage.due("COPY", self.path, "copy_fails", "copy_unfinished", "stall")
        try:
            self.mark(0)
            if fault is not None and fault.kind == "copy_fails":
                raise OSError("the other side said 403")
            if fault is not None and fault.kind == "stall":
                self.file.write_bytes(b"half")
                self.storage.released.wait(60)
            if source:
                self.pull(source)
            else:
                self.push(destination or "")
            last = b"success: Created\n"
        except OSError as error:
            last = f"failure: {error}\n".encode()
        self.storage.finished_copies += 1
        if fault is None or fault.kind != "copy_unfinished":
            self.chunk(last)
        self.wfile.write(b"0\r\n\r\n")

    def mark(self, moved: int) -> None:
        """Tell how far a copy is."""
        marker = (
            "Perf Marker\n\tTimestamp: 1537788010\n\tStripe Index: 0\n"
            f"\tStripe Bytes Transferred: {moved}\n\tTotal Stripe Count: 1\nEnd\n"
        )
        self.chunk(marker.encode())

    def chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def other_headers(self) -> dict[str, str]:
        """What `TransferHeader...` asks to be sent to the other side."""
        return {
            name[len("TransferHeader") :]: value
            for name, value in self.headers.items()
            if name.startswith("TransferHeader")
        }

    def pull(self, source: str) -> None:
        with self.storage_of(source) as connection:
            connection.request("GET", urlsplit(source).path, headers=self.other_headers())
            answer = connection.getresponse()
            if answer.status != 200:
                raise OSError(f"the source said {answer.status}")
            moved = 0
            with self.file.open("wb") as file:
                while data := answer.read(BLOCK):
                    file.write(data)
                    moved += len(data)
                    self.mark(moved)

    def push(self, destination: str) -> None:
        with self.storage_of(destination) as connection, self.file.open("rb") as file:
            path = urlsplit(destination).path
            connection.request("PUT", path, body=file, headers=self.other_headers())
            answer = connection.getresponse()
            if answer.status not in (200, 201, 204):
                raise OSError(f"the target said {answer.status}")
            self.mark(self.file.stat().st_size)

    @contextmanager
    def storage_of(self, url: str) -> Iterator[http.client.HTTPConnection]:
        parts = urlsplit(url)
        connection: http.client.HTTPConnection
        if parts.scheme == "https":
            context = ssl.create_default_context(cafile=self.storage.peers_ca)
            connection = http.client.HTTPSConnection(parts.netloc, context=context, timeout=30)
        else:
            connection = http.client.HTTPConnection(parts.netloc, timeout=30)
        try:
            yield connection
        finally:
            connection.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    storage: Storage

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # a client that goes away is what some tests are about


@contextmanager
def serving(root: Path, tls: tuple[Path, Path] | None = None) -> Iterator[Storage]:
    """A storage that serves a directory until the block ends.

    Parameters:
        tls: certificate and key; then it speaks https.
    """
    root.mkdir(parents=True, exist_ok=True)
    server = _Server(("127.0.0.1", 0), _Handler)
    scheme, host = "http", "127.0.0.1"
    if tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*tls)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        scheme, host = "https", "localhost"
    storage = server.storage = Storage(root)
    storage.url = f"{scheme}://{host}:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), name="webdav")
    thread.start()
    try:
        yield storage
    finally:
        storage.released.set()
        server.shutdown()
        server.server_close()
        thread.join(10)
        shutil.rmtree(root, ignore_errors=True)
