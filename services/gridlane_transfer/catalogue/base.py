"""What a replica catalogue is: the interface that calls and transfers use, and the words between
them.

Responsible for the abstract catalogue and its frozen messages. A catalogue keeps which logical
files there are and where their copies lie, and one rule: every copy of a logical file has the same
bytes. It knows no callers, no scopes and no storage: who may is asked before (`replicas`), and for
removals through `Removal.refusal`, of the very row that is to go.

The embedded catalogue (`embedded`) lies in the service's own database and takes part in its
transactions. One that lies elsewhere (Rucio, the DIRAC File Catalogue) cannot: what a transaction
asks it for it answers as `Catalogue` says, and what is owed to it `moving.registrar` brings. The
bytes that are put or removed through the service, and what bans and explanations look at, keep to
the embedded catalogue's rows.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from gridlane_kit.decision import Visibility
from gridlane_kit.errors import GridlaneError
from gridlane_kit.pages import Page


@dataclass(frozen=True, slots=True)
class StoredReplica:
    """One copy."""

    url: str
    storage_element: str
    create_us: int


@dataclass(frozen=True, slots=True)
class LogicalFile:
    """A logical file with its copies, in the order of their registration.

    Parameters:
        owner: who registered it first.
        checksum: `ALGORITHM:hex`.
        guid: a UUID in lower case; empty when it has none.
    """

    lfn: str
    vo: str
    owner: str
    size_bytes: int
    checksum: str
    create_us: int
    replicas: tuple[StoredReplica, ...]
    guid: str = ""

    def replica(self, url: str) -> StoredReplica | None:
        """The copy of a URL; None when it is not registered."""
        return next((replica for replica in self.replicas if replica.url == url), None)

    def on(self, element: str) -> Sequence[StoredReplica]:
        """The copy on a storage element, given by its resource name: a logical file lies there
        once, registered by as many URLs as lead to it.
        """
        return [replica for replica in self.replicas if replica.storage_element == element]


@dataclass(frozen=True, slots=True)
class Registration:
    """A copy to register.

    Parameters:
        checksums: by algorithm; the first one is registered when the file is new.
        replaces: whether the copy's bytes took the place of others under the same URL.
        guid: the one that the file has or gets, in lower case; empty when none is told.
        makes_guid: whether a file that is new gets a GUID of the catalogue's when none is told.
    """

    lfn: str
    url: str
    storage_element: str
    vo: str
    owner: str
    size_bytes: int
    checksums: Mapping[str, str]
    replaces: bool
    time_us: int
    guid: str = ""
    makes_guid: bool = False

    @property
    def checksum(self) -> str:
        """The first checksum, as it is stored."""
        name, value = next(iter(self.checksums.items()))
        return f"{name}:{value}"


class ConflictError(Exception):
    """What a copy is registered with contradicts what is there; the message says what.

    Parameters:
        name: what is taken: the logical name, or the GUID.
    """

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


def _nobody_refuses(_: LogicalFile) -> GridlaneError | None:
    return None


@dataclass(frozen=True, slots=True)
class Removal:
    """Copies to take out.

    Parameters:
        copies: each by its URL, or by the storage element that it lies on.
        refusal: asked of the file as it is when it would be changed: why it is not to be.
    """

    lfn: str
    copies: Sequence[str]
    refusal: Callable[[LogicalFile], GridlaneError | None] = _nobody_refuses

    def takes(self, replica: StoredReplica) -> bool:
        """Whether a copy is among those to take out."""
        return replica.url in self.copies or replica.storage_element in self.copies


class Catalogue(ABC):
    """A replica catalogue.

    What its methods cannot do for all, such as when it does not answer, they raise as a
    GridlaneError; what concerns one item alone stands in its place among the answers.
    """

    name: str

    @abstractmethod
    async def resolve(self, lfns: Sequence[str]) -> Sequence[LogicalFile | None]:
        """What names stand for, in the order asked; None for what is not registered."""

    @abstractmethod
    async def page_below(
        self, prefix: str, reach: Visibility, page: Page
    ) -> tuple[Sequence[LogicalFile], str]:
        """A page of the logical files within reach whose names begin with `prefix`, in the order
        of their names' code points, and the token of the next page.
        """

    @abstractmethod
    async def register(
        self, copies: Sequence[Registration], *, deadline: float | None = None
    ) -> Sequence[LogicalFile | Exception]:
        """Register copies, and their logical files when those are new; durable when it returns.

        The same again answers the same.

        Parameters:
            deadline: in the loop's time; passed before the writing began, nothing is written.

        Returns:
            For each, in order: the file after it; or ConflictError, when it is registered with
            other bytes or another GUID. Bytes that replace a file's only copy are no conflict.
        """

    @abstractmethod
    async def unregister(
        self, removals: Sequence[Removal], *, deadline: float | None = None
    ) -> Sequence[int | Exception]:
        """Take copies out, and each logical file with its last one; durable when it returns.

        Returns:
            For each, in order: how many copies went, 0 when there were none; or its refusal.
        """

    @abstractmethod
    def known(self, conn: Connection, lfns: Sequence[str]) -> Mapping[str, LogicalFile]:
        """What a transaction is told of names, without waiting for anything but its database.

        What is not registered is left out; by one that lies elsewhere, what it has not at hand.
        """

    @abstractmethod
    def register_with(self, conn: Connection, copy: Registration) -> LogicalFile | None:
        """Register a copy in a transaction of the service, with what else that does.

        Returns:
            The file; None when the catalogue lies elsewhere: the registration is owed then, and
            `register` is called after the commit.

        Raises:
            ConflictError: as `register`; nothing was written.
        """
