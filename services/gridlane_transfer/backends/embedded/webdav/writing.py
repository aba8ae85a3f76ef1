"""Writes a remote file: under a temporary name, then moved to its own.

Responsible for the verbs and their order. A storage that knows no MOVE gets the bytes at their own
name: the leave to publish is then asked for before the first byte, the name is only taken when it
is free (`If-None-Match`), and a file that was replaced is gone when the new one turns out wrong.
"""

from collections.abc import Callable, Iterable
from threading import Lock
from typing import Final, NamedTuple, Self

from gridlane_transfer.backends.embedded.ends import Content, Control, Target
from gridlane_transfer.backends.embedded.webdav import files
from gridlane_transfer.backends.embedded.webdav.client import Session, Upload
from gridlane_transfer.backends.embedded.webdav.meanings import Side, failure
from gridlane_transfer.backends.embedded.webdav.troubles import (
    HttpError,
    Kind,
    StatusError,
    TroubleError,
)
from gridlane_transfer.backends.embedded.webdav.urls import (
    Origin,
    RemotePlace,
    origin_of,
    unescaped,
)
from gridlane_transfer.moving.failures import Failed, FailureClass, MoveError

_WRITTEN: Final = frozenset({200, 201, 204})
_NO_MOVE: Final = frozenset({405, 501})
_UNHEARD: Final = frozenset({Kind.BROKEN, Kind.TIMED_OUT})
_TRIES: Final = 3


class Probe(NamedTuple):
    """Where a temporary file is moved to, and back, to find out how its storage reads escapes: into
    a directory whose own name has none.

    Parameters:
        destination: what the storage is told.
        read, literal: where the file then is.
    """

    destination: str
    read: str
    literal: str

    @classmethod
    def of(cls, temporary: str) -> Self:
        """The probe with a file, given by its URL."""
        folder = temporary.partition("%")[0].rpartition("/")[0]
        url = f"{folder}/{temporary.rpartition('/')[2]}"
        return cls(f"{url}%2Eprobe", f"{url}.probe", f"{url}%252Eprobe")


class Movers:
    """Which storages know MOVE, and how they read its `Destination`; found out once a process."""

    def __init__(self) -> None:
        self._known: dict[Origin, bool] = {}
        self._unescaping: dict[Origin, bool] = {}
        self._lock = Lock()

    def destination(self, session: Session, temporary: str, place: RemotePlace) -> str:
        """What a storage that moves files is told for the name of a place.

        Some take the escapes of the header for letters of the name (XRootD): they are told the name
        as it is. Of that they cut off what follows a question mark, and what is at the end and no
        sign of ASCII.

        Parameters:
            temporary: the URL of a file that is there; it is moved away and back.

        Raises:
            HttpError: the storage does not answer.
            MoveError: it cannot give a file this name.
        """
        if "%" not in place.url or self._unescapes(session, temporary):
            return place.url
        plain = unescaped(place.url)
        if "?" in plain or not "!" <= plain[-1] <= "~":
            raise MoveError(_unnameable(place))
        return plain

    def _unescapes(self, session: Session, temporary: str) -> bool:
        origin = origin_of(temporary)
        with self._lock:
            known = self._unescaping.get(origin)
        if known is not None:
            return known
        probe = Probe.of(temporary)
        _moved(session, temporary, probe.destination)
        reads = files.stat(session, probe.literal) is None
        if reads:
            _moved(session, probe.read, temporary)
        elif "?" in unescaped(temporary):
            files.remove(session, probe.literal)  # it could not be told where to move it back to
        else:
            _moved(session, probe.literal, unescaped(temporary))
        with self._lock:
            self._unescaping[origin] = reads
        return reads

    def moves(self, session: Session, url: str) -> bool:
        """Whether the storage of a URL, under which nothing lies, can move files.

        It is asked to move what is not there: who says so knows the verb.

        Raises:
            HttpError: it does not answer.
        """
        origin = origin_of(url)
        with self._lock:
            known = self._known.get(origin)
        if known is not None:
            return known
        try:
            headers = {"Destination": f"{url}.moved", "Overwrite": "F"}
            session.ask("MOVE", url, headers, good=_WRITTEN).close()
            known = True
        except StatusError as error:
            known = error.status not in _NO_MOVE
        with self._lock:
            self._known[origin] = known
        return known


class RemoteTarget(Target):
    """A remote file being written, or copied there by another storage.

    Parameters:
        session: for the work; `cleaning`: for what is removed after it, also when it is stopped.
        movers: what is known of how its storage moves files.
        temporary: the URL that the bytes get first; the file's own where the storage does not move.
        folders: those that are known to be there.
    """

    reads_back = False

    def __init__(
        self,
        session: Session,
        cleaning: Session,
        movers: Movers,
        place: RemotePlace,
        temporary: str,
        control: Control,
        folders: files.Folders,
    ) -> None:
        self._session = session
        self._cleaning = cleaning
        self._movers = movers
        self._place = place
        self._temporary = temporary
        self._control = control
        self._folders = folders
        self._upload: Upload | None = None
        self._may_be_there = True
        self._total = 0

    def begin(self, size: int | None, *, overwrite: bool) -> None:
        """Have the storage wait for the bytes.

        Raises:
            MoveError: it does not.
        """
        direct = self._temporary == self._place.url
        headers = {"If-None-Match": "*"} if direct and not overwrite else {}
        self._may_be_there = not direct
        try:
            if size == 0:
                # No body to wait with: XRootD never answers one that is empty and was asked for.
                head = {**headers, "Content-Length": "0"}
                self._session.ask("PUT", self._temporary, head, good=_WRITTEN).close()
            else:
                self._upload = self._session.upload(self._temporary, headers, size)
        except HttpError as error:
            self._unless_refused(error)
            raise self._failed(error) from error
        self._may_be_there = True

    def write(self, data: memoryview) -> None:
        if self._upload is None:
            raise self._failed(TroubleError(Kind.CHANGED, ""))
        try:
            self._upload.write(data)
            self._total += len(data)
        except HttpError as error:
            self._unless_refused(error)
            raise self._failed(error) from error

    def read_back(self, offset: int, block: memoryview) -> None:
        raise RuntimeError("a remote file is verified when it is whole")

    def write_out(self) -> None:
        pass  # every byte is on its way

    def finish(self) -> None:
        if self._upload is None:
            return
        try:
            self._upload.finish(_WRITTEN)
        except HttpError as error:
            self._unless_refused(error)
            raise self._failed(error) from error

    def content(self, algorithms: Iterable[str]) -> Content:
        try:
            there = files.content(
                self._session, self._temporary, list(algorithms), self._control, told=True
            )
        except HttpError as error:
            raise self._failed(error) from error
        if there is None:
            raise MoveError(_vanished(self._place))
        self._total = there.size_bytes
        return there

    def publish(self, *, overwrite: bool) -> None:
        if self._temporary == self._place.url:
            return
        try:
            self._move(overwrite)
        except HttpError as error:
            raise self._failed(error) from error

    def settle(self) -> None:
        pass  # what a storage has answered, it keeps

    def discard(self) -> None:
        self.leave()
        if not self._may_be_there:
            return
        try:
            files.remove(self._cleaning, self._temporary)
        except (HttpError, MoveError):
            return  # the next attempt removes it by its name

    def leave(self) -> None:
        if self._upload is not None:
            self._upload.abort()

    def _move(self, overwrite: bool) -> None:
        if overwrite:
            files.refuse_folder(self._session, self._place.url)
        destination = self._movers.destination(self._session, self._temporary, self._place)
        headers = {"Destination": destination, "Overwrite": "T" if overwrite else "F"}
        for tries_left in range(_TRIES - 1, -1, -1):
            try:
                self._session.ask("MOVE", self._temporary, headers, good=_WRITTEN).close()
                return
            except StatusError as error:
                if error.status != 404:
                    raise
                if not self._arrived():
                    raise MoveError(_vanished(self._place)) from error
                return
            except TroubleError as error:
                if error.kind not in _UNHEARD:
                    raise
                if self._arrived():
                    return
                if not tries_left:
                    raise

    def _arrived(self) -> bool:
        """Whether a MOVE whose answer was lost was done."""
        if files.stat(self._session, self._temporary) is not None:
            return False
        there = files.stat(self._session, self._place.url)
        return there is not None and there.size_bytes == self._total

    def _unless_refused(self, error: HttpError) -> None:
        """A file that is not ours lies there: it is not removed."""
        if isinstance(error, StatusError) and error.status == 412:
            self._may_be_there = False

    def _failed(self, error: HttpError) -> MoveError:
        self._folders.forget(self._place.folders())
        return MoveError(failure(Side.TARGET, error, self._place.shown))


def create(
    session: Session,
    cleaning: Session,
    movers: Movers,
    place: RemotePlace,
    temporary: str,
    control: Control,
    folders: files.Folders,
    leave: Callable[[], None],
    *,
    size: int | None,
    overwrite: bool,
    parents: bool,
) -> RemoteTarget:
    """Begin to write a file.

    Parameters:
        leave: raises when the file may not be published; called before the first byte where that
            is at its own name.
        parents: make missing directories.

    Raises:
        MoveError: its storage does not let it begin.
    """
    try:
        moves = movers.moves(session, temporary)
    except HttpError as error:
        raise MoveError(failure(Side.TARGET, error, place.shown)) from error
    if not moves:
        leave()
    if parents:
        try:
            folders.make(session, place.folders())
        except HttpError as error:
            raise MoveError(failure(Side.TARGET, error, place.shown)) from error
    url = temporary if moves else place.url
    target = RemoteTarget(session, cleaning, movers, place, url, control, folders)
    try:
        target.begin(size, overwrite=overwrite)
    except BaseException:
        target.discard()
        raise
    return target


def _moved(session: Session, url: str, destination: str) -> None:
    headers = {"Destination": destination, "Overwrite": "T"}
    session.ask("MOVE", url, headers, good=_WRITTEN).close()


def _unnameable(place: RemotePlace) -> Failed:
    return Failed(
        FailureClass.TARGET_UNWRITABLE,
        f"the target's storage cannot give a file this name: {place.shown}",
        "choose a name of letters, digits, dots, hyphens and underscores",
    )


def _vanished(place: RemotePlace) -> Failed:
    return Failed(
        FailureClass.TARGET_UNWRITABLE,
        f"what was written is not there any more: {place.shown}",
        "",
        recoverable=True,
    )
