"""The reasons in code are those of the contract, with the gRPC codes and the metadata that its
comments promise."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from gridlane.type.v1 import error_reason_pb2
from gridlane_kit import errors
from gridlane_kit.errors import CODES, ErrorReason, GridlaneError

PROTO = Path(__file__).parents[2] / "protos/gridlane/type/v1/error_reason.proto"
PREFIX = "ERROR_REASON_"

MADE = [
    errors.token_missing(),
    errors.permission_denied("workload.jobs.kill", "jobs/1"),
    errors.permission_denied("authorization.vos.manage"),
    errors.group_not_asserted("/cms/production"),
    errors.group_not_declared("/cms/production", "cms"),
    errors.scope_too_narrow("workload.jobs.submit", "compute.create"),
    errors.invalid([("job.vo", "at most 200 characters")]),
    errors.capability_missing([("job.queue", "leave it empty")], "QUEUE", "embedded"),
    errors.issuer_unavailable(),
    errors.token_not_ours("page_token"),
    errors.filter_unsupported("a=b", "one of: state"),
    errors.no_storage_element("srm://x/y", "url"),
    errors.vo_ambiguous({"cms", "atlas"}),
    errors.not_found("jobs/1"),
    errors.already_exists("channels/a"),
    errors.illegal_transition("jobs/1", "DONE", "RUNNING"),
    errors.illegal_transition("jobs/1", "DONE", "RUNNING", ["DELETED"]),
    errors.precondition("jobs/1", "has no input"),
    errors.revision_conflict("jobs/1"),
    errors.last_admin("roleBindings/1"),
    errors.in_use("vos/cms", "issuers/cms-iam"),
    errors.position_trimmed("e:1", "e:7"),
    errors.overloaded("unary", 0.5),
    errors.no_space("local"),
    errors.store_full(),
    errors.draining("e", 7),
    errors.watcher_too_slow("e", 7),
    errors.peer_unavailable("transfer"),
    errors.checksum_mismatch("ADLER32:1", "ADLER32:2"),
    errors.internal("abc"),
]


def comments() -> Mapping[str, str]:
    """The text above each value, in one line."""
    found = re.findall(
        r"((?:^  //.*\n)+)  ERROR_REASON_(\w+) = \d+;", PROTO.read_text("utf-8"), re.MULTILINE
    )
    return {
        name: " ".join(line.strip().removeprefix("//").strip() for line in comment.splitlines())
        for comment, name in found
        if name != "UNSPECIFIED"
    }


def examples(comment: str) -> list[dict[str, str]]:
    """The examples of metadata that a comment gives; none where it says that there is none."""
    _, said, metadata = comment.partition("Metadata")
    assert said, f"says nothing of its metadata: {comment}"
    if metadata.startswith(": none."):
        return []
    found = [json.loads(text) for text in re.findall(r"`(\{.*?\})`", metadata)]
    assert found, f"gives no example of its metadata: {comment}"
    return found


def test_every_reason_of_the_contract_is_in_code_and_the_reverse() -> None:
    contract = {name.removeprefix(PREFIX) for name in error_reason_pb2.ErrorReason.keys()}  # noqa: SIM118
    assert {reason.value for reason in ErrorReason} == contract - {"UNSPECIFIED"}


def test_every_reason_comes_with_the_code_that_its_comment_names() -> None:
    named = {name: comment.partition(".")[0] for name, comment in comments().items()}
    assert {reason.value: code.name for reason, code in CODES.items()} == named


def test_every_reason_says_what_its_metadata_are() -> None:
    documented = {name: examples(comment) for name, comment in comments().items()}
    assert documented.keys() == {reason.value for reason in ErrorReason}
    assert documented["TOKEN_MISSING"] == []
    assert documented["NO_SPACE"] == [{"storage_element": "local"}, {"store": "database"}]


@pytest.mark.parametrize("error", MADE, ids=lambda error: error.reason.value)
def test_an_error_brings_the_metadata_of_an_example(error: GridlaneError) -> None:
    documented = [example.keys() for example in examples(comments()[error.reason.value])]
    assert error.metadata.keys() in (documented or [{}.keys()])
