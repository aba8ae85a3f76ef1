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


WITH_COMMANDS = [page for page in PAGES if commands_of(page)]


def test_the_tutorial_has_commands() -> None:
    assert ROOT / "docs/tutorials/first-job.md" in WITH_COMMANDS


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_of_the_page_work(page: Path, embedded_server: Deployment, tmp_path: Path) -> None:
    run_commands(page, embedded_server, tmp_path)


@pytest.mark.parametrize("page", ["run-a-job", "give-and-take-rights"])
def test_commands_of_a_page_work_with_one_process_a_service(
    page: str, split_server: Deployment, tmp_path: Path
) -> None:
    run_commands(ROOT / f"docs/how-to/{page}.md", split_server, tmp_path)


def run_commands(page: Path, server: Deployment, tmp_path: Path) -> None:
    """Runs a page's commands and programs, in order, in an empty directory."""
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("GRIDLANE_", "BEARER_"))},
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        **server.client_environment,
        "HOME": str(tmp_path),
    }
    for command, expected in commands_of(page):
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        told = f"$ {command[-1]}\n{done.stdout}{done.stderr}"
        print(told)
        assert done.returncode == expected, told
