"""The two ends of a copy, whatever they are made of.

Responsible for the interfaces between `copying`, which knows the order of steps, and those who know
a kind of storage (`local`, `webdav`). Ends say what went wrong as failures.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

from gridlane_transfer.backends.embedded.places import Place
from gridlane_transfer.backends.embedded.webdav.urls import RemotePlace
from gridlane_transfer.moving.failures import MoveError, wrong_content

BLOCK_BYTES = 1 << 18
AnyPlace = Place | RemotePlace


class SourceError(MoveError):
    """One source is of no use; another may be."""


class Control(Protocol):
    """What a copy asks and tells while it runs."""

    def stopped(self) -> bool:
        """Whether to end at once."""

    def may_publish(self) -> bool:
        """Whether the bytes, whole under their temporary name, may get their own one; blocks."""

    def moved(self, total_bytes: int) -> None:
        """So many bytes were written so far. Called again and again as long as anything moves, also
        with 0 while files are only read: who is not called takes the copy for hung."""

    def closing(self, close: Callable[[], None]) -> AbstractContextManager[None]:
        """Within the block, `close` is called from another thread when the copy is to end: what
        the copy waits for is woken."""


class CopyTask(NamedTuple):
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
        max_bytes_per_second, streams, disable_cleanup, strict_copy, scitag, third_party: as in
            `MoveOrder`.
    """

    number: int
    epoch: int
    sources: Sequence[AnyPlace]
    target: AnyPlace
    overwrite: bool
    verify_source: bool
    verify_target: bool
    size_bytes: int | None
    expected: Mapping[str, str]
    checksums: Sequence[str]
    resumed: bool
    max_bytes_per_second: int | None = None
    streams: int = 0
    disable_cleanup: bool = False
    strict_copy: bool = False
    scitag: int = 0
    third_party: bool = True


class Content(NamedTuple):
    """What is in a file."""

    size_bytes: int
    checksums: Mapping[str, str]


class Found(NamedTuple):
    """What a storage says of a file without its bytes being read.

    Parameters:
        checksums: those that it tells unasked for bytes, by algorithm; may be empty.
        modify_s: when it was last written, seconds since 1970; None when it does not say.
    """

    size_bytes: int
    checksums: Mapping[str, str]
    modify_s: float | None


class Source(ABC):
    """A file being read from its beginning. Errors are `SourceError`."""

    size: int | None
    """Its bytes; None when the storage does not say."""

    @abstractmethod
    def read_some(self, block: memoryview) -> int:
        """Fill a block, or some of it; 0 at the end."""

    @abstractmethod
    def is_whole(self, total: int) -> bool:
        """Whether so many bytes are all of it."""

    @abstractmethod
    def close(self) -> None:
        """End it."""


class Target(ABC):
    """A file being written under a temporary name. Exactly one of `publish` with `settle`,
    `discard` and `leave` ends it.
    """

    reads_back: bool
    """Whether what was written can be read while more is written."""

    @abstractmethod
    def write(self, data: memoryview) -> None:
        """Append bytes, all of them."""

    @abstractmethod
    def read_back(self, offset: int, block: memoryview) -> None:
        """Fill a block with what was written at an offset; only where `reads_back`."""

    @abstractmethod
    def write_out(self) -> None:
        """Nothing more comes: `finish` may be done together with that of others."""

    @abstractmethod
    def finish(self) -> None:
        """Nothing more comes: have the bytes durable."""

    @abstractmethod
    def content(self, algorithms: Iterable[str]) -> Content:
        """What lies under the temporary name, as the storage has it, after `finish`."""

    @abstractmethod
    def publish(self, *, overwrite: bool) -> None:
        """Give it its own name, in one step; it is durable after `settle`."""

    @abstractmethod
    def settle(self) -> None:
        """Have what `publish` did durable, where it is not yet."""

    @abstractmethod
    def discard(self) -> None:
        """Remove it; never fails."""

    @abstractmethod
    def leave(self) -> None:
        """Let go of it; what was written stays."""


class Carried(NamedTuple):
    """A file that two storages have copied between them.

    Parameters:
        target: finished, under its temporary name.
        source_checksums: what the source's storage says of the file; None when it does not.
    """

    target: Target
    size: int
    source_checksums: Mapping[str, str] | None


def refuse_size(task: CopyTask, size: int | None, shown: str) -> None:
    """Say early that a source has another size than the one it must have.

    Raises:
        SourceError: it has.
    """
    if task.size_bytes is not None and size is not None and size != task.size_bytes:
        raise SourceError(
            wrong_content("the source", shown, f"{task.size_bytes} bytes", f"{size} bytes")
        )
