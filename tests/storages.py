"""Storages of every kind that a transfer backend moves files between, as tests look into them.

Responsible for having one of a kind for a test, and for the place of a file in it; what must hold
of moves between them is `integration/mover/test_conformance.py`. A kind that is new is a function
here and a line in `KINDS`.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from certificates import Authority
from webdav_peers import XROOTD_USER, nginx, require_nginx, require_xrootd, xrootd
from webdav_server import serving

from gridlane_transfer.backends.base import Location


@dataclass(frozen=True)
class Kept:
    """A storage whose files lie in a directory that a test can look into.

    Parameters:
        base_url: what its files' URLs begin with.
        base: what its places begin with: the directory for `file:`, else the base URL.
        root: the directory.
        user: who owns what lies there; empty: whoever runs the tests.
        lacking: characters that no name of a file may have.
    """

    base_url: str
    base: str
    root: Path
    user: str = ""
    lacking: str = ""

    def at(self, name: str) -> Location:
        """The place of a file."""
        url = f"{self.base_url}/{quote(name)}"
        return Location(url, "storageElements/some", self.base, name, f"LFN:/{name}")

    def have(self, name: str, content: bytes) -> Location:
        """A file that is there."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        if self.user:
            for made in (path, *path.relative_to(self.root).parents):
                shutil.chown(self.root / made, self.user)
        return self.at(name)

    def files(self) -> dict[str, bytes]:
        """Everything that lies there, whatever its name."""
        found = (path for path in self.root.rglob("*") if path.is_file())
        return {str(path.relative_to(self.root)): path.read_bytes() for path in found}


Kind = Callable[[Path, Authority], AbstractContextManager[Kept]]
"""Has a storage of a kind in a directory of its own; the authority signs for it."""


@contextmanager
def directory(folder: Path, authority: Authority) -> Iterator[Kept]:
    """A directory of this machine."""
    folder.mkdir()
    yield Kept(folder.as_uri(), str(folder), folder)


@contextmanager
def webdav(folder: Path, authority: Authority, *, moves: bool = True) -> Iterator[Kept]:
    """Our own WebDAV server."""
    with serving(folder) as storage:
        storage.moves = moves
        yield Kept(storage.url, storage.url, folder)


@contextmanager
def webdav_without_move(folder: Path, authority: Authority) -> Iterator[Kept]:
    """A WebDAV server that knows no MOVE."""
    with webdav(folder, authority, moves=False) as kept:
        yield kept


@contextmanager
def nginx_webdav(folder: Path, authority: Authority) -> Iterator[Kept]:
    """nginx."""
    require_nginx()
    folder.mkdir()
    with nginx(folder) as peer:
        yield Kept(peer.url, peer.url, peer.root)


@contextmanager
def xrootd_https(folder: Path, authority: Authority) -> Iterator[Kept]:
    """XRootD."""
    require_xrootd()
    folder.mkdir()
    with xrootd(folder, authority) as peer:
        # What follows a question mark it takes for words to itself; no name it moves a file to ends
        # with a letter beyond ASCII's.
        yield Kept(peer.url, peer.url, peer.root, user=XROOTD_USER, lacking="?&é")


KINDS: Final[Mapping[str, Kind]] = {
    "directory": directory,
    "webdav": webdav,
    "webdav-without-move": webdav_without_move,
    "nginx": nginx_webdav,
    "xrootd": xrootd_https,
}
