"""Rules about what callers fill: who sets a field, its limits, its pattern.

Responsible for the fields of requests; `style` names the rules, knows their exceptions and tells.
"""

from __future__ import annotations

import re
from typing import Final

from contracts.model import Contract, Field, Rules
from contracts.resources import ANSWERED, RESOURCES
from contracts.walk import Told, all_symbols, line, reached, request_fields, requests

_WHO_SETS: Final = frozenset({"REQUIRED", "OPTIONAL", "OUTPUT_ONLY", "IDENTIFIER"})
_UNBOUNDED: Final = re.compile(r"(?<!\\)[+*]|\{\d+,\}")
_FORM: Final = re.compile(r'"([a-z][A-Za-z]*/\{[a-z_]+\}(?:/[A-Za-z]+(?:/\{[a-z_]+\})?)*)"')
_COLLECTION: Final = re.compile(r"\^\(?([a-z][A-Za-z]*)[/|]")


def behavior(contract: Contract) -> Told:
    """Who sets a field is said once; a member of a oneof is required or not with its oneof.

    IMMUTABLE and INPUT_ONLY say more, and stand beside one of these.
    """
    for message in requests(contract):
        for field in message.fields:
            told = len(field.behavior & _WHO_SETS)
            if field.oneof and told:
                yield field, "is of a oneof: by itself it is neither required nor optional"
            elif not field.oneof and told != 1:
                yield field, f"has not exactly one field_behavior of {', '.join(sorted(_WHO_SETS))}"


def required(contract: Contract) -> Told:
    """What is said to be REQUIRED is checked, where the type can show that it is missing.

    Not in a resource that can be updated: with a mask, what is not named is not there.
    """
    updates = [method.takes for method in contract.methods if method.short.startswith("Update")]
    exempt = {message.name for message in reached(contract, updates)} - set(updates)
    for message in requests(contract):
        for field in message.fields:
            is_required = "REQUIRED" in field.behavior and message.name not in exempt
            if is_required and not _is_refused_when_missing(field):
                yield field, "is REQUIRED, and no rule refuses a request without it"


def _is_refused_when_missing(field: Field) -> bool:
    rules = field.rules
    if rules.get("required"):
        return True
    if "ignore" in rules:
        return False
    if field.key:
        return bool(rules.get("map", {}).get("min_pairs"))
    if field.repeated:
        return bool(rules.get("repeated", {}).get("min_items"))
    if field.is_enum:
        return 0 in rules.get("enum", {}).get("not_in", ())
    if field.type == "string":
        return _refuses_empty(rules)
    return not field.is_message


def _refuses_empty(rules: Rules) -> bool:
    string = rules.get("string", {})
    pattern = string.get("pattern")
    if pattern is not None and re.search(pattern, "") is None:
        return True
    lengths = ("min_len", "min_bytes", "prefix", "suffix", "contains", "uri", "in")
    return bool(rules.get("cel") or any(string.get(name) for name in lengths))


def limits(contract: Contract) -> Told:
    """No text, bytes, list or map without a limit of its own."""
    for field in request_fields(contract):
        rules = field.rules
        if field.key:
            pairs = rules.get("map", {})
            if "max_pairs" not in pairs:
                yield field, "is a map without max_pairs"
            yield from _text_limit(field, field.key, pairs.get("keys", {}), "keys")
            yield from _text_limit(field, field.type, pairs.get("values", {}), "values")
        elif field.repeated:
            items = rules.get("repeated", {})
            if "max_items" not in items:
                yield field, "is a list without max_items"
            yield from _text_limit(field, field.type, items.get("items", {}), "items")
        else:
            yield from _text_limit(field, field.type, rules, "")


def _text_limit(field: Field, kind: str, rules: Rules, part: str) -> Told:
    limit = rules.get(kind, {})
    which = f"its {part} are" if part else "is"
    if kind == "bytes" and not limit.keys() & {"max_len", "len"}:
        yield field, f"{which} bytes without max_len"
    if kind == "string" and not _is_limited(limit) and "size()" not in str(rules.get("cel", "")):
        yield field, f"{which} text without max_len, max_bytes or a pattern with an end"


def _is_limited(limit: Rules) -> bool:
    if limit.keys() & {"max_len", "max_bytes", "len", "in", "uuid", "const"}:
        return True
    # What stands in brackets are characters, not how many.
    pattern = re.sub(r"\[(?:\\.|[^\]])*\]", "x", str(limit.get("pattern", "+")))
    return pattern.startswith("^") and pattern.endswith("$") and not _UNBOUNDED.search(pattern)


def enums(contract: Contract) -> Told:
    """A value that the server does not know is refused, not kept."""
    for field in request_fields(contract):
        if field.is_enum:
            rules = field.rules
            if field.repeated:
                rules = rules.get("repeated", {}).get("items", {})
            elif field.key:
                rules = rules.get("map", {}).get("values", {})
            if not rules.get("enum", {}).get("defined_only"):
                yield field, "is an enum without defined_only"


def names(contract: Contract) -> Told:
    """Resource names have the forms and patterns that the conventions document, and say so."""
    for symbol in all_symbols(contract):
        for form in _FORM.findall(line(symbol)):
            if form not in RESOURCES and form not in ANSWERED:
                yield symbol, f"names the form {form}, which no resource's name has"
    for field in request_fields(contract):
        rules = field.rules.get("repeated", {}).get("items", {}) if field.repeated else field.rules
        pattern = rules.get("string", {}).get("pattern", "") if field.type == "string" else ""
        is_name = field.short in ("name", "names", "parent")
        if not _COLLECTION.match(pattern):
            if is_name and field.type == "string":
                yield field, "is a resource name without the pattern of one"
            continue
        documented = _documented(pattern)
        if not documented:
            yield field, f"has the pattern {pattern}, which is none of the resource names'"
        elif not any(f'"{name}"' in line(field) for name in documented):
            yield field, f"does not say its form: {' or '.join(documented)}"


def _documented(pattern: str) -> list[str]:
    """The forms of the resources whose names a pattern takes; none when it takes others too."""
    several = re.fullmatch(r"\^\(([A-Za-z|]+)\)(/.*)\$", pattern)
    taken = (
        [f"{head}{several[2]}" for head in several[1].split("|")] if several else [pattern[1:-1]]
    )
    forms = {expression: form for form, expression in RESOURCES.items()}
    return [forms[one] for one in taken] if forms.keys() >= set(taken) else []
