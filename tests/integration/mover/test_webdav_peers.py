"""The mover against real WebDAV servers: nginx, and two XRootD that copy between them by https."""

import os
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from certificates import Authority
from mover_ground import CONTENT, LOOPBACK, Ground
from webdav_peers import (
    Peer,
    inside,
    nginx,
    outside,
    require_nginx,
    require_xrootd,
    run_inside,
    xrootd,
)
from webdav_server import Storage

from gridlane_transfer.backends.embedded.webdav.options import HttpOptions
from gridlane_transfer.backends.embedded.webdav.urls import RemotePlace
from gridlane_transfer.moving.failures import FailureClass

pytestmark = [pytest.mark.long, pytest.mark.timeout(420)]

NOWHERE = Storage(Path("/nonexistent"))
BIG = os.urandom(1 << 20) * 40


@pytest.fixture
def folder() -> Iterator[Path]:
    """A directory that servers which give up their rights can reach."""
    with tempfile.TemporaryDirectory(prefix="gridlane-peers-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    return Ground(tmp_path, NOWHERE, NOWHERE)


def at(peer: Peer, name: str) -> RemotePlace:
    return RemotePlace(f"{peer.url}/{name}", peer.url, name)


def files(peer: Peer) -> list[str]:
    found = (path for path in peer.root.rglob("*") if path.is_file())
    return sorted(str(path.relative_to(peer.root)) for path in found)


def there_and_back(ground: Ground, peer: Peer) -> None:
    """What every storage must do."""
    target = at(peer, "new/deep/target")
    ground.copy(ground.put(content=BIG), target)
    assert (peer.root / "new/deep/target").read_bytes() == BIG
    assert files(peer) == ["new/deep/target"]
    for streams in (0, 4):
        ground.copy(target, ground.local(f"back-{streams}"), streams=streams)
        assert (ground.folder / f"back-{streams}").read_bytes() == BIG
    taken = ground.failure(ground.put("small"), target)
    assert taken.failure_class is FailureClass.TARGET_EXISTS
    ground.copy(ground.put("small"), target, overwrite=True)
    assert (peer.root / "new/deep/target").read_bytes() == CONTENT
    assert files(peer) == ["new/deep/target"]
    missing = ground.failure(at(peer, "none"), ground.local("none"))
    assert (missing.failure_class, missing.recoverable) == (FailureClass.SOURCE_MISSING, False)
    wrong = ground.failure(ground.put("small"), at(peer, "wrong"), expected={"ADLER32": "00000001"})
    assert wrong.failure_class is FailureClass.CHECKSUM_MISMATCH
    assert files(peer) == ["new/deep/target"]


def test_nginx(ground: Ground, folder: Path) -> None:
    require_nginx()
    (folder / "a").mkdir()
    with nginx(folder / "a") as peer:
        there_and_back(ground, peer)


def test_nginx_without_move(ground: Ground, folder: Path) -> None:
    require_nginx()
    (folder / "a").mkdir()
    with nginx(folder / "a", moves=False) as peer:
        there_and_back(ground, peer)


def test_between_two_nginx_the_bytes_pass_the_mover(ground: Ground, folder: Path) -> None:
    require_nginx()
    with nginx(folder / "a") as a, nginx(folder / "b") as b:
        ground.copy(ground.put(content=BIG), at(a, "source"))
        ground.copy(at(a, "source"), at(b, "new/target"), streams=2)
        assert (b.root / "new/target").read_bytes() == BIG
        assert (files(a), files(b)) == (["source"], ["new/target"])


@outside
def test_xrootd() -> None:
    require_xrootd()
    run_inside(__file__, tests=3)


@pytest.fixture
def authority() -> Authority:
    return Authority()


@inside
def test_inside_xrootd(ground: Ground, folder: Path, authority: Authority) -> None:
    with xrootd(folder / "a", authority) as peer:
        ground.options = secure(folder, authority)
        there_and_back(ground, peer)


@inside
def test_inside_two_xrootd_copy_between_them(
    ground: Ground, folder: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    with xrootd(folder / "a", authority) as a, xrootd(folder / "b", authority) as b:
        ground.options = secure(folder, authority)
        ground.copy(ground.put(content=BIG), at(a, "source"))
        # Whoever reads a block in this process did not leave the copy to the storages.
        monkeypatch.delattr("gridlane_transfer.backends.embedded.webdav.ends.open_reader")
        monkeypatch.delattr("gridlane_transfer.backends.embedded.webdav.files.RangeReader")
        done = ground.copy(at(a, "source"), at(b, "new/target"))
        assert (b.root / "new/target").read_bytes() == BIG
        assert done.checksums == {"ADLER32": f"{zlib.adler32(BIG):08x}"}
        assert files(b) == ["new/target"]
        assert max(ground.control.totals) > 0
        again = ground.failure(at(a, "source"), at(b, "new/target"))
        assert again.failure_class is FailureClass.TARGET_EXISTS


@inside
def test_inside_a_copy_that_fails_at_xrootd_has_failed(
    ground: Ground, folder: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The target does not trust the source: 201, then `failure:`; the mover takes over."""
    with xrootd(folder / "a", authority) as a, xrootd(folder / "b", Authority("other")) as b:
        roots = folder / "both.pem"
        roots.write_bytes(
            (folder / "a/roots.pem").read_bytes() + (folder / "b/roots.pem").read_bytes()
        )
        ground.options = replace(LOOPBACK, ca_file=str(roots), idle_s=20)
        ground.copy(ground.put(content=BIG), at(a, "source"))
        ground.copy(at(a, "source"), at(b, "target"))
        assert (b.root / "target").read_bytes() == BIG
        assert files(b) == ["target"]


def secure(folder: Path, authority: Authority) -> HttpOptions:
    roots = authority.write_roots(folder / "all-roots.pem")
    return replace(LOOPBACK, ca_file=str(roots), idle_s=20)
