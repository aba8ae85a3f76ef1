"""A directory and two WebDAV storages for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from mover_ground import Ground
from webdav_server import serving


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Ground]:
    folder = tmp_path / "folder"
    folder.mkdir()
    with serving(tmp_path / "a") as a, serving(tmp_path / "b") as b:
        yield Ground(folder, a, b)
