"""The contract baseline and its list of changes go together (`make accept-contract`)."""

import hashlib
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

Run = Callable[..., subprocess.CompletedProcess[str]]
CONTRACT = "protos/gridlane/transfer/v1/channel_service.proto"


def described(changes: Path) -> str:
    """The SHA-256 of the baseline that the last section of CHANGES.md describes."""
    headings = re.findall(r"^## Baseline ([0-9a-f]{64})$", changes.read_text(), re.MULTILINE)
    return str(headings[-1])


def agree(protos: Path) -> bool:
    baseline = (protos / "baseline.binpb").read_bytes()
    return described(protos / "CHANGES.md") == hashlib.sha256(baseline).hexdigest()


def accept(tree: Path, run: Run) -> str:
    result = run(tree, "python", "tools/accept_contract.py")
    assert result.returncode == 0, result.stdout
    return (tree / "protos/CHANGES.md").read_text()


def change(tree: Path, before: str, after: str) -> None:
    text = (tree / CONTRACT).read_text()
    assert before in text
    (tree / CONTRACT).write_text(text.replace(before, after, 1))


def test_the_last_listed_change_describes_the_baseline(root: Path) -> None:
    assert agree(root / "protos"), "baseline.binpb or CHANGES.md changed without the other"


def test_one_changed_without_the_other_is_found(tree: Path, run: Run) -> None:
    changes = tree / "protos/CHANGES.md"
    before = changes.read_text()
    change(tree, "string page_token = 2", "string page_mark = 2")
    accept(tree, run)
    assert agree(tree / "protos")
    changes.write_text(before)
    assert not agree(tree / "protos")


def test_an_accepted_change_is_listed_and_breaks_nobody_twice(tree: Path, run: Run) -> None:
    accept(tree, run)
    change(tree, "string page_token = 2", "string page_mark = 2")
    text = accept(tree, run).rpartition("## Baseline")[2]
    assert "Breaking:" in text
    assert "- field gridlane.transfer.v1.ListChannelsRequest.page_token" in text
    assert "+ field gridlane.transfer.v1.ListChannelsRequest.page_mark" in text
    again = run(tree, "buf", "breaking", "protos", "--against", "protos/baseline.binpb")
    assert again.returncode == 0, again.stdout


def test_a_message_that_is_new_as_a_whole_is_one_line(tree: Path, run: Run) -> None:
    accept(tree, run)
    contract = tree / CONTRACT
    contract.write_text(contract.read_text() + "\nmessage Fresh {\n  string name = 1;\n}\n")
    text = accept(tree, run).rpartition("## Baseline")[2]
    assert "+ message gridlane.transfer.v1.Fresh\n" in text
    assert "Fresh.name" not in text


def test_accepting_what_is_accepted_changes_nothing(tree: Path, run: Run) -> None:
    assert accept(tree, run) == accept(tree, run)
