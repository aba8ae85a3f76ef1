"""Writes a remote file: under a temporary name, then moved to its own.

Responsible for the verbs and their order. A storage that knows no MOVE gets the bytes at their own
name: the leave to publish is then asked for before the first byte, the name is only taken when it
is free (`If-None-Match`), and a file that was replaced is gone when the new one turns out wrong.
"""

from collections.abc import Callable, Iterable
from threading import Lock
from typing import Final

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
from gridlane_transfer.backends.embedded.webdav.urls import Origin, RemotePlace, origin_of
from gridlane_transfer.moving.failures import Failed, FailureClass, MoveError

_WRITTEN: Final = frozenset({200, 201, 204})
_NO_MOVE: Final = frozenset({405, 501})
_UNHEARD: Final = frozenset({Kind.BROKEN, Kind.TIMED_OUT})
_TRIES: Final = 3


class Movers:
    """Which storages know MOVE; found out once a process."""

    def __init__(self) -> None:
        self._known: dict[Origin, bool] = {}
        self._lock = Lock()

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
        temporary: the URL that the bytes get first; the file's own where the storage does not move.
        folders: those that are known to be there.
    """

    reads_back = False

    def __init__(
        self,
        session: Session,
        cleaning: Session,
        place: RemotePlace,
        temporary: str,
        control: Control,
        folders: files.Folders,
    ) -> None:
        self._session = session
        self._cleaning = cleaning
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
            self._upload = self._session.upload(self._temporary, headers, size)
        except HttpError as error:
            raise self._failed(error) from error
        self._may_be_there = True

    def write(self, data: memoryview) -> None:
        if self._upload is None:
            raise RuntimeError("the upload was not begun")
        try:
            self._upload.write(data)
            self._total += len(data)
        except HttpError as error:
            self._unless_refused(error)
            raise self._failed(error) from error

    def read_back(self, offset: int, block: memoryview) -> None:
        raise RuntimeError("a remote file is verified when it is whole")

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
        headers = {"Destination": self._place.url, "Overwrite": "T" if overwrite else "F"}
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
    target = RemoteTarget(session, cleaning, place, url, control, folders)
    try:
        target.begin(size, overwrite=overwrite)
    except BaseException:
        target.discard()
        raise
    return target


def _vanished(place: RemotePlace) -> Failed:
    return Failed(
        FailureClass.TARGET_UNWRITABLE,
        f"what was written is not there any more: {place.shown}",
        "",
        recoverable=True,
    )
