"""Rules about what comments say: style rules of the contracts, one function each.

Responsible for comments alone; `style` names the rules, knows their exceptions and tells.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Final

from contracts.model import Contract, Enum, EnumValue
from contracts.prose import CODES
from contracts.walk import Told, all_symbols, has_request_id, line

_REASONS: Final = "gridlane.type.v1.ErrorReason"
_THREE: Final = "Idempotent · Idempotent by `request_id` · Not idempotent: …"
_IDEMPOTENCY: Final = re.compile(
    r"\b(?:Idempotent(?:\.|:|;| without `revision`)"
    r"|Idempotent by (?:each request's )?`request_id`"
    r"|Not idempotent(?:, but harmless to repeat)?: )"
)
_BY_REQUEST_ID: Final = "Idempotent by"
_PAIR: Final = re.compile(rf"(?<![A-Z_])({'|'.join(CODES)}), ([A-Z][A-Z_]+(?: or [A-Z][A-Z_]+)*)")
_SNAKE: Final = re.compile(r"(?<![A-Za-z0-9_./-])[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+(?![a-z0-9_])")
_METADATA: Final = re.compile(r"Metadata: (?:none|`(\{.*?\})`)")
_CAMEL: Final = re.compile(r"(?<![\w./-])[A-Z][a-z0-9]+(?:[A-Z][A-Za-z0-9]*)+(?!\w)")
_FIELD: Final = re.compile(r"`([a-z][a-z0-9]*(?:_[a-z0-9]+)+)`")
_DOTTED: Final = re.compile(r"(?<![\w./])([A-Z][A-Za-z0-9]+)\.([A-Za-z][A-Za-z0-9_]*)")

_FOREIGN: Final[Mapping[str, str]] = {
    "units": "KiB MiB GiB TiB",
    "google.rpc": "BadRequest ErrorInfo PreconditionFailure RetryInfo",
    "projects": "OpenTelemetry SciTags",
    "DIRAC's properties": "NormalUser JobSharing GenericPilot JobMonitor JobAdministrator",
    "DIRAC's accounting": "JobGroup JobType JobClass ProcessingType",
    "DIRAC's jobs": "JobID RescheduleCounter OutputSandbox InputSandbox BannedSites GridCE "
    "OutputSE MaxNumberOfProcessors NumberOfProcessors WholeNode MinRAM MaxRAM",
    "FTS3's fields": "id_generator unmanaged_tokens no_delegation",
    "GA4GH TES's fields": "backend_parameters_strict",
}
_FOREIGN_NAMES: Final = frozenset(" ".join(_FOREIGN.values()).split())
"""Names of others that comments say: everything else in such spelling is the contract's own."""


def commented(contract: Contract) -> Told:
    """Everything with a name says what it is."""
    for symbol in all_symbols(contract):
        if not symbol.comment:
            yield symbol, "has no comment"


def idempotency(contract: Contract) -> Told:
    """Every rpc says exactly one of the three, and says it of a request that can keep it."""
    for method in contract.methods:
        request = contract.messages.get(method.takes)
        by_id = request is not None and has_request_id(contract, request)
        said = _IDEMPOTENCY.findall(line(method))
        if len(said) != 1:
            yield method, f"says not exactly one of: {_THREE}"
        elif said[0].startswith(_BY_REQUEST_ID) != by_id:
            yield method, "says that a request_id makes it idempotent, and has none, or the reverse"


def error_codes(contract: Contract) -> Told:
    """Each reason that a comment names exists and stands behind its own code."""
    codes = {value.word: _code_of(value) for value in _reasons(contract)}
    for symbol in all_symbols(contract):
        for code, reasons in _PAIR.findall(line(symbol)):
            for reason in reasons.split(" or "):
                if reason == code:
                    yield symbol, f"says {code} twice: alone it means the reason of the same name"
                elif reason not in codes and reason not in CODES:
                    yield symbol, f"names the error reason {reason}, which does not exist"
                elif codes.get(reason, code) != code:
                    yield symbol, f"says {code}, {reason}; the reason comes with {codes[reason]}"


def words(contract: Contract) -> Told:
    """A word in capitals with an underscore is a value, a reason or a code of the contract."""
    known = set(CODES)
    for enum in contract.enums.values():
        known |= {value.word for value in enum.values} | {value.short for value in enum.values}
        prefix = enum.values[0].short.removesuffix("UNSPECIFIED")
        known |= {prefix, prefix.rstrip("_")}
    for symbol in all_symbols(contract):
        for word in _SNAKE.findall(re.sub(r"[`\"][^`\"]*[`\"]", "", line(symbol))):
            if word not in known:
                yield symbol, f"names {word}, which is no value, reason or code"


def references(contract: Contract) -> Told:
    """Each symbol, field or method that a comment names is there."""
    full = {symbol.name for symbol in all_symbols(contract)}
    by_short: dict[str, list[str]] = defaultdict(list)
    for name in full:
        by_short[name.rpartition(".")[2]].append(name)
    for symbol in all_symbols(contract):
        text = re.sub(r'"[^"]*"', "", line(symbol))
        named = {*_CAMEL.findall(text), *_FIELD.findall(text)}
        for word in sorted(named - by_short.keys() - _FOREIGN_NAMES):
            yield symbol, f"names {word}, which the contract does not have"
        for owner, member in _DOTTED.findall(text):
            owners = by_short.get(owner, ())
            if owners and not any(f"{name}.{member}" in full for name in owners):
                yield symbol, f"names {owner}.{member}, which the contract does not have"


def deprecation(contract: Contract) -> Told:
    """What is deprecated begins with the word and what to use instead, and nothing else does."""
    for symbol in all_symbols(contract):
        if symbol.deprecated != symbol.comment.startswith("Deprecated: "):
            yield (
                symbol,
                'is deprecated without "Deprecated: <what to use instead>", or the reverse',
            )


def versions(contract: Contract) -> Told:
    """What a version does not serve is not said in a way that is wrong once it is served."""
    services = [service for file in contract.files for service in file.services]
    for symbol in (*services, *contract.methods):
        text = line(symbol)
        if "UNIMPLEMENTED" in text and "until a version serves" not in text:
            yield symbol, 'says UNIMPLEMENTED without "until a version serves it"'


def reason_examples(contract: Contract) -> Told:
    """Each error reason begins with its code and shows its metadata, or says that there is none."""
    for value in _reasons(contract):
        found = _METADATA.search(line(value))
        if _code_of(value) not in CODES:
            yield value, "does not begin with its gRPC code and a full stop"
        if found is None:
            yield value, 'shows no example: `Metadata: {"key": "value"}`, or `Metadata: none`'
        elif found[1] and not _is_example(found[1]):
            yield value, f"shows metadata that is no JSON object of texts: {found[1]}"


def _is_example(text: str) -> bool:
    try:
        example = json.loads(text)
    except ValueError:
        return False
    return all(isinstance(value, str) for value in example.values())


def _reasons(contract: Contract) -> list[EnumValue]:
    return [value for value in contract.enums[_REASONS].values if value.number]


def _code_of(value: EnumValue) -> str:
    return value.comment.partition(".")[0]


def zero_values(contract: Contract) -> Told:
    """The value 0 is UNSPECIFIED."""
    for enum in contract.enums.values():
        if _zero_word(enum) != "UNSPECIFIED":
            yield enum, "has no value UNSPECIFIED of number 0"


def _zero_word(enum: Enum) -> str:
    return next((value.word for value in enum.values if value.number == 0), "")
