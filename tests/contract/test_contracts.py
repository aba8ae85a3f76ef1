"""The contracts keep their style and their promises: buf's lint, format and breaking checks."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]
LINT = ("lint",)
FORMAT = ("format", "--diff", "--exit-code", "protos")
BREAKING = ("breaking", "protos", "--against", "protos/baseline.binpb")
CONTRACT = "protos/gridlane/transfer/v1/channel_service.proto"


@pytest.mark.parametrize("command", [LINT, FORMAT, BREAKING], ids=lambda command: command[0])
def test_the_contracts_pass(root: Path, run: Run, command: tuple[str, ...]) -> None:
    result = run(root, "buf", *command)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("command", "before", "after", "named"),
    [
        pytest.param(
            LINT, "message GetChannelRequest", "message a_b {}\nmessage GetChannelRequest", "a_b"
        ),
        pytest.param(FORMAT, "string name = 1", "string   name = 1", "string   name"),
        pytest.param(BREAKING, "string page_token = 2", "string page_mark = 2", "page_token"),
    ],
    ids=["lint", "format", "breaking"],
)
def test_a_planted_fault_is_found(
    tree: Path, run: Run, command: tuple[str, ...], before: str, after: str, named: str
) -> None:
    contract = tree / CONTRACT
    text = contract.read_text()
    assert before in text
    contract.write_text(text.replace(before, after))
    result = run(tree, "buf", *command)
    assert result.returncode != 0
    assert named in result.stdout


def test_vendored_definitions_are_not_linted(tree: Path, run: Run) -> None:
    vendored = tree / "third_party/google/rpc/status.proto"
    vendored.write_text(vendored.read_text() + "message lower_case {}\n")
    assert run(tree, "buf", "lint").returncode == 0
