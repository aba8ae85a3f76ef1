"""Every command and every program in the documentation works.

A page's commands are the lines that begin with `$ ` in its ```console blocks, its programs are its
```python blocks. They run in order, in an empty directory, against a real server. A command that is
meant to fail says so at its end: `# exits with 3`. Blocks of another form (start a server, set a
variable) are not run: the fixture does what they say.
"""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import Deployment

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(console|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
EXIT = re.compile(r"\s+# exits with (\d+)$")


def commands_of(page: Path) -> list[tuple[list[str], int]]:
    """The page's commands and programs, each with the exit code that it must have."""
    found = []
    for language, block in BLOCK.findall(page.read_text()):
        if language == "python":
            found.append(([sys.executable, "-c", block], 0))
            continue
        for line in block.splitlines():
            if line.startswith("$ "):
                meant = EXIT.search(line)
                found.append(
                    (["bash", "-c", EXIT.sub("", line[2:])], int(meant[1]) if meant else 0)
                )
    return found


ENDS_TOKENS = {"replace-the-signing-key"}
"""Pages after whose commands a server is not as it was: they have one of their own."""
WITH_COMMANDS = [page for page in PAGES if commands_of(page)]


def test_the_tutorial_has_commands() -> None:
    assert ROOT / "docs/tutorials/first-job.md" in WITH_COMMANDS


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_of_the_page_work(
    page: Path, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    if page.stem in ENDS_TOKENS:
        server: Deployment = request.getfixturevalue("start_server")()
    else:
        server = request.getfixturevalue("embedded_server")
    folder = tmp_path / "empty"
    folder.mkdir()
    run_commands(page, server, folder)


@pytest.mark.parametrize("page", ["run-a-job", "give-and-take-rights"])
def test_commands_of_a_page_work_with_one_process_a_service(
    page: str, split_server: Deployment, tmp_path: Path
) -> None:
    # Its processes find each other a moment after they serve; `ping`, on a page, tells of that.
    deadline = time.monotonic() + 60
    while run(["gridlane", "ping"], split_server, tmp_path).returncode != 0:
        assert time.monotonic() < deadline, "they do not find each other"
        time.sleep(0.2)
    run_commands(ROOT / f"docs/how-to/{page}.md", split_server, tmp_path)


def run_commands(page: Path, server: Deployment, tmp_path: Path) -> None:
    """Runs a page's commands and programs, in order, in an empty directory."""
    for command, expected in commands_of(page):
        done = run(command, server, tmp_path)
        told = f"$ {command[-1]}\n{done.stdout}{done.stderr}"
        print(told)
        assert done.returncode == expected, told


def run(
    command: list[str], server: Deployment, tmp_path: Path
) -> "subprocess.CompletedProcess[str]":
    """Runs a command of a page as its reader would."""
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("GRIDLANE_", "BEARER_"))},
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        **server.client_environment,
        "HOME": str(tmp_path),
    }
    return subprocess.run(
        command,
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
