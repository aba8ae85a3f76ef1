"""One connection to a storage: to a judged address, with the host's name for TLS.

Responsible for connecting, for a request's head and for an answer's; bodies are `client`'s. A
connection serves one request at a time and may be kept for the next.
"""

import contextlib
import http.client
import io
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Final

from gridlane_kit.version import VERSION
from gridlane_transfer.backends.embedded.webdav.addresses import (
    AddressPolicy,
    Resolved,
    address_of,
    resolve,
)
from gridlane_transfer.backends.embedded.webdav.options import HttpOptions
from gridlane_transfer.backends.embedded.webdav.troubles import Kind, TroubleError
from gridlane_transfer.backends.embedded.webdav.urls import Origin

_HEAD_LIMIT: Final = 1 << 16
_AGENT: Final = f"gridlane/{VERSION}"


class Connection:
    """An open connection.

    Parameters:
        origin: whom it speaks to.
        sock: connected; TLS is up where the origin wants it.
    """

    def __init__(self, origin: Origin, sock: socket.socket, idle_s: float) -> None:
        self.origin = origin
        self.used = False
        self.since_s = time.monotonic()
        self._sock = sock
        self._idle_s = idle_s
        self._heard = b""

    @classmethod
    def open(cls, origin: Origin, policy: AddressPolicy, options: HttpOptions) -> "Connection":
        """Connect to the first address of the host that may be reached and answers.

        Raises:
            TroubleError: no address may be reached or answers, or TLS fails.
        """
        sock = _connected(origin, policy, options)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if origin.scheme == "https":
                sock = context(options.ca_file).wrap_socket(sock, server_hostname=origin.host)
        except BaseException as error:
            sock.close()
            if isinstance(error, OSError):
                raise trouble(error) from error
            raise
        sock.settimeout(options.idle_s)
        return cls(origin, sock, options.idle_s)

    def send_head(self, method: str, target: str, headers: Mapping[str, str]) -> None:
        """Send a request's first line and headers."""
        lines = [f"{method} {target} HTTP/1.1", f"Host: {self.origin.authority}"]
        lines += [f"User-Agent: {_AGENT}", *(f"{name}: {text}" for name, text in headers.items())]
        if any(ord(char) < 32 or ord(char) == 127 for line in lines for char in line):
            raise TroubleError(Kind.PROTOCOL, "a control character is in the request")
        self.send("\r\n".join([*lines, "", ""]).encode("latin-1", "replace"))

    def send(self, data: bytes | memoryview) -> None:
        """Send bytes, all of them."""
        self.used = True
        self._sock.sendall(data)

    def goes_on(self, patience_s: float) -> bool:
        """Whether the body of a request that expects `100 Continue` is to be sent: True when the
        storage says so or says nothing for so long; False when it answered already.
        """
        head = b""
        limits = _HeadLimits(self._idle_s)
        self._sock.settimeout(patience_s)
        try:
            while not head.endswith(b"\r\n\r\n"):
                byte = self._sock.recv(1)
                if not byte:
                    raise TroubleError(Kind.BROKEN, "the connection ended before the answer")
                head += byte
                self._sock.settimeout(self._idle_s)
                limits.heard(1)
        except TimeoutError:
            if head:
                raise
            return True
        finally:
            self._sock.settimeout(self._idle_s)
        if head.split(b" ", 2)[1:2] == [b"100"]:
            return True
        self._heard = head
        return False

    def answer(self, method: str) -> http.client.HTTPResponse:
        """Wait for the answer's head."""
        heard = _Heard(self._heard, self._sock, _HeadLimits(self._idle_s))
        self._heard = b""
        # It wants no more of a socket than `makefile`.
        response = http.client.HTTPResponse(heard, method=method)  # type: ignore[arg-type]
        response.begin()
        heard.rest.limits = None
        return response

    @contextlib.contextmanager
    def hurried(self, patience_s: float) -> Iterator[None]:
        """Within the block, silence for so long is an error."""
        self._sock.settimeout(min(patience_s, self._idle_s))
        try:
            yield
        finally:
            self._sock.settimeout(self._idle_s)

    def shut(self) -> None:
        """Wake whoever waits for it in another thread."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End it."""
        self._sock.close()


class _HeadLimits:
    """How much an answer's head may be, and how long it may take from its first byte on, with all
    interim answers before it: a storage that drips, or never comes to an end, holds nobody.
    """

    def __init__(self, patience_s: float) -> None:
        self._left = _HEAD_LIMIT
        self._patience_s = patience_s
        self._until_s: float | None = None

    def heard(self, count: int) -> None:
        """So many bytes came.

        Raises:
            TroubleError: it is too much.
            TimeoutError: it takes too long.
        """
        now_s = time.monotonic()
        self._until_s = self._until_s or now_s + self._patience_s
        self._left -= count
        if self._left < 0:
            raise TroubleError(Kind.PROTOCOL, "the answer's head is too long")
        if now_s > self._until_s:
            raise TimeoutError


class _Heard:
    """A socket of which the first bytes were read already, in the shape that an answer reads."""

    def __init__(self, first: bytes, sock: socket.socket, limits: _HeadLimits) -> None:
        self.rest = _Rest(first, sock, limits)

    def makefile(self, mode: str) -> io.BufferedReader:
        """The bytes read, then those to come."""
        return io.BufferedReader(self.rest)


class _Rest(io.RawIOBase):
    """The bytes. `limits` holds for them as long as it is set."""

    def __init__(self, first: bytes, sock: socket.socket, limits: _HeadLimits) -> None:
        self.limits: _HeadLimits | None = limits
        self._first = first
        self._sock = sock

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        if not self._first:
            count = self._sock.recv_into(buffer)
            if self.limits is not None:
                self.limits.heard(count)
            return count
        count = min(len(buffer), len(self._first))
        buffer[:count] = self._first[:count]
        self._first = self._first[count:]
        return count


@lru_cache(maxsize=4)
def context(ca_file: str) -> ssl.SSLContext:
    """What TLS is judged by: certificates and host names always are."""
    made = ssl.create_default_context(cafile=ca_file or None)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    return made


def allowed_addresses(origin: Origin, policy: AddressPolicy) -> list[Resolved]:
    """The addresses of a host that may be reached; blocks.

    Raises:
        TroubleError: UNRESOLVED, FORBIDDEN_ADDRESS.
    """
    try:
        found = resolve(origin.host, origin.port)
    except (OSError, UnicodeError) as error:
        raise TroubleError(Kind.UNRESOLVED, f"{origin.host} has no address") from error
    refusals = [policy.refusal(one.address) for one in found]
    allowed = [one for one, refusal in zip(found, refusals, strict=True) if not refusal]
    if not allowed:
        detail = next((refusal for refusal in refusals if refusal), "no address")
        raise TroubleError(Kind.FORBIDDEN_ADDRESS, f"{origin.host}: {detail}")
    return allowed


def trouble(error: Exception) -> TroubleError:
    """What an error of a socket or of the protocol is."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return TroubleError(Kind.CERTIFICATE, error.verify_message)
    if isinstance(error, TimeoutError):
        return TroubleError(Kind.TIMED_OUT, "no answer in time")
    if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError):
        return TroubleError(Kind.TLS, error.reason or "TLS failed")
    if isinstance(error, OSError | http.client.IncompleteRead | http.client.RemoteDisconnected):
        return TroubleError(Kind.BROKEN, "the connection broke")
    return TroubleError(Kind.PROTOCOL, f"the answer is not HTTP ({type(error).__name__})")


def _connected(origin: Origin, policy: AddressPolicy, options: HttpOptions) -> socket.socket:
    """A connection to the first address that answers."""
    failure: OSError | None = None
    for one in allowed_addresses(origin, policy):
        sock = socket.socket(one.family, socket.SOCK_STREAM)
        sock.settimeout(options.connect_s)
        try:
            sock.connect(one.sockaddr)
            refusal = policy.refusal(address_of(str(sock.getpeername()[0])))
        except OSError as error:
            sock.close()
            failure = failure or error
            continue
        if refusal:
            sock.close()
            raise TroubleError(Kind.FORBIDDEN_ADDRESS, f"{origin.host}: {refusal}")
        return sock
    raise TroubleError(
        Kind.UNREACHABLE,
        f"{origin.shown}: {failure.strerror or 'no answer in time'}"
        if failure is not None
        else origin.shown,
    )
