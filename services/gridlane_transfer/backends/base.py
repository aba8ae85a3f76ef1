"""What a transfer backend is: the interface that `reconciler` drives, and the words between them.

Responsible for the abstract mover and the frozen messages to and from it. A backend moves one file
at a time as ordered; it knows no jobs, no database and no retries: the one retry budget is at the
file transfer.

What every backend promises is tested by one suite, `tests/integration/mover/test_conformance.py`,
which a new one, or a new kind of storage, is added to by a line.
"""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from gridlane_transfer.channels.bundles import Bundle
from gridlane_transfer.moving.failures import Failed

BACKENDS: Final = "transferBackends/"
"""What the resource names of backends begin with."""


class Location(NamedTuple):
    """A physical file: its URL, the storage element, and the path below the element's base,
    decoded. `shown` is what users are told it is called: never the server's own path.
    """

    url: str
    storage_element: str
    base: str
    relative: str
    shown: str


@dataclass(frozen=True, slots=True)
class MoveOrder:
    """One attempt to move a file.

    Parameters:
        number: the file transfer's number.
        epoch: the lease epoch: grows with each attempt, belongs into the name of what is half
            written.
        sources: where the bytes may be had, tried in order.
        target: where they go.
        overwrite: whether an existing target is replaced.
        verify_source, verify_target: which ends' checksums are verified.
        size_bytes: the size the file must have; None for any.
        expected: the checksums it must have, by algorithm ("ADLER32").
        checksums: the algorithms to compute.
        resumed: an earlier attempt may have published the target unheard.
        max_bytes_per_second: at most so many are moved in a second; None: no limit.
        streams: connections for one file where the protocol knows several; 0: the backend chooses.
        timeout_s: the attempt ends as failed after so many seconds; None: it may take its time.
        disable_cleanup: what a failed attempt wrote stays.
        strict_copy: nothing is looked at or made ready before the copy, and nothing verified after.
        scitag: the SciTags flow label for what goes over a network; 0: none.
        third_party: whether the ends may be asked to copy between them, the bytes not passing here.
    """

    number: int
    epoch: int
    sources: Sequence[Location]
    target: Location
    overwrite: bool
    verify_source: bool
    verify_target: bool
    size_bytes: int | None
    expected: Mapping[str, str]
    checksums: Sequence[str]
    resumed: bool
    max_bytes_per_second: int | None = None
    streams: int = 0
    timeout_s: float | None = None
    disable_cleanup: bool = False
    strict_copy: bool = False
    scitag: int = 0
    third_party: bool = True


@dataclass(frozen=True, slots=True)
class Moved:
    """The file is at its target: verified as ordered, whole, durable.

    Parameters:
        adopted: it was there already, as an earlier attempt would have left it.
    """

    source: Location
    size_bytes: int
    checksums: Mapping[str, str]
    adopted: bool = False


@dataclass(frozen=True, slots=True)
class FileInfo:
    """What a storage says of a file without its bytes being read.

    Parameters:
        size_bytes: -1 when it does not say.
        checksums: those that it tells, by algorithm; may be empty.
        modify_s: when it was last written, seconds since 1970; None when it does not say.
    """

    size_bytes: int
    checksums: Mapping[str, str]
    modify_s: float | None


@dataclass(frozen=True, slots=True)
class BackendReport:
    """How a backend is."""

    name: str
    reachable: bool
    version: str
    message: str = ""


MayPublish = Callable[[], Awaitable[bool]]
Ordered = tuple[MoveOrder, MayPublish | None]
"""An order, and who is asked before its file gets its name; as `TransferBackend.move` takes them.
"""


class TransferBackend(ABC):
    """Moves files between the URL schemes that it names."""

    name: str
    checksums: frozenset[str]
    """The algorithms that it computes: a capability, asked before a job is accepted."""
    protocols: frozenset[str]
    """The schemes of the URLs that it reads from and writes to."""
    capabilities: frozenset[str]
    """The `TransferCapability` values that it has, without prefix: what orders may ask of it."""

    bundle: Bundle
    """The files that it moves better together than one by one."""

    @abstractmethod
    async def start(self) -> None:
        """Get ready to take orders."""

    @abstractmethod
    async def stop(self) -> None:
        """Abort what runs, leaving nothing half written, and end."""

    @abstractmethod
    def capacity(self) -> int:
        """How many orders it carries out at once."""

    @abstractmethod
    async def move(self, order: MoveOrder, may_publish: MayPublish | None = None) -> Moved | Failed:
        """Carry an order out; the answer comes when it ended, one way or the other.

        Parameters:
            may_publish: asked when something lies at the target that an order of a later epoch
                removes before all else, and before the file gets its name; False ends the order,
                as CANCELED. None: nobody else can have an order for this file.
        """

    @abstractmethod
    def moves_together(self, order: MoveOrder) -> bool:
        """Whether `move_bundle` moves a file together with others; else one after the other, so
        that each had better be moved, and told of, by itself.
        """

    @abstractmethod
    async def move_bundle(self, orders: Sequence[Ordered]) -> Sequence[Moved | Failed]:
        """Carry out the orders of small files, one after the other or together, at no more load
        than one order; each ends as with `move`. The answers come when all have ended.
        """

    @abstractmethod
    async def clean(self, order: MoveOrder) -> None:
        """Remove what attempts before this epoch may have left; failures to do so are ignored."""

    @abstractmethod
    async def stat(self, location: Location, checksums: Sequence[str] = ()) -> FileInfo | Failed:
        """What a storage says of a file; class SOURCE_MISSING when there is none.

        Parameters:
            checksums: algorithms that are asked for; none is computed by reading the file.
        """

    @abstractmethod
    async def remove(self, location: Location) -> bool | Failed:
        """Remove a file durably; False when it was not there."""

    @abstractmethod
    def abort(self, number: int) -> None:
        """End a running order of this file soon; its answer is then CANCELED, or that it was done
        before.
        """

    @abstractmethod
    def progress(self, number: int) -> int | None:
        """Bytes moved by the running order of this file; None when none runs."""

    @abstractmethod
    def report(self) -> BackendReport:
        """How it is."""
