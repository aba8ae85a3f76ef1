"""Storages that speak HTTP badly, by accident or on purpose: what they send is bounded, never
believed beyond what it says, and every attempt ends with a failure that has a class.
"""

import itertools
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from certificates import Authority
from mover_ground import CONTENT, LOOPBACK, Ground
from webdav_server import Fault, Storage, serving

from gridlane_transfer.backends.embedded.copying import temporary_name
from gridlane_transfer.backends.embedded.webdav.urls import RemotePlace, origin_of, same_domain
from gridlane_transfer.moving.failures import FailureClass

pytestmark = pytest.mark.timeout(60)

Script = Callable[[socket.socket, str], None]
HASTY = replace(LOOPBACK, idle_s=1)
OK = b"HTTP/1.1 200 OK\r\n"


@contextmanager
def speaking(script: Script) -> Iterator[str]:
    """A server that answers each request as a script says; its URL.

    Parameters:
        script: given the connection and the request's method; it is closed afterwards.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    stopped = threading.Event()

    def talk(sock: socket.socket) -> None:
        with sock, suppress(OSError):
            sock.settimeout(30)
            head = b""
            while not head.endswith(b"\r\n\r\n") and (byte := sock.recv(1)):
                head += byte
            script(sock, head.split(b" ", 1)[0].decode())

    def accept() -> None:
        while not stopped.is_set():
            with suppress(OSError):
                sock, _ = listener.accept()
                threading.Thread(target=talk, args=(sock,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        stopped.set()
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)


def saying(data: bytes) -> Script:
    return lambda sock, method: sock.sendall(data)


def for_ever(begin: bytes, again: bytes, every_s: float = 0.0) -> Script:
    """Sends for ever, or until nobody listens."""

    def script(sock: socket.socket, method: str) -> None:
        sock.sendall(begin)
        while True:
            sock.sendall(again)
            time.sleep(every_s)

    return script


def remote(url: str, name: str = "source") -> RemotePlace:
    return RemotePlace(f"{url}/{name}", url, f"{url}/{name}")


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: -5",
        b"Content-Length: 5, 7",
        b"Content-Length: five",
        b"Content-Length: " + b"9" * 5000,
        b"Content-Length: 99999999999999999999",
        b"Content-Length: 0x5",
        b"Content-Length: 5\r\nContent-Length: 7",
        b"Content-Range: bytes 0-" + b"9" * 5000 + b"/*",
        # It ends with the connection: whether all of it came, nobody knows.
        b"Connection: close",
        b"Content-Length: 5\r\nContent-Encoding: gzip",
    ],
)
def test_an_answer_that_does_not_say_how_long_it_is(ground: Ground, head: bytes) -> None:
    ground.options = HASTY
    with speaking(saying(OK + head + b"\r\n\r\nhello")) as url:
        failed = ground.failure(remote(url), ground.local("target"))
    assert failed.failure_class is FailureClass.BACKEND_REFUSED
    assert list(ground.folder.iterdir()) == []


@pytest.mark.parametrize(
    "body",
    [
        b"zz\r\nhello\r\n0\r\n\r\n",
        b"-5\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhel",
        b"5\r\nhello\r\n",
        b"5\r\nhello\r\n\r\n",
        b"ffffffffffffffffff\r\nhello",
        b"5" * 70_000,
        b"",
    ],
)
def test_a_chunked_body_that_is_none(ground: Ground, body: bytes) -> None:
    ground.options = HASTY
    head = b"Transfer-Encoding: chunked\r\n\r\n"
    with speaking(saying(OK + head + body)) as url:
        failed = ground.failure(remote(url), ground.local("target"))
    assert failed.failure_class in (FailureClass.BACKEND_LOST, FailureClass.BACKEND_REFUSED)
    assert list(ground.folder.iterdir()) == []


def test_a_chunked_body_is_fetched_whole(ground: Ground) -> None:
    body = b"5\r\nhello\r\n6;name=value\r\n world\r\n0\r\nTrailer: x\r\n\r\n"
    with speaking(saying(OK + b"Transfer-Encoding: chunked\r\n\r\n" + body)) as url:
        ground.copy(remote(url), ground.local("target"))
    assert (ground.folder / "target").read_bytes() == b"hello world"


ENDLESS = {
    "headers": for_ever(OK, b"X-More: y\r\n"),
    "a header": for_ever(OK + b"X-More: ", b"y" * 1000),
    "interim answers": for_ever(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "a drip of a head": for_ever(OK, b"X", every_s=0.2),
    "a drip of interim answers": for_ever(b"", b"HTTP/1.1 100 Continue\r\n\r\n", every_s=0.2),
    "a first line": for_ever(b"HTTP/1.1 200 ", b"y" * 1000),
    "nothing": lambda sock, method: time.sleep(20),
}


@pytest.mark.parametrize("what", ENDLESS)
def test_a_head_without_an_end_is_given_up(ground: Ground, what: str) -> None:
    ground.options = HASTY
    begun = time.monotonic()
    with speaking(ENDLESS[what]) as url:
        failed = ground.failure(remote(url), ground.local("target"))
        assert failed.failure_class in (
            FailureClass.BACKEND_REFUSED,
            FailureClass.BACKEND_LOST,
            FailureClass.TIMED_OUT,
        )
        failed = ground.failure(ground.put(), remote(url, "target"))
        assert failed.failure_class is not FailureClass.INTERNAL
    assert time.monotonic() - begun < 30
    assert [path.name for path in ground.folder.iterdir()] == ["source"]


def test_a_refusal_that_drips_is_not_heard_out(ground: Ground) -> None:
    ground.options = replace(LOOPBACK, idle_s=20)
    head = b"HTTP/1.1 403 No\r\nContent-Type: text/plain\r\nContent-Length: 60000\r\n\r\n"
    begun = time.monotonic()
    with speaking(for_ever(head, b"n", every_s=0.2)) as url:
        failed = ground.failure(remote(url), ground.local("target"))
    assert failed.failure_class is FailureClass.SOURCE_UNREADABLE
    assert time.monotonic() - begun < 15


@pytest.mark.parametrize(
    "location",
    ["http://[::1", "http://[nonsense]/x", "http://127.0.0.1:port/", "http://127.0.0.1:0/",
     "http://127.0.0.1:65536/", "https://\\127.0.0.1/x", "http://127.0.0.1@0x7f.1/x"],
)  # fmt: skip
def test_a_redirect_to_nowhere(ground: Ground, location: str) -> None:
    ground.a.faults = [Fault("GET", "redirect", location=location)]
    failed = ground.failure(ground.have(ground.a), ground.local("target"))
    assert failed.failure_class is FailureClass.BACKEND_REFUSED
    assert list(ground.folder.iterdir()) == []


MARKERS = {
    "a number of bytes that has no room": b"Stripe Index: 0\nStripe Bytes Transferred: %s\n"
    % (b"9" * 4000),
    "more bytes than there are": b"Stripe Index: 0\nStripe Bytes Transferred: 999999999999\n",
    "digits of another script": "Stripe Bytes Transferred: \u0661\u0662\n".encode(),
    "no word that is known": b"\xff\xfe nonsense\n",
}


@pytest.mark.parametrize("what", MARKERS)
def test_markers_for_ever_are_no_progress(ground: Ground, what: str) -> None:
    """The bytes pass the mover then."""
    ground.options = HASTY
    source = ground.have(ground.a)
    answer = b"HTTP/1.1 202 Accepted\r\nConnection: close\r\n\r\n"
    begun = time.monotonic()
    with speaking(for_ever(answer, MARKERS[what], every_s=0.05)) as url:
        host = url.removeprefix("http://")
        ground.a.faults = [Fault("COPY", "redirect", location=f"http://{host}/x", times=9)]
        ground.b.faults = [Fault("COPY", "redirect", location=f"http://{host}/x", times=9)]
        ground.copy(source, ground.remote(ground.b, "target"))
    assert ground.b.path("target").read_bytes() == CONTENT
    assert max(ground.control.totals) <= len(CONTENT)
    assert time.monotonic() - begun < 30


def test_stripes_without_end_are_few(ground: Ground) -> None:
    ground.options = HASTY
    source = ground.have(ground.a)

    def script(sock: socket.socket, method: str) -> None:
        sock.sendall(b"HTTP/1.1 202 Accepted\r\nConnection: close\r\n\r\n")
        for index in itertools.count():
            sock.sendall(b"Stripe Index: %d\nStripe Bytes Transferred: 1000000\n" % index)

    with speaking(script) as url:
        for storage in (ground.a, ground.b):
            storage.faults = [Fault("COPY", "redirect", location=f"{url}/x", times=9)]
        ground.copy(source, ground.remote(ground.b, "target"))
    assert ground.b.path("target").read_bytes() == CONTENT
    assert max(ground.control.totals) <= len(CONTENT)


def test_a_storage_that_tells_a_wrong_checksum_is_not_believed(ground: Ground) -> None:
    """Of what it was given, and of what it gives."""
    ground.a.faults = [Fault("HEAD", "wrong_digest", ends=".part", times=9)]
    failed = ground.failure(ground.put(), ground.remote(ground.a, "target"))
    assert failed.failure_class is FailureClass.CHECKSUM_MISMATCH
    assert ground.a.files() == []
    source = ground.have(ground.a)
    ground.a.faults = [Fault("HEAD", "wrong_digest", times=9)]
    failed = ground.failure(source, ground.remote(ground.b, "target"))
    assert failed.failure_class is FailureClass.CHECKSUM_MISMATCH
    assert ground.b.files() == []


def test_what_is_lent_to_a_storage_goes_no_further(ground: Ground, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("a-secret")
    ground.options = replace(LOOPBACK, token_files={ground.a.url: str(token)})
    ground.a.token = "a-secret"
    port = ground.b.url.rpartition(":")[2]
    for host, lent in (("localhost", False), ("127.0.0.1", True)):
        ground.b.heard.clear()
        location = f"http://{host}:{port}/{temporary_name(7, 3)}"
        ground.b.faults = [Fault("COPY", "redirect", location=location)]
        ground.copy(ground.have(ground.a), ground.remote(ground.b, f"target-{host}"))
        first, second = [one for one in ground.b.heard if one.method == "COPY"][:2]
        assert first.headers["TransferHeaderAuthorization"] == "Bearer a-secret"
        assert ("TransferHeaderAuthorization" in second.headers) is lent
        assert ground.b.path(f"target-{host}").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("se.example.org", "se.example.org", True),
        ("head.example.org", "pool-7.example.org", True),
        ("head.example.org", "head.example.com", False),
        ("example.org", "evil.org", False),
        ("se.example.org", "example.org", False),
        ("192.0.2.1", "198.0.2.1", False),
        ("[2001:db8::1]", "[2001:db8::2]", False),
        ("localhost", "127.0.0.1", False),
    ],
)
def test_a_storage_and_the_machines_it_is_made_of(one: str, other: str, same: bool) -> None:
    assert same_domain(origin_of(f"https://{one}/"), origin_of(f"https://{other}:1/")) is same


@pytest.fixture
def secure(tmp_path: Path) -> Iterator[Storage]:
    """A storage with https."""
    authority = Authority()
    roots = authority.write_roots(tmp_path / "roots.pem")
    with serving(tmp_path / "secure", authority.write_pair(tmp_path, "storage")) as storage:
        storage.peers_ca = str(roots)
        yield storage


def test_a_token_is_not_lent_in_the_clear(ground: Ground, secure: Storage, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("a-secret")
    secure.token = "a-secret"
    ground.options = replace(
        LOOPBACK, ca_file=secure.peers_ca or "", token_files={secure.url: str(token)}
    )
    ground.copy(ground.have(secure), ground.remote(ground.b, "target"))
    assert ground.b.path("target").read_bytes() == CONTENT
    assert all("a-secret" not in str(one.headers) for one in ground.b.heard)


@pytest.mark.parametrize("wrong", ["host", "ended", "authority"])
def test_a_storage_that_cannot_show_who_it_is_gets_no_request(
    ground: Ground, tmp_path: Path, wrong: str
) -> None:
    known, other = Authority(), Authority("other")
    roots = known.write_roots(tmp_path / "roots.pem")
    host = "elsewhere.example.org" if wrong == "host" else "localhost"
    signer = other if wrong == "authority" else known
    pair = signer.write_pair(tmp_path, "storage", host=host, ended=wrong == "ended")
    token = tmp_path / "token"
    token.write_text("a-secret")
    with serving(tmp_path / "secure", pair) as storage:
        ground.options = replace(
            LOOPBACK, ca_file=str(roots), token_files={storage.url: str(token)}
        )
        for source, target in (
            (ground.have(storage), ground.local("target")),
            (ground.put(), ground.remote(storage, "target")),
            (ground.have(storage), ground.remote(ground.b, "target")),
        ):
            failed = ground.failure(source, target)
            assert failed.failure_class is FailureClass.BACKEND_REFUSED
            assert "certificate" in failed.message
            assert failed.cure
            assert not failed.recoverable
        assert storage.heard == []


def test_proxies_of_the_environment_are_not_used(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, ground.a.url)
        monkeypatch.setenv(name.upper(), ground.a.url)
    ground.copy(ground.have(ground.b), ground.local("target"))
    ground.copy(ground.put(), ground.remote(ground.b, "target"))
    assert ground.a.heard == []
    assert os.environ["http_proxy"] == ground.a.url
