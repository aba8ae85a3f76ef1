"""The files of a folder, located by what was found of the first of them.

Responsible for locating many names at once: most files of a description lie beside each other, and
what differs is the last part of their names. What a name stands for is `StorageElements.locate`'s.
"""

import re
from typing import Final

from gridlane_transfer.backends.base import Location
from gridlane_transfer.storage.bans import Operation
from gridlane_transfer.storage.storage_elements import Located, StorageElements

# What needs no quoting, is no way to another folder and no name of Gridlane's own.
_plain: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.~-]*").fullmatch


class Folders:
    """Locates names for one operation. For one moment: it keeps what elements and bans say in it.

    Parameters:
        internal: whether the caller may name internal elements.
    """

    def __init__(self, elements: StorageElements, operation: Operation, *, internal: bool) -> None:
        self._elements = elements
        self._operation = operation
        self._internal = internal
        self._found: dict[str, Located] = {}

    def locate(self, name: str) -> Located | None:
        """As `StorageElements.locate`."""
        folder, _, last = name.rpartition("/")
        found = self._found.get(folder)
        if found is None or not _plain(last):
            return self._alone(name, folder, last)
        (url, element, base, relative, shown), lfn, vo, path = found
        return Located(
            Location(url + last, element, base, relative + last, shown + last),
            lfn and lfn + last,
            vo,
            path + last,
        )

    def _alone(self, name: str, folder: str, last: str) -> Located | None:
        """Locates a name by itself; a plain one tells of its folder: elements and the paths of VOs
        end where a folder does.
        """
        found = self._elements.locate(name, internal=self._internal, operation=self._operation)
        if found is not None and _plain(last):
            (url, element, base, relative, shown), lfn, vo, path = found
            end = -len(last)
            location = Location(url[:end], element, base, relative[:end], shown[:end])
            self._found[folder] = Located(location, lfn[:end], vo, path[:end])
        return found
