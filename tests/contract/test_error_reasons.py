"""The reasons in code are those of the contract, with the gRPC codes that its comments promise."""

import re
from pathlib import Path

from gridlane.type.v1 import error_reason_pb2
from gridlane_kit.errors import CODES, ErrorReason

PROTO = Path(__file__).parents[2] / "protos/gridlane/type/v1/error_reason.proto"
PREFIX = "ERROR_REASON_"


def documented_codes() -> dict[str, str]:
    """The word with which the comment above each value begins."""
    found = re.findall(
        r"((?:^  //.*\n)+)  ERROR_REASON_(\w+) = \d+;", PROTO.read_text("utf-8"), re.MULTILINE
    )
    return {
        name: match[1] for comment, name in found if (match := re.match(r"\s*// (\w+)\.", comment))
    }


def test_every_reason_of_the_contract_is_in_code_and_the_reverse() -> None:
    contract = {name.removeprefix(PREFIX) for name in error_reason_pb2.ErrorReason.keys()}  # noqa: SIM118
    assert {reason.value for reason in ErrorReason} == contract - {"UNSPECIFIED"}


def test_every_reason_comes_with_the_code_that_its_comment_names() -> None:
    assert {reason.value: code.name for reason, code in CODES.items()} == documented_codes()
