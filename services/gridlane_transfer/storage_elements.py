"""Storage elements: which places there are, and what a URL or a logical file name stands for.

Responsible for the map between logical names, URLs and paths, and for how an element is. Opens no
file of anybody's: that a path is not left by a symbolic link is seen to where it is opened
(`backends`).

A logical file name `LFN:/vo/path` lies at `<base URL>/vo/path` of an element that has a path for
the VO. A URL is served when it is below an element's base URL and, unless the element is internal,
below a VO's path there.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, unquote

from gridlane_transfer.backends.base import Location
from gridlane_transfer.settings import StorageElementSettings

PREFIX = "storageElements/"
_FILE = "file://"
_LFN = "LFN:"
# An empty, `.` or `..` component, or a control character.
_NOT_PLAIN = re.compile(r"(^|/)\.{0,2}(/|$)|[\x00-\x1f]").search
# Most paths are plain and need no quoting, and that is found out at once.
_SIMPLE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.~-]*(/[A-Za-z0-9_-][A-Za-z0-9_.~-]*)*").fullmatch


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
class StorageElement:
    """A configured element; `base` is its directory."""

    name: str
    base_url: str
    base: str
    vo_paths: dict[str, str]
    internal: bool

    def locate(self, path: str, name: str) -> Located | None:
        """What a path below the base stands for.

        Parameters:
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
        elif _NOT_PLAIN(relative):
            return None
        else:
            quoted = quote(relative)
        shown = name if vo else f"{self.name}/{relative}"
        location = Location(
            f"{self.base_url}/{quoted}", PREFIX + self.name, self.base, relative, shown
        )
        return Located(location, _LFN + path if vo else "", vo, path)

    def vo_of(self, path: str) -> str | None:
        """The VO below whose path a logical path lies; None when there is none."""
        for vo, vo_path in self.vo_paths.items():
            if path.startswith(vo_path) and path[len(vo_path) : len(vo_path) + 1] == "/":
                return vo
        return None

    def condition(self) -> Condition:
        """Look at the directory; blocks while the file system answers."""
        try:
            found = os.statvfs(self.base)
        except OSError as error:
            return Condition(False, False, -1, f"{PREFIX}{self.name}: {error.strerror}")
        readable = os.access(self.base, os.R_OK | os.X_OK)
        writable = os.access(self.base, os.W_OK | os.X_OK) and not found.f_flag & os.ST_RDONLY
        message = "" if readable and writable else f"{PREFIX}{self.name} is not {_lacks(readable)}"
        return Condition(readable, writable, found.f_bavail * found.f_frsize, message)


class StorageElements:
    """All elements, by name and by what they serve."""

    def __init__(self, elements: Sequence[StorageElementSettings]) -> None:
        self._elements = {
            element.name: StorageElement(
                element.name,
                element.base_url,
                unquote(element.base_url.removeprefix(_FILE)),
                dict(element.vo_paths),
                element.internal,
            )
            for element in elements
        }

    def all(self) -> list[StorageElement]:
        """Every element, by name."""
        return [self._elements[name] for name in sorted(self._elements)]

    def page(self, after: str, size: int) -> tuple[list[StorageElement], str]:
        """A page by name, and the next page's token, which is the last name of this one.

        Parameters:
            after: the token; empty for the first page.
            size: at most so many.

        Raises:
            KeyError: no page has this token.
        """
        if after and after not in self._elements:
            raise KeyError(after)
        rest = [element for element in self.all() if element.name > after]
        return rest[:size], rest[size - 1].name if len(rest) > size else ""

    def get(self, name: str) -> StorageElement | None:
        """An element by its resource name, "storageElements/{name}"."""
        return self._elements.get(name.removeprefix(PREFIX))

    def prepare(self) -> None:
        """Make the directories that are missing, where that can be done; `condition` tells of the
        others.
        """
        for element in self._elements.values():
            if os.access(Path(element.base).parent, os.W_OK):
                Path(element.base).mkdir(mode=0o700, exist_ok=True)

    def locate(self, name: str, *, internal: bool = False) -> Located | None:
        """What a URL or logical file name stands for; None when no element serves it.

        Parameters:
            name: "LFN:/vo/path" or a URL, its path percent-encoded or as it is.
            internal: whether the caller may name internal elements.
        """
        if name.startswith(_LFN):
            return self._locate_logical(name[len(_LFN) :])
        if not name.startswith(_FILE):
            return None
        path = name[len(_FILE) :]
        if "%" in path:
            path = unquote(path)
        for element in self._elements.values():
            base = element.base
            if path.startswith(base) and path[len(base) : len(base) + 1] == "/":
                if element.internal and not internal:
                    return None
                return element.locate(path[len(base) :], name)
        return None

    def _locate_logical(self, path: str) -> Located | None:
        """Where a logical name is written: on the first element, in the order configured, with its
        VO.
        """
        for element in self._elements.values():
            if not element.internal and element.vo_of(path) is not None:
                return element.locate(path, _LFN + path)
        return None


def _lacks(readable: bool) -> str:
    return "writable" if readable else "readable"
