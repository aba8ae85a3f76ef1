"""Storage elements: which places there are, and what a URL or a logical file name stands for.

Responsible for the one map of a process between logical names, URLs and places, for the choice of
an endpoint by what is to be done, and for what may be done at an element now. The map holds the
configured elements and those that administrators made; `store.refresh` keeps it as the store is.
Opens no file of anybody's: that a path is not left by a symbolic link is seen to where it is opened
(`backends`).

A logical file name `LFN:/vo/path` lies at `<base URL>/vo/path` of an element that has a path for
the VO. A URL is served when it is below an element's base URL and, unless the element is internal,
below a VO's path there.
"""

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import quote

from gridlane.transfer.v1 import storage_element_pb2
from gridlane_kit.clock import now_us
from gridlane_kit.pages import Page
from gridlane_transfer.backends.base import Location
from gridlane_transfer.settings import StorageElementSettings
from gridlane_transfer.storage.bans import Ban, Bans, Barred, Operation
from gridlane_transfer.storage.configured_elements import configured_settings
from gridlane_transfer.storage.element_urls import FILE, Place, not_plain, place_of, scheme_of

PREFIX = "storageElements/"
_LFN = "LFN:"
# Most paths are plain and need no quoting, and that is found out at once.
_SIMPLE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.~-]*(/[A-Za-z0-9_-][A-Za-z0-9_.~-]*)*").fullmatch
OWN_NAMES: Final = ".gridlane-"
"""What names begin with that Gridlane gives to what is half written, and to copies on the way."""


class AccessState(IntEnum):
    """`gridlane.transfer.v1.AccessState`, by number (DIRAC's resource status)."""

    ACTIVE = 1
    DEGRADED = 2
    PROBING = 3
    BANNED = 4


class Located(NamedTuple):
    """What a name stands for.

    Parameters:
        location: where the bytes lie or would lie.
        lfn: its logical file name; empty on an internal element.
        vo: the VO whose path it is below; empty on an internal element.
        path: the logical path, which token scopes speak of.
    """

    location: Location
    lfn: str
    vo: str
    path: str

    @property
    def internal(self) -> bool:
        """Whether only services may name it."""
        return not self.vo


@dataclass(frozen=True, slots=True)
class Condition:
    """How an element is now; `free_bytes` is -1 when it does not say."""

    readable: bool
    writable: bool
    free_bytes: int
    message: str = ""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much may go into and out of an element, all channels together; 0: no limit."""

    max_active_in: int = 0
    max_active_out: int = 0
    max_bandwidth_in_bytes_per_second: int = 0
    max_bandwidth_out_bytes_per_second: int = 0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One way to reach an element.

    Parameters:
        base: what its places begin with: a directory, or the base URL.
        operations: what it is used for; empty: everything.
    """

    base_url: str
    base: str
    place: Place
    operations: frozenset[Operation]

    @classmethod
    def of(cls, base_url: str, operations: Sequence[int] = ()) -> "Endpoint":
        """The endpoint of a base URL that can be served.

        Raises:
            ValueError: it cannot.
        """
        place = place_of(base_url)
        if place is None:
            raise ValueError(f"{base_url!r} cannot be served")
        base = place.path if place.family == FILE else base_url
        return cls(base_url, base, place, frozenset(map(Operation, operations)))

    @property
    def protocol(self) -> str:
        """The scheme of its URLs."""
        return scheme_of(self.base_url)

    @property
    def is_local(self) -> bool:
        """Whether it is a directory of this machine."""
        return self.place.family == FILE

    def serves(self, operation: Operation) -> bool:
        """Whether it is used for an operation."""
        return not self.operations or operation in self.operations


@dataclass(frozen=True, slots=True)
class StorageElement:
    """An element.

    Parameters:
        settings: the contract's form of its settings; `name` and what is output only are unset.
        revision: of its last change; 0 for a configured one, as are the times.
    """

    name: str
    endpoints: Sequence[Endpoint]
    vo_paths: Mapping[str, str]
    internal: bool = False
    configured: bool = True
    limits: Limits = Limits()
    settings: storage_element_pb2.StorageElement = field(
        default_factory=storage_element_pb2.StorageElement, compare=False
    )
    revision: int = 0
    create_us: int = 0
    update_us: int = 0

    @classmethod
    def of(
        cls,
        name: str,
        settings: storage_element_pb2.StorageElement,
        *,
        internal: bool = False,
        configured: bool = False,
        revision: int = 0,
        create_us: int = 0,
        update_us: int = 0,
    ) -> "StorageElement":
        """An element with the contract's settings."""
        limits = settings.limits
        return cls(
            name=name,
            endpoints=[Endpoint.of(one.base_url, one.operations) for one in settings.endpoints],
            vo_paths=dict(settings.vo_paths),
            internal=internal,
            configured=configured,
            limits=Limits(
                limits.max_active_in,
                limits.max_active_out,
                limits.max_bandwidth_in_bytes_per_second,
                limits.max_bandwidth_out_bytes_per_second,
            ),
            settings=settings,
            revision=revision,
            create_us=create_us,
            update_us=update_us,
        )

    @property
    def resource(self) -> str:
        """ "storageElements/{name}"."""
        return PREFIX + self.name

    @property
    def base_url(self) -> str:
        """The base URL of the endpoint that is preferred."""
        return self.endpoints[0].base_url

    @property
    def draining(self) -> bool:
        """Whether it is being emptied."""
        return self.settings.draining

    def access_state(self, operation: Operation) -> AccessState:
        """What administrators set for reading, writing, asking or removing; bans come besides."""
        given = getattr(self.settings.access, _ACCESS_FIELDS[operation])
        return AccessState(given or AccessState.ACTIVE)

    def endpoint(
        self, operation: Operation | None, named: Endpoint | None = None
    ) -> Endpoint | None:
        """The endpoint for an operation: the one that was named when it serves it, otherwise the
        first that does; None when none does.

        Parameters:
            operation: None: any.
        """
        if operation is None:
            return named or self.endpoint(Operation.WRITE) or self.endpoints[0]
        if named is not None and named.serves(operation):
            return named
        for one in self.endpoints:
            if one.serves(operation):
                return one
        return None

    def locate(self, endpoint: Endpoint, path: str, name: str) -> Located | None:
        """What a path below the base stands for.

        Parameters:
            endpoint: by which it is reached.
            path: from the base on, with a leading slash.
            name: by which it was asked for. On an internal element that is a path of the server's,
                and users are shown "<element>/<path>" instead.

        Returns:
            None when it is below no VO's path, or not plain.
        """
        vo = "" if self.internal else self.vo_of(path)
        if vo is None:
            return None
        relative = path[1:]
        if _SIMPLE(relative):
            quoted = relative
        elif not_plain(relative):
            return None
        else:
            quoted = quote(relative)
        shown = name if vo else f"{self.name}/{relative}"
        location = Location(
            f"{endpoint.base_url}/{quoted}", PREFIX + self.name, endpoint.base, relative, shown
        )
        return Located(location, _LFN + path if vo else "", vo, path)

    def vo_of(self, path: str) -> str | None:
        """The VO below whose path a logical path lies; None when there is none."""
        for vo, vo_path in self.vo_paths.items():
            if path.startswith(vo_path) and path[len(vo_path) : len(vo_path) + 1] == "/":
                return vo
        return None

    def condition(self) -> Condition:
        """Look at its directory; blocks while the file system answers. One without a directory is
        asked elsewhere.
        """
        base = next((one.base for one in self.endpoints if one.is_local), None)
        if base is None:
            return Condition(True, True, -1)
        try:
            found = os.statvfs(base)
        except OSError as error:
            return Condition(False, False, -1, f"{PREFIX}{self.name}: {error.strerror}")
        readable = os.access(base, os.R_OK | os.X_OK)
        writable = os.access(base, os.W_OK | os.X_OK) and not found.f_flag & os.ST_RDONLY
        message = "" if readable and writable else f"{PREFIX}{self.name} is not {_lacks(readable)}"
        return Condition(readable, writable, found.f_bavail * found.f_frsize, message)


_ACCESS_FIELDS: Final[Mapping[Operation, str]] = {
    Operation.READ: "read",
    Operation.WRITE: "write",
    Operation.CHECK: "check",
    Operation.REMOVE: "remove",
    Operation.THIRD_PARTY_READ: "read",
    Operation.THIRD_PARTY_WRITE: "write",
    Operation.STAGE: "read",
}
"""Which field of `StorageAccess` speaks of an operation."""


class StorageElements:
    """All elements, by name and by what they serve, and the bans of them.

    Parameters:
        configured: those that no verb changes; first in every choice. By name under `configured`.
    """

    def __init__(self, configured: Sequence[StorageElementSettings]) -> None:
        self.configured = {
            given.name: StorageElement.of(
                given.name,
                configured_settings(given),
                internal=given.internal,
                configured=True,
            )
            for given in configured
        }
        self._elements: dict[str, StorageElement] = {}
        self._by_tree: dict[tuple[str, str], list[tuple[str, StorageElement, Endpoint]]] = {}
        self._draining = False
        self._all_writable = True
        self._changed: list[Callable[[], None]] = []
        self.bans = Bans()
        self._put([])

    def take(self, stored: tuple[Sequence[StorageElement], Sequence[Ban]]) -> None:
        """Put in force what the store has.

        Parameters:
            stored: the elements that administrators made, in the order of their creation, of which
                one whose name is configured meanwhile is not served; and the bans.
        """
        made, bans = stored
        self._put(made)
        self.bans.replace(bans)
        for changed in self._changed:
            changed()

    def subscribe(self, changed: Callable[[], None]) -> None:
        """Call `changed`, in the event loop, after each change of elements or bans."""
        self._changed.append(changed)

    @property
    def all_open(self) -> bool:
        """Whether nothing is banned, and no element drains: mostly, and found out at once."""
        return not self._draining and not self.bans.any

    def all(self) -> list[StorageElement]:
        """Every element, by name."""
        return [self._elements[name] for name in sorted(self._elements)]

    def page(self, page: Page) -> tuple[list[StorageElement], str]:
        """A page by name, and the next page's token."""
        after = "" if page.after is None else str(page.after[0])
        rest = [element for element in self.all() if element.name > after]
        shown = rest[: page.size]
        return shown, page.token_after([shown[-1].name]) if len(rest) > page.size else ""

    def get(self, name: str) -> StorageElement | None:
        """An element by its resource name, "storageElements/{name}"."""
        return self._elements.get(name.removeprefix(PREFIX))

    def prepare(self) -> None:
        """Make the directories of configured elements that are missing, where that can be done;
        `condition` tells of the others.
        """
        for element in self.configured.values():
            for base in (endpoint.base for endpoint in element.endpoints if endpoint.is_local):
                if os.access(Path(base).parent, os.W_OK):
                    Path(base).mkdir(mode=0o700, exist_ok=True)

    def barred(
        self, element: str, operation: Operation, vo: str | None, time_us: int | None = None
    ) -> Barred | None:
        """What keeps a VO from an operation at an element now; None when nothing does.

        Parameters:
            element: the resource name.
            vo: None: everybody, so that bans of single VOs do not count.
            time_us: the present.
        """
        if not self.bans.any:
            return None
        return self.bans.barring(element, operation, vo, now_us() if time_us is None else time_us)

    def is_probed(self, element: str) -> bool:
        """Whether an element is to be read from last.

        Parameters:
            element: the resource name.
        """
        found = self.get(element)
        return found is not None and found.access_state(Operation.READ) is AccessState.PROBING

    def copies_between(self, location: Location, operation: Operation) -> bool:
        """Whether the endpoint of a place is one for third-party reading, or writing."""
        element = self.get(location.storage_element)
        for one in () if element is None else element.endpoints:
            if one.base == location.base and one.serves(operation):
                return True
        return False

    def locate(
        self,
        name: str,
        *,
        internal: bool = False,
        own: bool = False,
        operation: Operation | None = None,
    ) -> Located | None:
        """What a URL or logical file name stands for; None when no element serves it.

        Parameters:
            name: "LFN:/vo/path" or a URL, its path percent-encoded or as it is.
            internal: whether the caller may name internal elements.
            own: whether it may be a name that Gridlane has given, which nobody else may use: who
                wrote over what is half written would have it published as another's file.
            operation: what is to be done there: chooses the endpoint, and for a logical name that
                is to be written one of several elements. None: where it is registered.
        """
        if name.startswith(_LFN):
            path = name[len(_LFN) :]
            return None if _is_own(path) else self._locate_logical(path, operation)
        place = place_of(name)
        if place is None:
            return None
        path = place.path
        for base, element, named in self._by_tree.get(place.tree, ()):
            if path.startswith(base) and path[len(base) : len(base) + 1] == "/":
                if element.internal and not internal:
                    return None
                # The operator's own directories may be called anything.
                if _is_own(path[len(base) :]) and not own:
                    return None
                endpoint = element.endpoint(operation, named)
                if endpoint is None:
                    return None
                return element.locate(endpoint, path[len(base) :], name)
        return None

    def _locate_logical(self, path: str, operation: Operation | None) -> Located | None:
        """Where a logical name is written: on the first element with its VO that may be written
        now, else on the first with its VO. Configured ones come first, in their order, then the
        others in the order of their creation; those that are only probed come last.
        """
        found = []
        # Mostly any element may be written as well as another, and the first one is taken.
        any_will_do = operation is not Operation.WRITE or (self._all_writable and not self.bans.any)
        for element in self._elements.values():
            if not element.internal and element.vo_of(path) is not None:
                found.append(element)
                if any_will_do:
                    break
        if not found:
            return None
        element = found[0]
        if len(found) > 1:
            element = min(found, key=lambda one: self._reluctance(one, path))
        endpoint = element.endpoint(operation)
        return None if endpoint is None else element.locate(endpoint, path, _LFN + path)

    def _reluctance(self, element: StorageElement, path: str) -> int:
        """How little an element is to be chosen for a file that is to be written."""
        if element.endpoint(Operation.WRITE) is None:
            return 3
        if element.draining or self.barred(element.resource, Operation.WRITE, element.vo_of(path)):
            return 2
        return int(element.access_state(Operation.WRITE) is AccessState.PROBING)

    def _put(self, made: Sequence[StorageElement]) -> None:
        elements = dict(self.configured)
        for element in made:
            elements.setdefault(element.name, element)
        by_tree: dict[tuple[str, str], list[tuple[str, StorageElement, Endpoint]]] = {}
        for element in elements.values():
            for endpoint in element.endpoints:
                served = (endpoint.place.path, element, endpoint)
                by_tree.setdefault(endpoint.place.tree, []).append(served)
        self._elements, self._by_tree = elements, by_tree
        self._draining = any(element.draining for element in elements.values())
        self._all_writable = not self._draining and all(
            element.endpoint(Operation.WRITE) is not None
            and element.access_state(Operation.WRITE) is not AccessState.PROBING
            for element in elements.values()
        )


def overlapping(
    elements: Iterable[StorageElement], places: Sequence[Place]
) -> StorageElement | None:
    """An element that has a place that is, contains or lies in one of these; None: none has."""
    for element in elements:
        for own in (endpoint.place for endpoint in element.endpoints):
            if any(own.contains(other) or other.contains(own) for other in places):
                return element
    return None


def _is_own(path: str) -> bool:
    return f"/{OWN_NAMES}" in path


def _lacks(readable: bool) -> str:
    return "writable" if readable else "readable"
