"""The reference pages say what the code says."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_reference_pages_are_what_the_code_says() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "tools/generate_reference.py", "--check"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_error_reason_is_on_its_page() -> None:
    from gridlane.type.v1.error_reason_pb2 import ErrorReason

    page = (ROOT / "docs/reference/errors.md").read_text()
    names = [name.removeprefix("ERROR_REASON_") for name in ErrorReason.DESCRIPTOR.values_by_name]
    assert [n for n in names if n != "UNSPECIFIED" and f"| `{n}` |" not in page] == []
