"""Copies one file: bounded memory, checksums on the way, verified, published whole or not at all.

Responsible for the order of steps and for what each failure means. Runs in a worker process's
thread; knows nothing of jobs, databases or the protocol to the server. Standard library only.

The temporary name carries the file's number and the lease epoch, so that two attempts never write
to one file, and a later attempt knows by name what earlier ones may have left. It removes that
first: an earlier one, of a process that was only paused, then has nothing left to publish. Which
holds for every one that asks for leave (`Control.may_publish`) when its temporary file is there.
"""

import errno
import hashlib
import itertools
import os
import stat
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol, Self

from gridlane_transfer.backends.embedded.places import Folder, NewFile, Place, remove_leftover
from gridlane_transfer.failures import (
    Failed,
    FailureClass,
    MoveError,
    canceled,
    source_failure,
    target_failure,
    wrong_content,
)

BLOCK_BYTES = 1 << 18
# How many epochs back a later attempt looks for temporary files.
_EPOCHS_BACK = 300
# From this size on, checksums are worth threads of their own.
_LARGE_BYTES = 16 << 20
# So much is handed to the disk at once while a large file is still being copied.
_WRITE_OUT_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class CopyTask:
    """One copy.

    Parameters:
        number, epoch: the file transfer's number and its lease epoch.
        sources: where the bytes may be had, tried in order.
        target: where they go.
        overwrite: whether an existing target is replaced.
        verify_source, verify_target: which ends are verified.
        size_bytes: the size that the file must have; None for any.
        expected: checksums that it must have, by algorithm.
        checksums: algorithms to compute; those of `expected` among them.
        resumed: an earlier attempt may have published the target without anybody having heard of
            it.
    """

    number: int
    epoch: int
    sources: Sequence[Place]
    target: Place
    overwrite: bool
    verify_source: bool
    verify_target: bool
    size_bytes: int | None
    expected: Mapping[str, str]
    checksums: Sequence[str]
    resumed: bool


@dataclass(frozen=True, slots=True)
class Copied:
    """A copy that is there, verified and durable. `source` is the index of the source that was
    used.
    """

    source: int
    size_bytes: int
    checksums: Mapping[str, str]


class Control(Protocol):
    """What a copy asks and tells while it runs."""

    def stopped(self) -> bool:
        """Whether to end at once."""

    def may_publish(self) -> bool:
        """Whether the bytes, whole under their temporary name, may get their own one; blocks."""

    def moved(self, total_bytes: int) -> None:
        """So many bytes were written so far. Called again and again as long as anything moves, also
        with 0 while files are only read: who is not called takes the copy for hung."""


class Checksum(Protocol):
    """A running checksum."""

    def update(self, data: bytes | memoryview, /) -> None:
        """Take more bytes."""

    def hexdigest(self) -> str:
        """The value so far, lower-case hexadecimal."""


class _Adler32:
    """Adler-32 (RFC 1950) in the shape of hashlib's objects."""

    def __init__(self) -> None:
        self._value = 1

    def update(self, data: bytes | memoryview, /) -> None:
        self._value = zlib.adler32(data, self._value)

    def hexdigest(self) -> str:
        return f"{self._value:08x}"


_ALGORITHMS: Mapping[str, Callable[[], Checksum]] = {
    "ADLER32": _Adler32,
    "MD5": lambda: hashlib.md5(usedforsecurity=False),
    "SHA1": lambda: hashlib.sha1(usedforsecurity=False),
    "SHA256": hashlib.sha256,
}
CHECKSUMS = frozenset(_ALGORITHMS)
"""What this mover computes. CRC-32C would want a library of its own."""


class Checksums:
    """Several checksums of the same bytes."""

    def __init__(self, algorithms: Iterable[str]) -> None:
        self._running = {name: _ALGORITHMS[name]() for name in algorithms}

    def update(self, data: bytes | memoryview) -> None:
        """Take more bytes."""
        for checksum in self._running.values():
            checksum.update(data)

    def values(self) -> dict[str, str]:
        """The values so far, by algorithm."""
        return {name: checksum.hexdigest() for name, checksum in self._running.items()}


class _SourceError(MoveError):
    """One source is of no use; another may be."""


def temporary_name(number: int, epoch: int) -> str:
    """The name under which an attempt writes."""
    return f".gridlane-{number}-{epoch}.part"


def copy(task: CopyTask, control: Control) -> Copied:
    """Copy a file.

    Raises:
        MoveError: it is not there, and nothing was left but what was there before.
    """
    clean(task)
    if task.resumed and (adopted := _adopt(task, control)) is not None:
        return adopted
    failure: MoveError | None = None
    for index, source in enumerate(task.sources):
        try:
            return _copy_from(source, index, task, control)
        except _SourceError as error:
            failure = failure or error
    raise failure or MoveError(
        Failed(FailureClass.SOURCE_MISSING, "there is no source to copy from")
    )


def clean(task: CopyTask) -> None:
    """Remove what earlier attempts left."""
    for epoch in range(max(1, task.epoch - _EPOCHS_BACK), task.epoch):
        with _meaning(target_failure, task.target):
            remove_leftover(task.target, temporary_name(task.number, epoch))


def _adopt(task: CopyTask, control: Control) -> Copied | None:
    """Take the target for done when it is what an earlier attempt would have published."""
    try:
        size, values = _read_all(task.target, task.checksums, control)
    except OSError:
        return None
    if task.size_bytes not in (None, size):
        return None
    if task.expected:
        same = all(values[name] == value for name, value in task.expected.items())
        return Copied(0, size, values) if same else None
    for index, source in enumerate(task.sources):
        try:
            if _read_all(source, task.checksums, control) == (size, values):
                return Copied(index, size, values)
        except OSError:
            continue
    return None


def _copy_from(source: Place, index: int, task: CopyTask, control: Control) -> Copied:
    descriptor = _open_source(source, task)
    try:
        _refuse_taken_target(task)
        with _meaning(target_failure, task.target):
            new = NewFile(task.target, temporary_name(task.number, task.epoch))
        try:
            size, read, written = _pump(descriptor, source, new, task, control)
            _verify(source, task, read, written, control)
            with _meaning(target_failure, task.target):
                new.sync()
            if control.stopped() or not control.may_publish():
                raise MoveError(canceled())
            with _meaning(target_failure, task.target):
                new.publish(overwrite=task.overwrite)
        except BaseException:
            new.discard()
            raise
        return Copied(index, size, written if read is None else read)
    finally:
        os.close(descriptor)


def _open_source(source: Place, task: CopyTask) -> int:
    try:
        with Folder.of(source) as folder:
            descriptor = folder.open_file(source.name)
    except OSError as error:
        raise _SourceError(source_failure(error, source.shown)) from error
    size = os.fstat(descriptor).st_size
    if task.size_bytes not in (None, size):
        os.close(descriptor)
        raise _SourceError(
            wrong_content("the source", source.shown, f"{task.size_bytes} bytes", f"{size} bytes")
        )
    return descriptor


def _refuse_taken_target(task: CopyTask) -> None:
    """Say early what publishing would say late."""
    with _meaning(target_failure, task.target), Folder.of(task.target, create=True) as folder:
        found = folder.stat(task.target.name)
        if found is not None and stat.S_ISDIR(found.st_mode):
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
        if found is not None and not task.overwrite:
            raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))


def _pump(
    descriptor: int, source: Place, new: NewFile, task: CopyTask, control: Control
) -> tuple[int, dict[str, str] | None, dict[str, str]]:
    """Copy the bytes.

    Returns:
        Their number, their checksums as they were read, and as they were read back where the target
        is verified. Those read are None where the ones expected are compared with those read back:
        a copy of wrong bytes would not have them.
    """
    skip_read = task.verify_target and task.expected.keys() == set(task.checksums)
    lane = _ThreadLane if os.fstat(descriptor).st_size >= _LARGE_BYTES else _Lane
    as_read = None if skip_read else Checksums(task.checksums)
    as_written = Checksums(task.checksums)
    with lane() as read, lane() as read_back:
        total = _pump_blocks(
            descriptor, source, new, task, control, (read, as_read), (read_back, as_written)
        )
        read.finish()
        read_back.finish()
    if total != os.fstat(descriptor).st_size or task.size_bytes not in (None, total):
        raise _SourceError(
            Failed(
                FailureClass.SOURCE_UNREADABLE,
                f"the source changed while it was read: {source.shown}",
                "leave it alone until it is copied",
                recoverable=True,
            )
        )
    return total, None if as_read is None else as_read.values(), as_written.values()


def _pump_blocks(
    descriptor: int,
    source: Place,
    new: NewFile,
    task: CopyTask,
    control: Control,
    read: "tuple[_Lane, Checksums | None]",
    read_back: "tuple[_Lane, Checksums]",
) -> int:
    """Copy block by block; the checksums of a block are computed while the next ones move."""
    (read_lane, as_read), (read_back_lane, as_written) = read, read_back
    blocks = [memoryview(bytearray(BLOCK_BYTES)) for _ in range(read_lane.depth + 1)]
    again = memoryview(bytearray(BLOCK_BYTES))

    def check(offset: int, count: int) -> None:
        with _meaning(target_failure, task.target):
            if os.preadv(new.descriptor, [again[:count]], offset) != count:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
        as_written.update(again[:count])

    total = 0
    for turn in itertools.count():
        if control.stopped():
            raise MoveError(canceled())
        block = blocks[turn % len(blocks)]
        try:
            count = os.readv(descriptor, [block])
        except OSError as error:
            raise _SourceError(source_failure(error, source.shown)) from error
        if count == 0:
            return total
        if as_read is not None:
            read_lane.do(partial(as_read.update, block[:count]))
        with _meaning(target_failure, task.target):
            new.write(block[:count])
        if task.verify_target:
            read_back_lane.do(partial(check, total, count))
        total += count
        if total % _WRITE_OUT_BYTES == 0:
            new.write_out(total - _WRITE_OUT_BYTES, _WRITE_OUT_BYTES)
        control.moved(total)
    raise AssertionError("the count has no end")


def _verify(
    source: Place,
    task: CopyTask,
    read: Mapping[str, str] | None,
    written: Mapping[str, str],
    control: Control,
) -> None:
    """Compare with what is expected, or the ends with each other when nothing is."""
    if task.verify_source and read is not None:
        _compare("the source", source, task.expected, read)
    if not task.verify_target:
        return
    wanted = task.expected or read or {}
    if any(written[name] != value for name, value in wanted.items()):
        # Which end is wrong decides whether another source may help.
        _compare(
            "the source", source, task.expected, read or _read_all(source, written, control)[1]
        )
        _compare("the target", task.target, wanted, written)


class _Lane:
    """Does small works in order, at once."""

    depth = 0
    """How many works may be under way when `do` returns."""

    def do(self, work: Callable[[], None]) -> None:
        """Do a work, or have it done; an error of it, or of one before, is raised here or later."""
        work()

    def finish(self) -> None:
        """Wait until all is done."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Wait until nothing is under way any more, however the block ended."""


class _ThreadLane(_Lane):
    """Does works in order in a thread of its own: checksums do not hold the interpreter's lock."""

    depth = 2

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._under_way: deque[Future[None]] = deque()

    def do(self, work: Callable[[], None]) -> None:
        while len(self._under_way) >= self.depth:
            self._under_way.popleft().result()
        self._under_way.append(self._thread.submit(work))

    def finish(self) -> None:
        while self._under_way:
            self._under_way.popleft().result()

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown()


def _compare(
    what: str, place: Place, expected: Mapping[str, str], actual: Mapping[str, str]
) -> None:
    for name, value in expected.items():
        if actual[name] != value:
            failed = wrong_content(what, place.shown, f"{name}:{value}", f"{name}:{actual[name]}")
            raise _SourceError(failed) if what == "the source" else MoveError(failed)


def _read_all(
    place: Place, algorithms: Iterable[str], control: Control
) -> tuple[int, dict[str, str]]:
    with Folder.of(place) as folder:
        descriptor = folder.open_file(place.name)
    try:
        checksums = Checksums(algorithms)
        block = memoryview(bytearray(BLOCK_BYTES))
        total = 0
        while count := os.readv(descriptor, [block]):
            if control.stopped():
                raise MoveError(canceled())
            checksums.update(block[:count])
            total += count
            control.moved(0)
        return total, checksums.values()
    finally:
        os.close(descriptor)


@contextmanager
def _meaning(failure: Callable[[OSError, str], Failed], place: Place) -> Iterator[None]:
    """Turn an OSError of the block into the failure that it means at this place."""
    try:
        yield
    except OSError as error:
        raise MoveError(failure(error, place.shown)) from error
