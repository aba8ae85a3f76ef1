"""What the contract tests share: the tools of the environment, and a copy of the tree to break.

A check that cannot fail proves nothing, so each one here is also run on a copy in which the very
thing it guards against was planted.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from workers import alone

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
COPIED = (
    "buf.gen.yaml",
    "buf.yaml",
    "clients",
    "protos",
    "pyproject.toml",
    "services",
    "third_party",
    "tools",
)

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def bin_directory() -> Path:
    """Where the programs of the environment are that the tests run in."""
    return BIN


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the sources that a test may break."""
    copy = tmp_path / "tree"
    copy.mkdir()
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copy / name)
    (copy / ".tools").symlink_to(ROOT / ".tools")
    return copy


@pytest.fixture(scope="session")
def run() -> Run:
    """Runs a tool of the environment in a folder; gives its exit code and its joined output."""

    def run_tool(
        folder: Path, tool: str, *arguments: str | Path, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [BIN / tool, *arguments],
            cwd=folder,
            env={**os.environ, **(env or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )

    return run_tool


@pytest.fixture(scope="session")
def tools(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tool environments, made when missing.

    Where they cannot be made (a Python newer than the oldest toolchain's) a developer's run skips
    and says so; in CI it fails.
    """
    with alone(tmp_path_factory):
        _make(root, "tools")
    return root / ".tools"


@pytest.fixture(scope="session")
def foreign_packages(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The environment of the foreign packages that our messages are compared with.

    Made when missing; where it cannot be made, as `tools`.
    """
    with alone(tmp_path_factory):
        _make(root, ".tools/shapes/.installed")
    return root / ".tools/shapes"


def _make(root: Path, target: str) -> None:
    made = subprocess.run(
        ["make", "--silent", target], cwd=root, capture_output=True, text=True, check=False
    )
    if made.returncode != 0:
        message = f"`make {target}` failed: {made.stderr.strip()}"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
