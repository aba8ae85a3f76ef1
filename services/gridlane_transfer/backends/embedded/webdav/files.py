"""What is asked of remote files besides their bytes: size, checksum, removal, directories.

Responsible for single requests. `HEAD` tells the size and, where the storage keeps it, the checksum
(RFC 3230).
"""

import re
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from email.utils import parsedate_to_datetime
from threading import Lock
from typing import Final

from gridlane_transfer.backends.embedded.checksums import Checksums
from gridlane_transfer.backends.embedded.ends import BLOCK_BYTES, Content, Control, Found
from gridlane_transfer.backends.embedded.webdav import digests
from gridlane_transfer.backends.embedded.webdav.client import Answer, Session
from gridlane_transfer.backends.embedded.webdav.reading import RangeReader
from gridlane_transfer.backends.embedded.webdav.troubles import StatusError
from gridlane_transfer.moving.failures import MoveError, canceled

_THERE: Final = frozenset({200, 204, 206})
_GONE: Final = frozenset({404, 410})
_REMOVED: Final = frozenset({200, 202, 204})
_MADE: Final = frozenset({200, 201, 204, 405})
_GONE_ABOVE: Final = frozenset({404, 409})
_MAY_BE: Final = frozenset({401, 403, 501})
_FOLDERS: Final = 1000
_MULTISTATUS: Final = frozenset({207})
_NO_PROPERTIES: Final = frozenset({400, 404, 405, 415, 501})
_PROPERTIES_BYTES: Final = 1 << 16
_COLLECTION = re.compile(rb"<(\w+:)?collection\s*/?>").search


def stat(session: Session, url: str, algorithms: Iterable[str] = ()) -> Found | None:
    """What the storage says of a file; None when there is none.

    Parameters:
        algorithms: checksums that are asked for.

    Raises:
        HttpError: it does not say.
    """
    headers = {"Accept-Encoding": "identity", **digests.want(algorithms)}
    try:
        with session.ask("HEAD", url, headers, good=_THERE) as answer:
            return _found(answer)
    except StatusError as error:
        if error.status in _GONE:
            return None
        raise


def content(
    session: Session, url: str, algorithms: Sequence[str], control: Control, *, told: bool
) -> Content | None:
    """What is in a file: as the storage tells it, else as it is read; None when there is none.

    Parameters:
        told: whether the storage's word is enough.

    Raises:
        HttpError: it cannot be known.
        MoveError: CANCELED.
    """
    if told:
        found = stat(session, url, algorithms)
        if found is None:
            return None
        if set(algorithms) <= found.checksums.keys() and found.size_bytes >= 0:
            return Content(found.size_bytes, {name: found.checksums[name] for name in algorithms})
    try:
        reader = RangeReader(session, url)
    except StatusError as error:
        if error.status in _GONE:
            return None
        raise
    checksums, block, total = Checksums(algorithms), memoryview(bytearray(BLOCK_BYTES)), 0
    try:
        while count := reader.read_some(block):
            if control.stopped():
                raise MoveError(canceled())
            checksums.update(block[:count])
            total += count
            control.moved(0)
    finally:
        reader.close()
    return Content(total, checksums.values())


def remove(session: Session, url: str) -> bool:
    """Remove a file; False when it was not there.

    Raises:
        HttpError: it is there still.
    """
    try:
        session.ask("DELETE", url, good=_REMOVED).close()
    except StatusError as error:
        if error.status in _GONE:
            return False
        raise
    return True


def refuse_folder(session: Session, url: str) -> None:
    """Refuse what would take a whole directory with it: DELETE, and MOVE onto one, remove all that
    is in it (RFC 4918, 9.6.1 and 9.9.3).

    Raises:
        StatusError: 405, it is a directory.
        HttpError: the storage does not say what it is.
    """
    if stat(session, url) is not None and _is_folder(session, url):
        raise StatusError(405, "it is a directory")


def _is_folder(session: Session, url: str) -> bool:
    """Whether what is there is a directory; False where the storage does not know the question."""
    try:
        with session.ask("PROPFIND", url, {"Depth": "0"}, good=_MULTISTATUS) as answer:
            if answer.url.endswith("/"):
                return True
            block = memoryview(bytearray(_PROPERTIES_BYTES))
            count, more = 0, -1
            while more and count < len(block):
                more = answer.read_some(block[count:])
                count += more
            return _COLLECTION(bytes(block[:count])) is not None
    except StatusError as error:
        if error.status in _NO_PROPERTIES:
            return False
        raise


class Folders:
    """The directories that are there; asked for once a process, since some storages answer a PUT
    into a missing one with what could mean anything.
    """

    def __init__(self) -> None:
        self._there: OrderedDict[str, None] = OrderedDict()
        self._lock = Lock()

    def make(self, session: Session, urls: Sequence[str]) -> None:
        """Make directories, outermost first, that are not there.

        Raises:
            HttpError: one cannot be made.
        """
        missing = []
        # The innermost first: mostly it is there.
        for url in reversed(urls):
            if self._known(url) or _made(session, url):
                break
            missing.append(url)
        for url in reversed(missing):
            if not _made(session, url):
                raise StatusError(409, "a directory above it does not exist")
        if urls:
            self._note(urls[-1])

    def forget(self, urls: Sequence[str]) -> None:
        """Ask for directories anew: something went wrong in them."""
        with self._lock:
            for url in urls:
                self._there.pop(url, None)

    def _known(self, url: str) -> bool:
        with self._lock:
            return url in self._there

    def _note(self, url: str) -> None:
        with self._lock:
            self._there[url] = None
            if len(self._there) > _FOLDERS:
                self._there.popitem(last=False)


def _made(session: Session, url: str) -> bool:
    """Whether a directory is there now, or may be; False when the one above it is missing."""
    try:
        session.ask("MKCOL", f"{url}/", good=_MADE).close()
    except StatusError as error:
        if error.status in _GONE_ABOVE:
            return False
        # Who may not make it may still write into it.
        if error.status not in _MAY_BE:
            raise
    return True


def _found(answer: Answer) -> Found:
    length = answer.length()
    return Found(
        -1 if length is None else length,
        digests.told(answer.header("Digest")),
        _seconds(answer.header("Last-Modified")),
    )


def _seconds(date: str) -> float | None:
    try:
        seconds = parsedate_to_datetime(date).timestamp()
    except (TypeError, ValueError, OverflowError, OSError):
        return None
    return seconds if seconds >= 0 else None
