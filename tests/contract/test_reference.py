"""The reference pages say what the code says."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from gridlane_kit.errors import CODES

Run = Callable[..., subprocess.CompletedProcess[str]]
ROOT = Path(__file__).resolve().parents[2]
TOOL = "tools/generate_reference.py"


def test_the_reference_pages_are_what_the_code_says() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / TOOL, "--check"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_is_not_what_the_code_says_is_named(tree: Path, run: Run) -> None:
    shutil.copytree(ROOT / "docs/reference", tree / "docs/reference")
    shutil.copy(ROOT / "ARCHITECTURE.md", tree)
    (tree / "tests/contract").mkdir(parents=True)
    shutil.copy(ROOT / "tests/contract/permission_cells.txt", tree / "tests/contract")
    made = run(tree, "python", TOOL)
    assert made.returncode == 0, made.stdout
    assert run(tree, "python", TOOL, "--check").returncode == 0

    change(tree / "protos/gridlane/gateway/v1/task_service.proto", "// Names a task.", "// A name.")
    change(tree / "ARCHITECTURE.md", "\n<!-- Until here. -->", " and more\n<!-- Until here. -->")
    (tree / "docs/reference/contract/gateway/left_over.md").write_text("# Gone\n")
    found = run(tree, "python", TOOL, "--check")
    assert found.returncode == 1
    assert "contract/gateway/task_service.md" in found.stdout
    assert "contract/gateway/left_over.md" in found.stdout
    assert "ARCHITECTURE.md" in found.stdout
    assert "settings.md" not in found.stdout


def change(file: Path, before: str, after: str) -> None:
    text = file.read_text()
    assert before in text
    file.write_text(text.replace(before, after, 1))


def test_every_error_reason_is_on_its_page() -> None:
    from gridlane.type.v1.error_reason_pb2 import ErrorReason

    page = (ROOT / "docs/reference/errors.md").read_text()
    names = [name.removeprefix("ERROR_REASON_") for name in ErrorReason.DESCRIPTOR.values_by_name]
    assert [n for n in names if n != "UNSPECIFIED" and f"\n### {n}\n" not in page] == []


def test_the_conventions_say_of_every_code_what_to_do() -> None:
    page = (ROOT / "docs/reference/conventions.md").read_text()
    rows = re.findall(r"^\| ([A-Z_, ]+) \| .+ \|$", page, re.MULTILINE)
    told = [code for row in rows for code in row.split(", ")]
    assert sorted(told) == sorted({code.name for code in CODES.values()} | {"UNKNOWN"})
