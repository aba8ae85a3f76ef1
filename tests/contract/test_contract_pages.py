"""The reference of the contract is whole, and says in words what its rules say."""

import importlib
import pkgutil
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FileDescriptor

import gridlane.authorization.v1
import gridlane.gateway.v1
import gridlane.reporting.v1
import gridlane.transfer.v1
import gridlane.type.v1
import gridlane.workload.v1
from contracts.model import Contract, Rules, read_contract
from contracts.pages import contract_pages
from contracts.prose import Names, cell, paragraphs
from contracts.words import field_words, pattern_words

ROOT = Path(__file__).resolve().parents[2]
PAGES = ROOT / "docs/reference/contract"
PACKAGES = (
    gridlane.authorization.v1,
    gridlane.gateway.v1,
    gridlane.reporting.v1,
    gridlane.transfer.v1,
    gridlane.type.v1,
    gridlane.workload.v1,
)
NAMES = Names({"ListJobs": "jobs.md#list", "Job": "job.md#job"}, {"IN_USE": "errors.md#in_use"})


def files() -> Iterator[FileDescriptor]:
    """The files of the generated code, which knows the contract without the tools."""
    for package in PACKAGES:
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            if module.name.endswith("_pb2"):
                yield importlib.import_module(module.name).DESCRIPTOR


def section(page: str, heading: str) -> str:
    """What stands below a heading, up to the next one."""
    found = re.search(rf"^### {re.escape(heading)}\n(.*?)(?=^##|\Z)", page, re.M | re.S)
    assert found, f"no heading {heading}"
    return found[1]


def rows_of(message: Descriptor) -> set[str]:
    return {f"| `{field.name}` |" for field in message.fields}


def words_of(enum: EnumDescriptor) -> set[str]:
    prefix = re.sub(r"(?<!^)(?=[A-Z])", "_", enum.name).upper() + "_"
    return {f"| `{name.removeprefix(prefix)}` |" for name in enum.values_by_name}


@pytest.mark.parametrize("file", [*files()], ids=lambda file: file.name)
def test_everything_of_a_file_is_on_its_page(file: FileDescriptor) -> None:
    _, package, _, name = file.name.split("/")
    page = (PAGES / package / name.replace(".proto", ".md")).read_text()
    for service in file.services_by_name.values():
        for method in service.methods:
            told = section(page, f"{service.name}.{method.name}")
            assert f"[{method.input_type.name}]" in told
            assert f"[{method.output_type.name}]" in told
            assert f"permission [`{package}." in told
    for message in file.message_types_by_name.values():
        told = section(page, message.name)
        assert [row for row in rows_of(message) if row not in told] == []
    for enum in file.enum_types_by_name.values():
        told = section(page, enum.name)
        if enum.name != "ErrorReason":
            assert [word for word in words_of(enum) if word not in told] == []


@pytest.fixture(scope="module")
def contract() -> Contract:
    return read_contract(ROOT)


def test_two_equal_headings_on_a_page_are_refused(contract: Contract) -> None:
    file = next(file for file in contract.files if file.messages)
    twice = replace(file, messages=(file.messages[0], *file.messages))
    others = tuple(other for other in contract.files if other is not file)
    with pytest.raises(ValueError, match="several headings"):
        contract_pages(Contract((twice, *others)), ())


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ({"string": {"min_len": 1, "max_len": 64}}, ["1 to 64 characters"]),
        ({"string": {"max_bytes": 1}}, ["at most 1 byte"]),
        ({"string": {"in": ["a", "b"]}}, ["one of `a`, `b`"]),
        ({"int32": {"gte": 0, "lte": 5}}, ["0 to 5"]),
        ({"int64": {"gt": 0}}, ["more than 0"]),
        ({"required": True}, ["must be set"]),
        ({"enum": {"defined_only": True, "not_in": [0]}}, ["not the unspecified value"]),
        ({"duration": {"gt": 0.0, "lte": 2592000.0}}, ["more than 0", "at most 30 days"]),
        (
            {"repeated": {"max_items": 8, "items": {"string": {"max_len": 3}}}},
            ["at most 8 items", "each: at most 3 characters"],
        ),
        (
            {"string": {"max_len": 3}, "ignore": "IGNORE_IF_ZERO_VALUE"},
            ["at most 3 characters", "or empty"],
        ),
    ],
    ids=str,
)
def test_rules_have_words(contract: Contract, rules: Rules, words: list[str]) -> None:
    field = contract.messages["gridlane.workload.v1.GetJobRequest"].fields[0]
    assert field_words(replace(field, rules=rules)) == words


@pytest.mark.parametrize(
    "rules", [{"string": {"tuuid": True}}, {"float": {"gt": 0, "nan": 1}}, {"any": {}}], ids=str
)
def test_a_rule_without_words_is_an_error(contract: Contract, rules: Rules) -> None:
    field = contract.messages["gridlane.workload.v1.GetJobRequest"].fields[0]
    with pytest.raises(ValueError, match="no words"):
        field_words(replace(field, rules=rules))


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("^jobs/[0-9a-f-]{36}$", "`jobs/{uuid}`"),
        ("^(tasks|jobs)/[0-9a-f-]{36}$", "`tasks/{uuid}` or `jobs/{uuid}`"),
        ("^[a-z`]+$", "matches `` ^[a-z`]+$ ``"),
    ],
)
def test_patterns_of_names_are_told_as_names(pattern: str, words: str) -> None:
    assert pattern_words(pattern) == words


@pytest.mark.parametrize(
    ("comment", "markdown"),
    [
        ("Lists them,\nall.\n\nNext.", "Lists them, all.\n\nNext."),
        (
            "As ListJobs. `ListJobs` too.",
            "As [ListJobs](jobs.md#list). [`ListJobs`](jobs.md#list) too.",
        ),
        ("As Job.state says.", "As [Job.state](job.md#job) says."),
        ('"*" or <b>', '"\\*" or &lt;b>'),
        (
            "So. ABORTED, IN_USE: it is. NOT_FOUND: gone.\nAll may.",
            "So.\n\n* ABORTED, [IN_USE](errors.md#in_use): it is.\n* NOT_FOUND: gone.\n\nAll may.",
        ),
    ],
    ids=["paragraphs", "links", "fields", "escapes", "errors"],
)
def test_comments_become_markdown(comment: str, markdown: str) -> None:
    assert paragraphs(comment, NAMES) == markdown


def test_a_cell_of_a_table_has_no_bare_bar() -> None:
    assert cell("One of `a|b`.\n\nOr c.", NAMES) == "One of `a\\|b`.<br>Or c."
