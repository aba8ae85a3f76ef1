"""Copies one file: bounded memory, checksums on the way, verified, published whole or not at all.

Responsible for the order of steps. Runs in a worker process's thread; knows nothing of jobs,
databases or the protocol to the server, and of an end only what `ends` says of all. Standard
library only.

The temporary name carries the file's number and the lease epoch, so that two attempts never write
to one file, and a later attempt knows by name what earlier ones may have left. It removes that
first: an earlier one, of a process that was only paused, then has nothing left to publish. Which
holds for every one that asks for leave (`Control.may_publish`) when its temporary file is there.
"""

import itertools
from collections import deque
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from enum import Enum, auto
from functools import partial
from typing import NamedTuple, Self

from gridlane_transfer.backends.embedded.checksums import Checksums, checksums_of
from gridlane_transfer.backends.embedded.ends import (
    BLOCK_BYTES,
    AnyPlace,
    Control,
    CopyTask,
    Source,
    SourceError,
    Target,
    refuse_size,
)
from gridlane_transfer.backends.embedded.opening import Ends
from gridlane_transfer.backends.embedded.pace import Pace
from gridlane_transfer.backends.embedded.places import Place
from gridlane_transfer.moving.failures import (
    Failed,
    FailureClass,
    MoveError,
    canceled,
    wrong_content,
)

# How many epochs back a later attempt looks for temporary files: in a directory, and where each
# look is a request. Every attempt looks, so that more than one is seldom there.
_EPOCHS_BACK = 300
_REMOTE_EPOCHS_BACK = 16
# From this size on, checksums are worth threads of their own.
_LARGE_BYTES = 16 << 20


class Copied(NamedTuple):
    """A copy that is there, verified and durable. `source` is the index of the source that was
    used. It is `adopted` when it was there before, as an earlier attempt would have left it.
    """

    source: int
    size_bytes: int
    checksums: Mapping[str, str]
    adopted: bool = False


class _Read(NamedTuple):
    """What a copy's bytes were: their number, their checksums as they were read, and as the target
    has them; None where they were not computed.
    """

    total: int
    as_read: Mapping[str, str] | None
    as_written: Mapping[str, str] | None


def temporary_name(number: int, epoch: int) -> str:
    """The name under which an attempt writes."""
    return f".gridlane-{number}-{epoch}.part"


class Step(Enum):
    """Where a copy may be left for others that are made together with it."""

    WRITTEN = auto()
    """The bytes are on their way to the disk."""
    WHOLE = auto()
    """They are there, verified, under the temporary name; next the leave to publish is asked."""
    NAMED = auto()
    """The file has its own name, which is durable with the next step."""


Steps = Generator[Step, None, Copied]


def copy(task: CopyTask, control: Control, ends: Ends) -> Copied:
    """Copy a file.

    Raises:
        MoveError: it is not there, and nothing was left but what was there before.
    """
    steps = copy_in_steps(task, control, ends)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            copied: Copied = end.value
            return copied


def copy_in_steps(task: CopyTask, control: Control, ends: Ends) -> Steps:
    """Copy a file as `copy` does, with a pause after each step."""
    clean(task, control, ends)
    if task.resumed and (adopted := _adopt(task, control, ends)) is not None:
        return adopted
    failure: MoveError | None = None
    for index, source in enumerate(task.sources):
        try:
            return (yield from _copy_from(source, index, task, control, ends))
        except SourceError as error:
            failure = failure or error
    raise failure or MoveError(
        Failed(FailureClass.SOURCE_MISSING, "there is no source to copy from")
    )


def clean(task: CopyTask, control: Control, ends: Ends) -> None:
    """Remove what earlier attempts left."""
    back = _EPOCHS_BACK if isinstance(task.target, Place) else _REMOTE_EPOCHS_BACK
    epochs = range(max(1, task.epoch - back), task.epoch)
    if epochs:
        names = [temporary_name(task.number, epoch) for epoch in epochs]
        ends.remove_leftovers(task.target, names, control)


def _adopt(task: CopyTask, control: Control, ends: Ends) -> Copied | None:
    """Take the target for done when it is what an earlier attempt would have published."""
    try:
        size, values = ends.content(task.target, task.checksums, control, told=True)
    except SourceError:
        return None
    if task.size_bytes not in (None, size):
        return None
    source = _source_of(size, values, task, control, ends)
    if source is None:
        return None
    ends.make_durable(task.target)
    return Copied(source, size, values, adopted=True)


def _source_of(
    size: int, values: Mapping[str, str], task: CopyTask, control: Control, ends: Ends
) -> int | None:
    """The index of the source that has this content; None when none has, or it is not the one that
    is expected.
    """
    if task.expected:
        same = all(values[name] == value for name, value in task.expected.items())
        return 0 if same else None
    for index, source in enumerate(task.sources):
        try:
            if ends.content(source, task.checksums, control, told=True) == (size, values):
                return index
        except SourceError:
            continue
    return None


def _copy_from(place: AnyPlace, index: int, task: CopyTask, control: Control, ends: Ends) -> Steps:
    temporary = temporary_name(task.number, task.epoch)
    carried = ends.carried(place, task, temporary, control)
    if carried is not None:
        with _cleaned(carried.target, task):
            as_written = _content(carried.target, task, carried.size)
            read = _Read(carried.size, carried.source_checksums, as_written)
            return (yield from _published(carried.target, place, index, read, task, control, ends))
    new, read = _filled(place, temporary, task, control, ends)
    with _cleaned(new, task):
        new.write_out()
        yield Step.WRITTEN
        new.finish()
        control.moved(read.total)
        if task.verify_target and read.as_written is None:
            read = read._replace(as_written=_content(new, task, read.total))
        return (yield from _published(new, place, index, read, task, control, ends))


def _filled(
    place: AnyPlace, temporary: str, task: CopyTask, control: Control, ends: Ends
) -> tuple[Target, _Read]:
    """Open both ends, and copy the bytes."""
    with closing(ends.source(place, task, control)) as source:
        refuse_size(task, source.size, place.shown)
        if not task.strict_copy:
            ends.refuse_taken(task, control)
        new = ends.target(task, temporary, source.size, control, partial(_leave, control))
        with _cleaned(new, task):
            return new, _pump(source, place, new, task, control)


class _cleaned:  # noqa: N801 - reads as a with statement
    """Removes what a failed attempt wrote, unless it is to stay."""

    def __init__(self, new: Target, task: CopyTask) -> None:
        self._new = new
        self._stays = task.disable_cleanup

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is None:
            return
        if self._stays:
            self._new.leave()
        else:
            self._new.discard()


def _leave(control: Control) -> None:
    """Ask for the leave to publish."""
    if control.stopped() or not control.may_publish():
        raise MoveError(canceled())


def _published(
    new: Target,
    place: AnyPlace,
    index: int,
    read: _Read,
    task: CopyTask,
    control: Control,
    ends: Ends,
) -> Steps:
    """Verify what is whole, and give it its name."""
    _verify(place, task, read, control, ends)
    yield Step.WHOLE
    _leave(control)
    new.publish(overwrite=task.overwrite)
    control.moved(read.total)
    yield Step.NAMED
    new.settle()
    control.moved(read.total)
    return Copied(index, read.total, read.as_read or read.as_written or {})


def _content(new: Target, task: CopyTask, total: int) -> Mapping[str, str]:
    """The checksums of what the target's storage has."""
    size, values = new.content(task.checksums)
    if size != total:
        shown = task.target.shown
        raise MoveError(wrong_content("the target", shown, f"{total} bytes", f"{size} bytes"))
    return values


def _pump(source: Source, place: AnyPlace, new: Target, task: CopyTask, control: Control) -> _Read:
    """Copy the bytes.

    What was read has no checksums where the ones expected are compared with those read back: a copy
    of wrong bytes would not have them.
    """
    reads_back = task.verify_target and new.reads_back
    skip_read = reads_back and task.expected.keys() == set(task.checksums)
    # A storage is not to wait with an open request until all is read.
    at_once = new.reads_back and task.max_bytes_per_second is None
    small = source.size is not None and source.size < BLOCK_BYTES
    pump = _pump_at_once if at_once and small else _pump_in_blocks
    read = pump(source, new, task, control, skip_read=skip_read, reads_back=reads_back)
    if not source.is_whole(read.total) or task.size_bytes not in (None, read.total):
        raise SourceError(
            Failed(
                FailureClass.SOURCE_UNREADABLE,
                f"the source changed while it was read: {place.shown}",
                "leave it alone until it is copied",
                recoverable=True,
            )
        )
    return read


def _pump_at_once(
    source: Source,
    new: Target,
    task: CopyTask,
    control: Control,
    *,
    skip_read: bool,
    reads_back: bool,
) -> _Read:
    """Copy what fits into one block."""
    # One byte more than there is, to see that there is no more.
    size = source.size or 0
    data, total = bytearray(size + 1), 0
    with memoryview(data) as block:
        while True:
            if control.stopped():
                raise MoveError(canceled())
            count = source.read_some(block[total:])
            total += count
            control.moved(0)
            if count == 0 or total >= size:
                break
        new.write(block[:total])
    del data[total:]
    control.moved(total)
    as_read = None if skip_read else checksums_of(data, task.checksums)
    if not reads_back:
        return _Read(total, as_read, None)
    again = bytearray(total)
    new.read_back(0, memoryview(again))
    same = as_read is not None and again == data
    return _Read(total, as_read, as_read if same else checksums_of(again, task.checksums))


def _pump_in_blocks(
    source: Source,
    new: Target,
    task: CopyTask,
    control: Control,
    *,
    skip_read: bool,
    reads_back: bool,
) -> _Read:
    """Copy in bounded memory."""
    large = source.size is None or source.size >= _LARGE_BYTES
    lane = _ThreadLane if large else _Lane
    as_read = None if skip_read else Checksums(task.checksums)
    as_written = Checksums(task.checksums) if reads_back else None
    with lane() as read, lane() as read_back:
        total = _pump_blocks(source, new, task, control, (read, as_read), (read_back, as_written))
        read.finish()
        read_back.finish()
    return _Read(
        total,
        None if as_read is None else as_read.values(),
        None if as_written is None else as_written.values(),
    )


def _pump_blocks(
    source: Source,
    new: Target,
    task: CopyTask,
    control: Control,
    read: "tuple[_Lane, Checksums | None]",
    read_back: "tuple[_Lane, Checksums | None]",
) -> int:
    """Copy block by block; the checksums of a block are computed while the next ones move."""
    (read_lane, as_read), (read_back_lane, as_written) = read, read_back
    pace = Pace(task.max_bytes_per_second)
    # One byte more than a small file has, to see that it has no more.
    enough = BLOCK_BYTES if source.size is None else source.size + 1
    size = pace.block(min(BLOCK_BYTES, enough))
    blocks = [memoryview(bytearray(size)) for _ in range(read_lane.depth + 1)]
    again = memoryview(bytearray(size))

    def check(checksums: Checksums, offset: int, count: int) -> None:
        new.read_back(offset, again[:count])
        checksums.update(again[:count])

    def waits() -> bool:
        control.moved(total)
        return not control.stopped()

    total = 0
    for turn in itertools.count():
        if control.stopped():
            raise MoveError(canceled())
        block = blocks[turn % len(blocks)]
        count = source.read_some(block)
        if count == 0 or (source.size is not None and total > source.size):
            return total  # of one that grows, more than it had
        if as_read is not None:
            read_lane.do(partial(as_read.update, block[:count]))
        new.write(block[:count])
        if as_written is not None:
            read_back_lane.do(partial(check, as_written, total, count))
        total += count
        control.moved(total)
        pace.spend(count, waits)
    raise AssertionError("the count has no end")


def _verify(place: AnyPlace, task: CopyTask, read: _Read, control: Control, ends: Ends) -> None:
    """Compare with what is expected, or the ends with each other when nothing is."""
    if task.verify_source and read.as_read is not None:
        _compare("the source", place, task.expected, read.as_read)
    if not task.verify_target or read.as_written is None:
        return
    wanted = task.expected or read.as_read or {}
    if any(read.as_written[name] != value for name, value in wanted.items()):
        # Which end is wrong decides whether another source may help.
        as_read = read.as_read or ends.content(place, list(read.as_written), control).checksums
        _compare("the source", place, task.expected, as_read)
        _compare("the target", task.target, wanted, read.as_written)


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
    what: str, place: AnyPlace, expected: Mapping[str, str], actual: Mapping[str, str]
) -> None:
    for name, value in expected.items():
        if actual[name] != value:
            failed = wrong_content(what, place.shown, f"{name}:{value}", f"{name}:{actual[name]}")
            raise SourceError(failed) if what == "the source" else MoveError(failed)
