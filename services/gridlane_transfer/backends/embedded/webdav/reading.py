"""Reads a remote file: one connection or several, over breaks, never two versions mixed.

Responsible for ranges and for taking up where a connection broke: the rest is asked for under the
condition that the file is still the one that was begun (`If-Match`, or `If-Unmodified-Since` where
there is no strong ETag), and an answer that names another version ends the reading.
"""

import re
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Protocol

from gridlane_transfer.backends.embedded.webdav.client import Answer, Session
from gridlane_transfer.backends.embedded.webdav.troubles import (
    Kind,
    StatusError,
    TroubleError,
)
from gridlane_transfer.moving.failures import MoveError, canceled

_READ: Final = frozenset({200, 206})
_PASSING: Final = frozenset({Kind.BROKEN, Kind.TIMED_OUT, Kind.UNREACHABLE})
_BREAKS: Final = 5
_WAIT_S: Final = 0.1
# What all streams of a file hold together at most.
_AHEAD_BYTES: Final = 64 << 20
_SEGMENT_BYTES: Final = 4 << 20
_BLOCK_BYTES: Final = 1 << 18
_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)").fullmatch


@dataclass(frozen=True, slots=True)
class Version:
    """Which bytes a name stands for, as the storage tells them from others.

    Parameters:
        size: None when it does not say.
        etag: empty when it gives none.
        modified: `Last-Modified`; may be empty.
    """

    size: int | None
    etag: str
    modified: str

    @classmethod
    def of(cls, answer: Answer) -> "Version":
        """As an answer tells it."""
        return cls(_size(answer), answer.header("ETag"), _modified(answer))

    def condition(self) -> dict[str, str]:
        """The headers under which only these bytes are answered; empty when there are none."""
        if self.etag and not self.etag.startswith("W/"):
            return {"If-Match": self.etag}
        return {"If-Unmodified-Since": self.modified} if self.modified else {}

    def is_told_by(self, answer: Answer) -> bool:
        """Whether an answer speaks of these bytes, as far as it says."""
        other = Version.of(answer)
        pairs = (
            (self.size, other.size),
            (self.etag, other.etag),
            (self.modified, other.modified),
        )
        return all(one == two for one, two in pairs if one and two)


class Reader(Protocol):
    """Bytes in order."""

    version: Version

    def read_some(self, block: memoryview) -> int:
        """Fill a block, or some of it; 0 at the end."""

    def close(self) -> None:
        """End it."""


class RangeReader:
    """The bytes from `start` to `stop`, over one connection at a time.

    Parameters:
        stop: where they end; None: at the end of the file.
        version: what must be read; None: what is there.
    """

    def __init__(
        self,
        session: Session,
        url: str,
        start: int = 0,
        stop: int | None = None,
        version: Version | None = None,
    ) -> None:
        self._session = session
        self._url = url
        self._position = start
        self._stop = stop
        self._breaks = 0
        self._answer: Answer | None = None
        if version is not None and start == stop:
            self.version = version
            return
        self._answer = self._ask(version)
        self.version = version or Version.of(self._answer)
        if self._stop is None:
            self._stop = self.version.size

    def read_some(self, block: memoryview) -> int:
        """Fill a block, or some of it; 0 at the end.

        Raises:
            TroubleError: the connection broke and the rest cannot be had; CHANGED: there are other
                bytes now.
        """
        while True:
            room = len(block)
            if self._stop is not None:
                room = min(room, self._stop - self._position)
            if not room or self._answer is None:
                return 0
            try:
                count = self._answer.read_some(block[:room])
                if count == 0 and self._stop is not None:
                    raise TroubleError(Kind.BROKEN, "the body ended early")
            except TroubleError as error:
                self._take_up(error)
                continue
            if count:
                self._breaks = 0
                self._position += count
            return count

    def close(self) -> None:
        """End it; a connection with nothing more on it is kept."""
        if self._answer is None:
            return
        if self._stop is not None and self._position >= self._stop:
            self._answer.close()
        else:
            self._answer.abort()

    def _take_up(self, error: TroubleError) -> None:
        """Ask for the rest."""
        if self._answer is not None:
            self._answer.abort()
        while True:
            # Silence takes long enough to be waited for twice.
            self._breaks += 2 if error.kind is Kind.TIMED_OUT else 1
            if error.kind not in _PASSING or self._breaks > _BREAKS or not self.version.condition():
                raise error
            time.sleep(_WAIT_S * 2 ** (self._breaks - 1))
            if self._session.stopped():
                raise MoveError(canceled())
            try:
                self._answer = self._ask(self.version)
            except TroubleError as again:
                error = again
                continue
            return

    def _ask(self, version: Version | None) -> Answer:
        headers = {"Accept-Encoding": "identity"}
        if self._position or self._stop is not None:
            last = "" if self._stop is None else str(self._stop - 1)
            headers["Range"] = f"bytes={self._position}-{last}"
        if version is not None:
            headers |= version.condition()
        try:
            answer = self._session.ask("GET", self._url, headers, good=_READ)
        except StatusError as error:
            if version is not None and error.status in (412, 416):
                raise TroubleError(Kind.CHANGED, "") from error
            raise
        try:
            self._judge(answer, version, ranged="Range" in headers)
        except BaseException:
            answer.abort()
            raise
        return answer

    def _judge(self, answer: Answer, version: Version | None, *, ranged: bool) -> None:
        if answer.url.partition("?")[0].endswith("/"):
            raise TroubleError(Kind.PROTOCOL, "it is a directory")
        if not answer.delimited:
            raise TroubleError(Kind.PROTOCOL, "the storage does not say where the bytes end")
        if answer.header("Content-Encoding") not in ("", "identity"):
            raise TroubleError(Kind.PROTOCOL, "the storage encodes the bytes")
        if version is not None and not version.is_told_by(answer):
            raise TroubleError(Kind.CHANGED, "")
        if answer.status == 206:
            found = _RANGE(answer.header("Content-Range"))
            if not ranged or found is None or int(found[1]) != self._position:
                raise TroubleError(Kind.PROTOCOL, "the storage answers other bytes")
        elif self._position:
            self._skip(answer)

    def _skip(self, answer: Answer) -> None:
        """Read what came before, of a storage that knows no ranges."""
        block, left = memoryview(bytearray(_BLOCK_BYTES)), self._position
        while left:
            count = answer.read_some(block[: min(left, len(block))])
            if not count:
                raise TroubleError(Kind.BROKEN, "the body ended early")
            left -= count


class StreamsReader:
    """A whole file over several connections: pieces are fetched ahead and handed on in order."""

    def __init__(self, session: Session, url: str, version: Version, streams: int) -> None:
        self.version = version
        self._session, self._part = session.part()
        self._url = url
        self._size = version.size or 0
        self._segment = min(_SEGMENT_BYTES, _AHEAD_BYTES // streams)
        self._threads = ThreadPoolExecutor(streams, thread_name_prefix="stream")
        self._ahead: deque[Future[tuple[memoryview, int]]] = deque()
        self._streams = streams
        self._next = 0
        self._piece = self._buffer = memoryview(b"")
        # Used again and again: what is freed in other threads the process would keep.
        self._free: list[memoryview] = []

    def read_some(self, block: memoryview) -> int:
        """Fill a block, or some of it; 0 at the end."""
        while not self._piece:
            if self._buffer:
                self._free.append(self._buffer)
            while self._next < self._size and len(self._ahead) < self._streams:
                buffer = self._free.pop() if self._free else self._new_buffer()
                self._ahead.append(self._threads.submit(self._fetch, self._next, buffer))
                self._next += self._segment
            if not self._ahead:
                self._buffer = memoryview(b"")
                return 0
            self._buffer, count = self._ahead.popleft().result()
            self._piece = self._buffer[:count]
        count = min(len(block), len(self._piece))
        block[:count] = self._piece[:count]
        self._piece = self._piece[count:]
        return count

    def close(self) -> None:
        """End it, also what is being fetched."""
        self._part.stop()
        self._threads.shutdown(cancel_futures=True)

    def _new_buffer(self) -> memoryview:
        return memoryview(bytearray(self._segment))

    def _fetch(self, start: int, buffer: memoryview) -> tuple[memoryview, int]:
        stop = min(start + self._segment, self._size)
        reader = RangeReader(self._session, self._url, start, stop, self.version)
        try:
            filled, count = 0, stop - start
            while filled < count:
                filled += reader.read_some(buffer[filled:count])
            return buffer, count
        finally:
            reader.close()


def open_reader(session: Session, url: str, streams: int) -> Reader:
    """Begin to read a file.

    Parameters:
        streams: connections at once; used where the storage knows ranges and tells versions apart.

    Raises:
        HttpError: it cannot be read.
    """
    if streams > 1:
        with session.ask("HEAD", url, {"Accept-Encoding": "identity"}, good=_READ) as answer:
            version = Version.of(answer)
            ranged = answer.header("Accept-Ranges") == "bytes"
        if ranged and version.condition() and (version.size or 0) > _BLOCK_BYTES:
            return StreamsReader(session, url, version, streams)
    return RangeReader(session, url)


def _size(answer: Answer) -> int | None:
    found = _RANGE(answer.header("Content-Range"))
    if found is not None:
        return None if found[3] == "*" else int(found[3])
    return answer.length()


def _modified(answer: Answer) -> str:
    return answer.header("Last-Modified")
