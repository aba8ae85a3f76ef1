"""Remote files as the ends of a copy. Responsible for putting `reading`, `writing`, `files` and
`third_party` together, and for turning their errors into failures of the end they are at.
"""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from threading import Lock
from typing import Final

from gridlane_transfer.backends.embedded.ends import (
    Carried,
    Content,
    Control,
    CopyTask,
    Found,
    Source,
    SourceError,
    refuse_size,
)
from gridlane_transfer.backends.embedded.webdav import files, third_party, writing
from gridlane_transfer.backends.embedded.webdav.client import Client, Session
from gridlane_transfer.backends.embedded.webdav.connections import allowed_addresses
from gridlane_transfer.backends.embedded.webdav.meanings import Side, failure
from gridlane_transfer.backends.embedded.webdav.options import HttpOptions
from gridlane_transfer.backends.embedded.webdav.reading import open_reader
from gridlane_transfer.backends.embedded.webdav.third_party import CopyFailedError, Mode
from gridlane_transfer.backends.embedded.webdav.troubles import HttpError, StatusError
from gridlane_transfer.backends.embedded.webdav.urls import Origin, RemotePlace, origin_of
from gridlane_transfer.backends.embedded.webdav.waking import Unstoppable
from gridlane_transfer.moving.failures import MoveError

# What is removed after a copy does not wait longer.
_CLEANING_S: Final = 10.0
# How long two storages that did not copy between them are not asked again.
_FORGET_S: Final = 600.0
# Statuses by which a storage says that it does not know this kind of copy.
_UNKNOWN: Final = frozenset({400, 405, 501, 502})


class RemoteSource(Source):
    """A remote file, open for reading."""

    def __init__(self, session: Session, place: RemotePlace, streams: int) -> None:
        self._place = place
        with _at_source(place):
            self._reader = open_reader(session, place.url, streams)
        self.size = self._reader.version.size

    def read_some(self, block: memoryview) -> int:
        with _at_source(self._place):
            return self._reader.read_some(block)

    def is_whole(self, total: int) -> bool:
        return self.size in (None, total)

    def close(self) -> None:
        self._reader.close()


class Remote:
    """All that is done with remote files in one process.

    Parameters:
        options: what is configured.
    """

    def __init__(self, options: HttpOptions) -> None:
        self._options = options
        self._client = Client(options)
        self._cleaner = Client(
            replace(
                options,
                connect_s=min(options.connect_s, _CLEANING_S),
                idle_s=min(options.idle_s, _CLEANING_S),
            )
        )
        self._movers = writing.Movers()
        self._folders = files.Folders()
        self._unable: dict[tuple[Mode, Origin, Origin], float] = {}
        self._lock = Lock()

    def source(self, place: RemotePlace, task: CopyTask, control: Control) -> RemoteSource:
        """Open a file for reading.

        Raises:
            SourceError: it cannot be read.
        """
        return RemoteSource(self._session(task, control), place, task.streams)

    def target(
        self,
        task: CopyTask,
        place: RemotePlace,
        temporary: str,
        size: int | None,
        control: Control,
        leave: Callable[[], None],
    ) -> writing.RemoteTarget:
        """Begin to write a file.

        Raises:
            MoveError: its storage does not let it begin.
        """
        return writing.create(
            self._session(task, control),
            Session(self._cleaner, Unstoppable()),
            self._movers,
            place,
            place.sibling(temporary),
            control,
            self._folders,
            leave,
            size=size,
            overwrite=task.overwrite,
            parents=not task.strict_copy,
        )

    def refuse_taken(self, place: RemotePlace, control: Control, *, overwrite: bool) -> None:
        """Say early what publishing would say late.

        Raises:
            MoveError: TARGET_EXISTS.
        """
        session = Session(self._client, control)
        with _at_target(place):
            if overwrite:
                files.refuse_folder(session, place.url)
            elif files.stat(session, place.url) is not None:
                raise StatusError(412, "")

    def remove_leftovers(self, place: RemotePlace, names: Iterable[str], control: Control) -> None:
        """Remove what earlier attempts left.

        Raises:
            MoveError: the storage does not answer.
        """
        session = Session(self._client, control)
        with _at_target(place):
            for name in names:
                url = place.sibling(name)
                files.remove(session, url)
                if "%" in place.url:
                    files.remove(session, writing.Probe.of(url).read)
                    files.remove(session, writing.Probe.of(url).literal)

    def content(
        self, place: RemotePlace, algorithms: Sequence[str], control: Control, *, told: bool
    ) -> Content:
        """What is in a file.

        Parameters:
            told: whether the storage's word is enough.

        Raises:
            SourceError: it is not there, or cannot be read.
        """
        with _at_source(place):
            session = Session(self._client, control)
            found = files.content(session, place.url, algorithms, control, told=told)
            if found is None:
                raise StatusError(404, "")
            return found

    def found(self, place: RemotePlace, algorithms: Sequence[str], control: Control) -> Found:
        """What the storage says of a file.

        Raises:
            SourceError: it is not there, or the storage does not say.
        """
        with _at_source(place):
            found = files.stat(Session(self._client, control), place.url, algorithms)
            if found is None:
                raise StatusError(404, "")
            return found

    def remove(self, place: RemotePlace, control: Control) -> bool:
        """Remove a file; False when it was not there.

        Raises:
            MoveError: it is there still, or is a directory.
        """
        session = Session(self._client, control)
        with _at_target(place):
            files.refuse_folder(session, place.url)
            return files.remove(session, place.url)

    def carried(
        self, source: RemotePlace, task: CopyTask, temporary: str, control: Control
    ) -> Carried | None:
        """Have the two storages copy a file between them; None when it must be read and written.

        Raises:
            SourceError: the source is not there or has another size.
            MoveError: CANCELED, or the target's storage refuses what is made ready.
        """
        target = task.target
        if not isinstance(target, RemotePlace) or not self._may_carry(source, target, task):
            return None
        session = self._session(task, control)
        with _at_source(source):
            known = files.stat(session, source.url, task.checksums)
            if known is None:
                raise StatusError(404, "")
        refuse_size(task, known.size_bytes, source.shown)
        told = set(task.checksums) <= known.checksums.keys()
        if known.size_bytes < 0 or not (told or _is_verifiable(task)):
            return None
        if not task.strict_copy:
            self.refuse_taken(target, control, overwrite=task.overwrite)
        new = self._ready(target, session, temporary, control, parents=not task.strict_copy)
        if new is None:
            return None
        try:
            done = self._carry(
                session,
                source.url,
                target.sibling(temporary),
                task,
                control,
                size=known.size_bytes,
            )
        except BaseException:
            new.discard()
            raise
        if not done:
            new.discard()
            return None
        return Carried(new, known.size_bytes, known.checksums if told else None)

    def _session(self, task: CopyTask, control: Control) -> Session:
        """Requests for a copy, marked with its flow label (WLCG's SciTags)."""
        headers = {"SciTag": str(task.scitag)} if task.scitag else {}
        return Session(self._client, control, headers)

    def _may_carry(self, source: RemotePlace, target: RemotePlace, task: CopyTask) -> bool:
        """Whether it is worth asking: a limit of bytes in a second is the mover's to keep, and a
        host that it may not reach is nobody's on its behalf.
        """
        asked = task.third_party and self._options.third_party
        if task.max_bytes_per_second is not None or not asked:
            return False
        pair = (origin_of(source.url), origin_of(target.url))
        if not any(self._asks(mode, *pair) for mode in Mode):
            return False
        for place, at in ((source, _at_source), (target, _at_target)):
            with at(place):
                allowed_addresses(origin_of(place.url), self._client.policy)
        return True

    def _ready(
        self,
        place: RemotePlace,
        session: Session,
        temporary: str,
        control: Control,
        *,
        parents: bool,
    ) -> writing.RemoteTarget | None:
        """The target before the storages copy to it; None when its storage does not move files."""
        with _at_target(place):
            if not self._movers.moves(session, place.sibling(temporary)):
                return None
            if parents:
                self._folders.make(session, place.folders())
        cleaning = Session(self._cleaner, Unstoppable())
        url = place.sibling(temporary)
        return writing.RemoteTarget(
            session, cleaning, self._movers, place, url, control, self._folders
        )

    def _carry(
        self,
        session: Session,
        source: str,
        target: str,
        task: CopyTask,
        control: Control,
        *,
        size: int,
    ) -> bool:
        pair = (origin_of(source), origin_of(target))
        for mode in Mode:
            if not self._asks(mode, *pair):
                continue
            try:
                third_party.carry(
                    session,
                    mode,
                    source,
                    target,
                    control.moved,
                    size=size,
                    streams=task.streams,
                    stall_s=self._options.idle_s,
                )
                if files.stat(session, target) is not None:
                    return True
            except CopyFailedError as error:
                cause = error.__cause__
                if isinstance(cause, StatusError) and cause.status in _UNKNOWN:
                    self._not_again(mode, *pair)
            with contextlib.suppress(HttpError):
                files.remove(session, target)
        return False

    def _asks(self, mode: Mode, source: Origin, target: Origin) -> bool:
        with self._lock:
            since_s = self._unable.get((mode, source, target))
        return since_s is None or time.monotonic() - since_s > _FORGET_S

    def _not_again(self, mode: Mode, source: Origin, target: Origin) -> None:
        with self._lock:
            self._unable[mode, source, target] = time.monotonic()


def _is_verifiable(task: CopyTask) -> bool:
    """Whether what is to be verified can be although the source's storage tells no checksum: what
    is expected is then compared with what the target has.
    """
    if task.verify_target:
        return bool(task.expected)
    return not task.verify_source


@contextlib.contextmanager
def _at_source(place: RemotePlace) -> Iterator[None]:
    """Turn errors of the block into what they mean at the source."""
    try:
        yield
    except HttpError as error:
        raise SourceError(failure(Side.SOURCE, error, place.shown)) from error


@contextlib.contextmanager
def _at_target(place: RemotePlace) -> Iterator[None]:
    """Turn errors of the block into what they mean at the target."""
    try:
        yield
    except HttpError as error:
        raise MoveError(failure(Side.TARGET, error, place.shown)) from error
