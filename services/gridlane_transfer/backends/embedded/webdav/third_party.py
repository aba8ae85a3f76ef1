"""Copies between two storages, the bytes not passing the mover: HTTP third-party copy, as WLCG has
it (COPY with `Source` at the target, or with `Destination` at the source).

Responsible for the request and for hearing it out. The answer is 201 or 202 with performance
markers line by line, and its last line says how it ended: a copy that failed is `failure:` in an
answer whose status says success. What the target holds afterwards is verified like anything else.
"""

import re
import time
from collections.abc import Callable
from enum import StrEnum
from typing import Final

from gridlane_transfer.backends.embedded.webdav.client import Answer, Session, plain
from gridlane_transfer.backends.embedded.webdav.troubles import Kind, StatusError, TroubleError
from gridlane_transfer.backends.embedded.webdav.urls import origin_of

_BEGUN: Final = frozenset({200, 201, 202, 204})
_LINE_BYTES: Final = 4096
# So few, that whatever a storage tells has room, and their sum is a number of bytes.
_index: Final = re.compile(r"[0-9]{1,3}").fullmatch
_number: Final = re.compile(r"[0-9]{1,15}").fullmatch


class Mode(StrEnum):
    """Who connects to whom."""

    PULL = "PULL"
    """The target fetches."""
    PUSH = "PUSH"
    """The source sends."""


class CopyFailedError(Exception):
    """The storages did not copy; another way may do. The text is theirs, made plain."""


class Markers:
    """Reads an answer's lines: how far the copy is, and how it ended."""

    def __init__(self) -> None:
        self._stripes: dict[str, int] = {}
        self._stripe = ""
        self.outcome = ""
        """The last line; empty while there is none."""

    @property
    def total_bytes(self) -> int:
        """The bytes of all stripes."""
        return sum(self._stripes.values())

    def take(self, line: str) -> None:
        """Read a line; what is not known is passed over."""
        name, _, value = line.strip().partition(":")
        word, value = name.strip().lower(), value.strip()
        if word in ("success", "failure", "failed", "aborted"):
            self.outcome = line.strip()
        elif word == "stripe index":
            self._stripe = value if _index(value) else ""
        elif word == "stripe bytes transferred" and _number(value):
            self._stripes[self._stripe] = int(value)
        elif word == "end":
            self._stripe = ""

    @property
    def succeeded(self) -> bool:
        """Whether the last line says so."""
        return self.outcome.lower().startswith("success")


def carry(
    session: Session,
    mode: Mode,
    source: str,
    target: str,
    moved: Callable[[int], None],
    *,
    size: int,
    streams: int,
    stall_s: float,
) -> None:
    """Have a file copied.

    Parameters:
        source, target: URLs; nothing lies at the target.
        size: of the source.
        moved: told how many bytes were moved so far, at each marker.
        stall_s: given up when no byte more is told for so long.

    Raises:
        CopyFailedError: they cannot, or it went wrong.
        MoveError: CANCELED; the connection was closed, which ends it at the storages.
    """
    asked, other, header = (
        (target, source, "Source") if mode is Mode.PULL else (source, target, "Destination")
    )
    headers = {header: other, "Overwrite": "F", "Credential": "none"}
    headers["RequireChecksumVerification"] = "false"
    if streams > 1:
        headers["X-Number-Of-Streams"] = str(streams)
    try:
        token = session.client.token(origin_of(other))
        if token:
            if origin_of(asked).scheme != "https" and origin_of(other).scheme == "https":
                raise CopyFailedError("a token is not shown where everybody can read it")
            headers["TransferHeaderAuthorization"] = f"Bearer {token}"
        answer = session.ask("COPY", asked, headers, good=_BEGUN)
    except (StatusError, TroubleError) as error:
        raise CopyFailedError(plain(str(error))) from error
    try:
        _hear(answer, moved, size, stall_s)
    except TroubleError as error:
        raise CopyFailedError(plain(str(error))) from error
    finally:
        answer.abort()


def _hear(answer: Answer, moved: Callable[[int], None], size: int, stall_s: float) -> None:
    """Follow a copy to its end.

    A plain WebDAV server that copies within itself answers without markers and at once, and its
    status is all it says (RFC 4918).
    """
    markers, grown_s, before = Markers(), time.monotonic(), 0
    while not markers.outcome:
        try:
            markers.take(answer.line(_LINE_BYTES))
        except EOFError:
            break
        # Whoever tells of more bytes than there are, tells nothing.
        total = min(markers.total_bytes, size)
        moved(total)
        now = time.monotonic()
        if total > before:
            before, grown_s = total, now
        elif now - grown_s > stall_s:
            raise TroubleError(Kind.TIMED_OUT, "the copy stands still")
    plainly = answer.status != 202 and bool(answer.header("Content-Length"))
    if markers.succeeded or (not markers.outcome and (plainly or answer.status == 204)):
        return
    raise CopyFailedError(plain(markers.outcome or "the storage did not say how the copy ended"))
