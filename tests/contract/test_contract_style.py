"""The contracts keep to their style, and each rule of it finds the fault that it is there for.

The faults are planted in a contract of the test's own (garden.proto), which breaks no rule as it
stands, so that they do not depend on what the real ones say.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from contracts.model import Contract, read_contract
from contracts.resources import ANSWERED, RESOURCES
from contracts.style import EXCEPTIONS, RULES, findings

SOUND = (Path(__file__).parent / "garden.proto").read_text()

NAME_PATTERN = '"^channels/[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"'

FAULTS = [
    ("commented", "// Channels of a garden.\n", ""),
    ("commented", "  // Lists them by name. Idempotent.\n", ""),
    ("commented", "// A seed.\n", ""),
    ("commented", "  // What grows from it.\n", ""),
    ("commented", "// How deep a seed lies.\n", ""),
    ("commented", "  // Deep.\n", ""),
    ("idempotency", "by name. Idempotent.", "by name."),
    ("idempotency", "by name. Idempotent.", "by name. Idempotent. Not idempotent: never."),
    ("idempotency", "by name. Idempotent.", "by name. Idempotent by `request_id`."),
    ("idempotency", "one. Idempotent by `request_id`.", "one. Idempotent."),
    ("error codes", "FAILED_PRECONDITION, IN_USE", "FAILED_PRECONDITION, IN_UZE"),
    ("error codes", "FAILED_PRECONDITION, IN_USE", "ABORTED, IN_USE"),
    ("error codes", "FAILED_PRECONDITION, IN_USE", "NOT_FOUND, NOT_FOUND"),
    ("error codes", "FAILED_PRECONDITION, IN_USE", "FAILED_PRECONDITION, IN_USE or DRAINING"),
    ("words", "DEPTH_DEEP ones", "DEPTH_DEAP ones"),
    ("references", "Free words", "How a GreenHouse is watered"),
    ("references", "Free words", "As Seed.water says"),
    ("references", "Free words", "As `water_kind` says"),
    ("versions", "by name. Idempotent.", "by name. Idempotent. Young: answers UNIMPLEMENTED."),
    ("deprecation", "// A seed.\n", "// Deprecated: use Bed.\n"),
    ("deprecation", "message Bed {", "message Bed {\n  option deprecated = true;"),
    ("deprecation", "looks = 6 [", "looks = 6 [deprecated = true, "),
    ("listing", "returns (ListSeedsResponse)", "returns (stream ListSeedsResponse)"),
    ("permission", '{permission: "garden.seeds.list"}', "{admission: ADMISSION_UNARY}"),
    ("permission", '"garden.seeds.list"', '"kitchen.seeds.list"'),
    ("permission", '"seed.channel"', '"seed.place"'),
    ("verbs", "  string request_id", "  string request_mark"),
    ("verbs", "-7[0-9a-f]{3}-", "-4[0-9a-f]{3}-"),
    ("verbs", "FieldMask update_mask", "FieldMask mask"),
    ("verbs", "int64 revision", "int32 revision"),
    ("verbs", "returns (DeleteSeedResponse)", "returns (Seed)"),
    ("listing", "int32 page_size", "int64 page_size"),
    ("listing", "0 means 50", "0 means 10"),
    (
        "listing",
        "string page_token = 2 [",
        "string page_token = 2 [(buf.validate.field).required = true,",
    ),
    ("listing", "of the page before, with", "of a page, with"),
    ("listing", "string next_page_token = 2", "string next_mark = 2"),
    ("listing", "repeated Seed seeds = 1", "repeated Seed seeds = 3"),
    ("filters", "// Empty, or one of: `kind", "// By kind: `kind"),
    ("filters", "max_len = 512", "max_len = 511"),
    ("batch", "      admission: ADMISSION_BATCH\n", ""),
    ("batch", "max_items: 1000", "max_items: 1001"),
    ("batch", "repeated SeedResult results", "repeated Seed results"),
    ("batch", "google.rpc.Status status", "string status"),
    (
        "behavior",
        "    (google.api.field_behavior) = OPTIONAL,\n    (buf.validate.field).enum",
        "(buf.validate.field).enum",
    ),
    ("behavior", "rain = 3 [", "rain = 3 [(google.api.field_behavior) = REQUIRED,"),
    ("required", "      min_len: 1\n      max_len: 64", "      max_len: 64"),
    (
        "required",
        "    (google.api.field_behavior) = REQUIRED,\n    (buf.validate.field).required = true",
        "(google.api.field_behavior) = REQUIRED",
    ),
    ("required", "      min_items: 1\n", ""),
    (
        "required",
        "Depth depth = 3 [\n    (google.api.field_behavior) = OPTIONAL",
        "Depth depth = 3 [(google.api.field_behavior) = REQUIRED",
    ),
    ("limits", "      max_len: 64\n", ""),
    ("limits", "      max_items: 8\n", ""),
    (
        "limits",
        "        string: {max_len: 16}\n      }\n    }\n  ];\n  // Free pairs",
        "        string: {min_len: 1}\n      }\n    }\n  ];\n  // Free pairs",
    ),
    ("limits", "      max_pairs: 8\n", ""),
    ("limits", "      values: {\n        string: {max_len: 16}\n      }\n", ""),
    ("limits", " [(buf.validate.field).bytes.max_len = 1024]", ""),
    ("limits", "string.max_len = 1024", 'string.pattern = "^[a-z]+$"'),
    ("enums", "defined_only = true", "in = 1"),
    ("names", f"string.pattern = {NAME_PATTERN}", 'string.pattern = "^channels/[a-z]{1,9}$"'),
    ("names", "^channels/[A", "^(channels|beds)/[A"),
    ("names", f"{{pattern: {NAME_PATTERN}}}", "{min_len: 1, max_len: 9}"),
    ("names", 'Where it lies, "channels/{name}"', "Where it lies"),
    ("names", "Free words", 'As "channels/{title}" says'),
    ("zero values", "DEPTH_UNSPECIFIED", "DEPTH_SOME"),
]


@pytest.fixture(scope="session")
def contract(root: Path) -> Contract:
    return read_contract(root)


@pytest.fixture
def garden(root: Path, tmp_path: Path) -> Callable[[str], list[str]]:
    """Says what is found in a contract of this text, with the types that all share."""
    types = "protos/gridlane/type/v1"
    shutil.copytree(root / types, tmp_path / types)
    shutil.copytree(root / "third_party", tmp_path / "third_party")
    shutil.copy(root / "buf.yaml", tmp_path)

    def found(text: str) -> list[str]:
        proto = tmp_path / "protos/gridlane/garden/v1/garden.proto"
        proto.parent.mkdir(parents=True, exist_ok=True)
        proto.write_text(text)
        return [line for line in findings(read_contract(tmp_path), {}) if "gridlane/garden" in line]

    return found


def test_the_contracts_keep_to_their_style(contract: Contract) -> None:
    assert findings(contract) == []


def test_a_sound_contract_breaks_no_rule(garden: Callable[[str], list[str]]) -> None:
    assert garden(SOUND) == []


@pytest.mark.parametrize(("rule", "before", "after"), FAULTS)
def test_a_planted_fault_is_found(
    garden: Callable[[str], list[str]], rule: str, before: str, after: str
) -> None:
    assert before in SOUND
    assert any(line.endswith(f"({rule})") for line in garden(SOUND.replace(before, after, 1)))


def test_every_rule_has_a_planted_fault() -> None:
    planted = {rule for rule, _, _ in FAULTS} | {"reason examples"}
    assert planted == RULES.keys()


@pytest.mark.parametrize(
    ("comment", "told"),
    [
        ("NOT_FOUND. Gone. Metadata: none.", False),
        ('NOT_FOUND. Gone. Metadata:\n  // `{"name": "jobs/1"}`.', False),
        ("NOT_FOUND. Gone.", True),
        ("NOT_FOUND. Gone. Metadata: `{name}`.", True),
        ('NOT_FOUND. Gone. Metadata: `{"count": 3}`.', True),
        ("LOST. Gone. Metadata: none.", True),
    ],
)
def test_an_error_reason_without_code_or_example_is_found(
    root: Path, tmp_path: Path, comment: str, told: bool
) -> None:
    types = tmp_path / "protos/gridlane/type/v1"
    shutil.copytree(root / "protos/gridlane/type/v1", types)
    shutil.copytree(root / "third_party", tmp_path / "third_party")
    shutil.copy(root / "buf.yaml", tmp_path)
    reasons = types / "error_reason.proto"
    planted = f"  // {comment}\n  ERROR_REASON_PLANTED = 9999;\n}}\n"
    reasons.write_text(reasons.read_text().rstrip().removesuffix("}") + planted)
    found = findings(read_contract(tmp_path), {})
    assert any("ERROR_REASON_PLANTED" in line and "examples" in line for line in found) is told


def test_an_exception_that_nobody_needs_is_found(contract: Contract) -> None:
    unneeded = {**EXCEPTIONS, ("listing", "gridlane.workload.v1.JobService.ListJobs"): "habit"}
    assert len(findings(contract, unneeded)) == len(findings(contract)) + 1


def test_every_exception_says_why() -> None:
    assert all(len(why.split()) > 3 for why in EXCEPTIONS.values())


def test_the_conventions_list_the_names_of_resources(root: Path) -> None:
    page = (root / "docs/reference/conventions.md").read_text()
    assert [name for name in (*RESOURCES, *ANSWERED) if f"`{name}`" not in page] == []
