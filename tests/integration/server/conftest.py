"""The `gridlane-server` command, run to its end."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support import COMMAND

SECONDS = 60


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Runs the command to its end, in an environment without settings of Gridlane."""

    def run(*arguments: object, **environment: str) -> "subprocess.CompletedProcess[str]":
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("GRIDLANE_")}
        return subprocess.run(
            [COMMAND, *map(str, arguments)],
            env={**inherited, "HOME": str(tmp_path), **environment},
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )

    return run
