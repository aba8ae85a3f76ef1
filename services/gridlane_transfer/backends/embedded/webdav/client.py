"""Requests to storages: redirects, credentials, kept connections, and the end on demand.

Responsible for who is spoken to and with which credential. A token belongs to an origin and is sent
to no other, so that a redirect never carries it away. What a storage is shown to act with elsewhere
(`TransferHeaderAuthorization`) goes along to its own machines, of the same domain, and no further.
A redirect's host is judged like any other; none leads from `https` to `http`.
"""

import http.client
import re
import ssl
import time
from collections import defaultdict
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from threading import Lock
from typing import Final

from gridlane_transfer.backends.embedded.webdav.addresses import AddressPolicy
from gridlane_transfer.backends.embedded.webdav.connections import Connection, trouble
from gridlane_transfer.backends.embedded.webdav.options import HttpOptions
from gridlane_transfer.backends.embedded.webdav.troubles import (
    HttpError,
    Kind,
    StatusError,
    TroubleError,
)
from gridlane_transfer.backends.embedded.webdav.urls import (
    Origin,
    on_the_wire,
    origin_of,
    redirected,
    same_domain,
    target_of,
)
from gridlane_transfer.backends.embedded.webdav.waking import Part, Waker
from gridlane_transfer.moving.failures import MoveError, canceled

_KEEP_S: Final = 20.0
_KEEP_PER_ORIGIN: Final = 8
_EXPECT_S: Final = 1.0
_REDIRECTS: Final = frozenset({301, 302, 307, 308})
_DETAIL_CHARS: Final = 200
_DRAIN_BYTES: Final = 1 << 16
# What one read asks for: so much is allocated for it, whatever comes.
_READ_BYTES: Final = 1 << 18
# How long small pieces are gathered before they are handed on.
_GATHER_S: Final = 0.1
# How long an answer that nobody waits for is heard out.
_HURRY_S: Final = 1.0
_LENT: Final = "TransferHeaderAuthorization"
_number: Final = re.compile(r"[0-9]{1,18}").fullmatch
_NO_HEADERS: Final[Mapping[str, str]] = {}
_CLOSED: Final = (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError)
_WIRE_ERRORS: Final = (OSError, http.client.HTTPException)


class Client:
    """Connections of one process; used by all its threads."""

    def __init__(self, options: HttpOptions) -> None:
        self.options = options
        self.policy = AddressPolicy(options.allowed_networks)
        self._tokens = {
            origin_of(origin): Path(path) for origin, path in options.token_files.items()
        }
        self._lock = Lock()
        self._idle: defaultdict[Origin, list[Connection]] = defaultdict(list)

    def token(self, origin: Origin) -> str:
        """The token that an origin is shown; empty when it is shown none.

        Raises:
            TroubleError: the file cannot be read.
        """
        path = self._tokens.get(origin)
        if path is None:
            return ""
        try:
            return path.read_text().strip()
        except OSError as error:
            raise TroubleError(
                Kind.PROTOCOL, f"the token file of {origin.shown} cannot be read"
            ) from error

    def take(self, origin: Origin) -> Connection:
        """A kept connection or a new one."""
        with self._lock:
            kept = self._idle[origin]
            while kept:
                connection = kept.pop()
                if time.monotonic() - connection.since_s < _KEEP_S:
                    return connection
                connection.close()
        return Connection.open(origin, self.policy, self.options)

    def give_back(self, connection: Connection) -> None:
        """Keep a connection for the next request."""
        connection.since_s = time.monotonic()
        with self._lock:
            kept = self._idle[connection.origin]
            if len(kept) < _KEEP_PER_ORIGIN:
                kept.append(connection)
                return
        connection.close()


class Answer:
    """An answer whose head is there; `close` it. `url` is where it came from after redirects."""

    def __init__(
        self,
        session: "Session",
        connection: Connection,
        response: http.client.HTTPResponse,
        url: str,
        watch: AbstractContextManager[None],
    ) -> None:
        self.status = response.status
        self.url = url
        self._session = session
        self._connection = connection
        self._response = response
        self._watch = watch
        self._open = True
        self._broken: Exception | None = None

    def header(self, name: str) -> str:
        """A header's value, of several all; empty when there is none."""
        return ", ".join(self._response.headers.get_all(name, []))

    def length(self) -> int | None:
        """What `Content-Length` says; None when it says nothing (RFC 9112, 6.3).

        Raises:
            TroubleError: it is no number of bytes.
        """
        text = "" if self._response.chunked else self.header("Content-Length")
        if text and not _number(text):
            raise TroubleError(Kind.PROTOCOL, "Content-Length is no number")
        return int(text) if text else None

    @property
    def delimited(self) -> bool:
        """Whether the body says where it ends: one that ends with its connection may be cut off
        unseen.
        """
        return self._response.chunked or self._response.length is not None

    def read_some(self, block: memoryview) -> int:
        """Fill a block, or as much of it as came by now; 0 at the end.

        Raises:
            TroubleError: the connection broke or is silent.
        """
        if self._broken is not None:
            raise self._session.ended(self._broken) from self._broken
        filled, begun_s = 0, time.monotonic()
        try:
            while filled < len(block):
                data = self._response.read1(min(len(block) - filled, _READ_BYTES))
                if not data:
                    break
                block[filled : filled + len(data)] = data
                filled += len(data)
                if time.monotonic() - begun_s > _GATHER_S:
                    break
        except _WIRE_ERRORS as error:
            if filled:
                # Said by the next call: asked again, `http.client` would take it for the end.
                self._broken = error
                return filled
            raise self._session.ended(error) from error
        return filled

    def line(self, limit: int) -> str:
        """The next line without its end; raises EOFError at the end."""
        try:
            found = self._response.readline(limit)
        except _WIRE_ERRORS as error:
            raise self._session.ended(error) from error
        if not found:
            raise EOFError
        return found.decode("utf-8", "replace").rstrip("\r\n")

    def detail(self) -> str:
        """The reason and the beginning of the body, for people."""
        body = self._hurried(_DETAIL_CHARS * 4)
        kind = self.header("Content-Type") or "text/plain"
        text = body.decode("utf-8", "replace") if kind.startswith("text/plain") else ""
        return plain(f"{self._response.reason} {text}")

    def close(self) -> None:
        """Keep the connection if nothing more comes on it, else end it."""
        if not self._open:
            return
        self._open = False
        self._watch.__exit__(None, None, None)
        response = self._response
        if self.delimited and (response.length or 0) <= _DRAIN_BYTES:
            self._hurried(_DRAIN_BYTES)
        keeps = response.isclosed() and not response.will_close
        response.close()
        if keeps and not self._session.stopped():
            self._session.client.give_back(self._connection)
        else:
            self._connection.close()

    def _hurried(self, count: int) -> bytes:
        """At most so many bytes of the body, as far as they come soon."""
        response, found, until_s = self._response, b"", time.monotonic() + _HURRY_S
        try:
            with self._connection.hurried(_HURRY_S):
                while len(found) < count and time.monotonic() < until_s:
                    data = b"" if response.isclosed() else response.read1(count - len(found))
                    if not data:
                        break
                    found += data
        except _WIRE_ERRORS:
            pass  # the connection is of no more use, and is not kept
        return found

    def abort(self) -> None:
        """End the connection, whatever is still to come."""
        if self._open:
            self._open = False
            self._watch.__exit__(None, None, None)
            self._response.close()
            self._connection.close()

    def __enter__(self) -> "Answer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Session:
    """Requests on behalf of one piece of work.

    Parameters:
        headers: sent with each.
    """

    def __init__(
        self, client: Client, waker: Waker, headers: Mapping[str, str] = _NO_HEADERS
    ) -> None:
        self.client = client
        self._waker = waker
        self._headers = headers

    def stopped(self) -> bool:
        """Whether the work is to end."""
        return self._waker.stopped()

    def part(self) -> "tuple[Session, Part]":
        """Requests for a part of the work, which can be ended by itself."""
        part = Part(self._waker)
        return Session(self.client, part, self._headers), part

    def ended(self, error: Exception) -> Exception:
        """What an error of a connection is: the end that was asked for, or a trouble."""
        return MoveError(canceled()) if self.stopped() else trouble(error)

    def ask(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        *,
        good: frozenset[int],
    ) -> Answer:
        """Send a request without a body.

        Parameters:
            good: statuses that are returned; every other one is raised.

        Raises:
            StatusError: the storage says no.
            TroubleError: it gives no answer that can be used.
            MoveError: CANCELED.
        """
        head = dict(headers or {})
        if method in ("MKCOL", "COPY", "MOVE", "PROPFIND"):
            head.setdefault("Content-Length", "0")
        at = on_the_wire(url)
        for _ in range(self.client.options.max_redirects + 1):
            answer = self._asked(method, at, head)
            if answer.status in good:
                return answer
            before, at = at, self._followed(answer, at)
            if not same_domain(origin_of(before), origin_of(at)):
                head.pop(_LENT, None)
        raise TroubleError(Kind.REDIRECT, "too many redirects")

    def upload(self, url: str, headers: Mapping[str, str], size: int | None) -> "Upload":
        """Begin a PUT; redirects are followed before the first byte of the body is sent.

        Parameters:
            size: the body's; None when it is not known.
        """
        length = {"Transfer-Encoding": "chunked"} if size is None else {"Content-Length": str(size)}
        head = {**headers, **length, "Expect": "100-continue"}
        at = on_the_wire(url)
        for _ in range(self.client.options.max_redirects + 1):
            begun = self._begun("PUT", at, head)
            if not isinstance(begun, Answer):
                connection, watch = begun
                return Upload(self, connection, watch, at, size)
            if begun.status < 300:
                begun.abort()
                raise TroubleError(Kind.PROTOCOL, "it answered before it had the file")
            at = self._followed(begun, at)
        raise TroubleError(Kind.REDIRECT, "too many redirects")

    def answer(
        self, connection: Connection, watch: AbstractContextManager[None], method: str, url: str
    ) -> Answer:
        """Wait for an answer."""
        try:
            return Answer(self, connection, connection.answer(method), url, watch)
        except BaseException:
            watch.__exit__(None, None, None)
            connection.close()
            raise

    def _followed(self, answer: Answer, at: str) -> str:
        """Where a redirect leads; any other answer is raised."""
        status, location = answer.status, answer.header("Location")
        if status not in _REDIRECTS or not location:
            detail = answer.detail()
            answer.close()
            raise StatusError(status, detail)
        answer.close()
        try:
            following = redirected(at, location)
            origin = origin_of(following)
        except ValueError as error:
            raise TroubleError(Kind.REDIRECT, f"a redirect to what is no URL: {error}") from error
        if at.startswith("https:") and origin.scheme != "https":
            raise TroubleError(Kind.REDIRECT, "a redirect from https to http")
        return following

    def _asked(self, method: str, url: str, headers: Mapping[str, str]) -> Answer:
        while True:
            if self.stopped():
                raise MoveError(canceled())
            connection, watch = self._open(url)
            kept = connection.used
            try:
                connection.send_head(method, target_of(url), self._with_token(url, headers))
                return self.answer(connection, watch, method, url)
            except _WIRE_ERRORS as error:
                self._let_go(connection, watch)
                # A kept connection that the storage has closed meanwhile: it did not hear us.
                if kept and isinstance(error, _CLOSED):
                    continue
                raise self.ended(error) from error
            except HttpError:
                self._let_go(connection, watch)
                raise

    def _begun(
        self, method: str, url: str, headers: Mapping[str, str]
    ) -> Answer | tuple[Connection, AbstractContextManager[None]]:
        """Send the head of a request with a body: the answer if it came already, else where the
        body goes.
        """
        while True:
            if self.stopped():
                raise MoveError(canceled())
            connection, watch = self._open(url)
            kept = connection.used
            try:
                connection.send_head(method, target_of(url), self._with_token(url, headers))
                if connection.goes_on(_EXPECT_S):
                    return connection, watch
                return self.answer(connection, watch, method, url)
            except (*_WIRE_ERRORS, TroubleError) as error:
                self._let_go(connection, watch)
                broken = isinstance(error, TroubleError) and error.kind is Kind.BROKEN
                if kept and (broken or isinstance(error, _CLOSED)):
                    continue
                if isinstance(error, TroubleError):
                    raise
                raise self.ended(error) from error

    def _open(self, url: str) -> tuple[Connection, AbstractContextManager[None]]:
        try:
            origin = origin_of(url)
        except ValueError as error:
            raise TroubleError(Kind.PROTOCOL, f"{error}") from error
        connection = self.client.take(origin)
        watch = self._waker.closing(connection.shut)
        watch.__enter__()
        return connection, watch

    def _let_go(self, connection: Connection, watch: AbstractContextManager[None]) -> None:
        watch.__exit__(None, None, None)
        connection.close()

    def _with_token(self, url: str, headers: Mapping[str, str]) -> Mapping[str, str]:
        token = self.client.token(origin_of(url))
        own = {"Authorization": f"Bearer {token}"} if token else {}
        return {**self._headers, **headers, **own}


class Upload:
    """A PUT whose body is being sent; `finish` it, or `abort` it."""

    def __init__(
        self,
        session: Session,
        connection: Connection,
        watch: AbstractContextManager[None],
        url: str,
        size: int | None,
    ) -> None:
        self._session = session
        self._connection = connection
        self._watch = watch
        self._url = url
        self._chunked = size is None
        self._left = size
        self._open = True

    def write(self, data: memoryview) -> None:
        """Send bytes.

        Raises:
            StatusError: the storage has answered meanwhile, and says no.
            TroubleError: the connection broke, or takes no more; CHANGED: there are more bytes than
                were announced, which the storage would take for further requests.
        """
        if self._left is not None:
            self._left -= len(data)
            if self._left < 0:
                self.abort()
                raise TroubleError(Kind.CHANGED, "")
        try:
            if self._chunked:
                self._connection.send(f"{len(data):x}\r\n".encode())
            self._connection.send(data)
            if self._chunked:
                self._connection.send(b"\r\n")
        except OSError as error:
            if isinstance(error, TimeoutError) or self._session.stopped():
                self.abort()
                raise self._session.ended(error) from error
            # It may have said why before it closed.
            self._end(error)
            raise self._session.ended(error) from error

    def finish(self, good: frozenset[int]) -> None:
        """Wait until the storage has the file.

        Raises:
            StatusError, TroubleError: it has not.
        """
        if self._left:
            self.abort()
            raise TroubleError(Kind.CHANGED, "")
        try:
            if self._chunked:
                self._connection.send(b"0\r\n\r\n")
        except OSError as error:
            self._end(error)
            raise self._session.ended(error) from error
        self._end(None, good)

    def abort(self) -> None:
        """End the connection: the storage takes what it has for broken off."""
        if self._open:
            self._open = False
            self._watch.__exit__(None, None, None)
            self._connection.close()

    def _end(self, error: Exception | None, good: frozenset[int] = frozenset()) -> None:
        """Hear the answer; raise what it says unless it is good."""
        self._open = False
        try:
            answer = self._session.answer(self._connection, self._watch, "PUT", self._url)
        except _WIRE_ERRORS as other:
            raise self._session.ended(error or other) from other
        if answer.status not in good:
            status, detail = answer.status, answer.detail()
            answer.abort()
            raise StatusError(status, detail)
        answer.close()


def plain(text: str) -> str:
    """A text of a storage's, made fit for a message: one short line."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:_DETAIL_CHARS]
