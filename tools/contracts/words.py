"""The validation rules of the contracts in words, for people who read the reference.

Responsible for one short phrase a rule. A rule that it has no words for is an error, so that no
limit is left out of the reference in silence.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from contracts.model import Field, Message, Rules

_UUID: Final = "[0-9a-f-]{36}"
_UUID7: Final = "[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"

_BOUNDS: Final = ("gt", "gte", "lt", "lte")
_DAY_S: Final = 86400


def field_words(field: Field) -> list[str]:
    """The rules of a field.

    Raises:
        ValueError: there are no words for one of them.
    """
    rules = dict(field.rules)
    ignore = rules.pop("ignore", None)
    if ignore == "IGNORE_ALWAYS":
        return []
    words = list(_words(rules))
    if ignore == "IGNORE_IF_ZERO_VALUE":
        words.append("or empty" if field.type in ("string", "bytes") else "or 0")
    elif ignore is not None:
        raise ValueError(f"no words for ignore = {ignore}")
    return words


def message_words(message: Message) -> list[str]:
    """The rules that hold for a message as a whole.

    Raises:
        ValueError: there are no words for one of them.
    """
    return list(_words(message.rules))


def pattern_words(pattern: str) -> str:
    """A regular expression as a resource name ("`jobs/{uuid}`") where it is one, else itself."""
    if pattern == f"^{_UUID7}$":
        return "a UUIDv7, lower case with hyphens"
    if pattern == f"^{_UUID}$":
        return "a UUID"
    name = pattern.replace(_UUID7, "{uuid}").replace(_UUID, "{uuid}")
    alternatives = re.fullmatch(r"\^\(([A-Za-z|]+)\)(/[A-Za-z/{}]+)\$", name)
    if alternatives:
        heads, tail = alternatives.groups()
        return " or ".join(f"`{head}{tail}`" for head in heads.split("|"))
    if re.fullmatch(r"\^[A-Za-z]+(/(\{uuid\}|[A-Za-z]+))+\$", name):
        return f"`{name[1:-1]}`"
    return f"matches {_code(pattern)}"


def _words(rules: Rules) -> Iterator[str]:
    for name, value in rules.items():
        if name in _KINDS:
            yield from _KINDS[name](value)
        elif name in _NUMBERS:
            yield from _number_words(value)
        else:
            raise ValueError(f"no words for the rule {name} = {value!r}")


def _required(value: bool) -> Iterator[str]:
    if value:
        yield "must be set"


def _expressions(rules: list[Mapping[str, str]]) -> Iterator[str]:
    for rule in rules:
        if not rule.get("message"):
            raise ValueError(f"the rule {rule} has no message")
        yield rule["message"]


def _oneof_words(rules: list[Rules]) -> Iterator[str]:
    for rule in rules:
        fields = ", ".join(f"`{name}`" for name in rule["fields"])
        yield f"{'exactly' if rule.get('required') else 'at most'} one of {fields} is set"


def _string_words(rules: Rules) -> Iterator[str]:
    yield from _size_words(rules, "min_len", "max_len", "len", "character")
    yield from _size_words(rules, "min_bytes", "max_bytes", "len_bytes", "byte")
    for name, value in rules.items():
        if name == "pattern":
            yield pattern_words(value)
        elif name in ("prefix", "suffix", "contains", "not_contains"):
            yield f"{name.replace('_', ' ')} {_code(value)}"
        elif name in ("in", "not_in"):
            yield from _list_words(name, value)
        elif name in _FORMATS:
            yield _FORMATS[name]
        elif name not in _SIZES:
            raise ValueError(f"no words for the rule string.{name}")


def _bytes_words(rules: Rules) -> Iterator[str]:
    _only(rules, {"min_len", "max_len", "len"}, "bytes")
    yield from _size_words(rules, "min_len", "max_len", "len", "byte")


def _repeated_words(rules: Rules) -> Iterator[str]:
    _only(rules, {"min_items", "max_items", "unique", "items"}, "repeated")
    yield from _size_words(rules, "min_items", "max_items", "", "item")
    if rules.get("unique"):
        yield "no item twice"
    yield from _each("each", rules.get("items", {}))


def _map_words(rules: Rules) -> Iterator[str]:
    _only(rules, {"min_pairs", "max_pairs", "keys", "values"}, "map")
    yield from _size_words(rules, "min_pairs", "max_pairs", "", "pair")
    yield from _each("keys", rules.get("keys", {}))
    yield from _each("values", rules.get("values", {}))


def _each(what: str, rules: Rules) -> Iterator[str]:
    if rules == {"ignore": "IGNORE_ALWAYS"}:
        yield "each is checked by itself"
    elif rules:
        yield f"{what}: {', '.join(_words(rules))}"


def _enum_words(rules: Rules) -> Iterator[str]:
    _only(rules, {"defined_only", "in", "not_in", "const"}, "enum")
    if 0 in rules.get("not_in", ()):
        yield "not the unspecified value"
    elif rules.get("defined_only"):
        yield "a value of the enum"
    if "in" in rules:
        yield f"one of the numbers {', '.join(map(str, rules['in']))}"


def _number_words(rules: Rules) -> Iterator[str]:
    _only(rules, {*_BOUNDS, "in", "not_in", "const", "finite"}, "a number")
    yield from _range_words({name: rules[name] for name in _BOUNDS if name in rules}, str)
    for name in ("in", "not_in"):
        if name in rules:
            yield from _list_words(name, rules[name])
    if "const" in rules:
        yield f"always {rules['const']}"


def _duration_words(rules: Rules) -> Iterator[str]:
    _only(rules, set(_BOUNDS), "duration")
    yield from _range_words(rules, _duration)


def _timestamp_words(rules: Rules) -> Iterator[str]:
    _only(rules, {"gt_now", "lt_now", "within"}, "timestamp")
    if rules.get("gt_now"):
        yield "in the future"
    if rules.get("lt_now"):
        yield "in the past"
    if "within" in rules:
        yield f"within {_duration(rules['within'])} of now"


def _field_mask_words(rules: Rules) -> Iterator[str]:
    _only(rules, {"in"}, "field_mask")
    yield f"names of {', '.join(_code(path) for path in rules['in'])}"


def _range_words(rules: Rules, say: Callable[[Any], str]) -> Iterator[str]:
    low, high = rules.get("gte"), rules.get("lte")
    if low is not None and high is not None:
        yield f"{say(low)} to {say(high)}"
        return
    words = {"gt": "more than {}", "gte": "{} or more", "lt": "less than {}", "lte": "at most {}"}
    for name in _BOUNDS:
        if name in rules:
            yield words[name].format(say(rules[name]))


def _size_words(rules: Rules, low: str, high: str, exact: str, unit: str) -> Iterator[str]:
    def units(number: int) -> str:
        return f"{number} {unit}" if number == 1 else f"{number} {unit}s"

    least, most = rules.get(low), rules.get(high)
    if exact and exact in rules:
        yield f"exactly {units(rules[exact])}"
    elif least and most:
        yield f"{least} to {units(most)}" if least != most else f"exactly {units(most)}"
    elif most is not None:
        yield f"at most {units(most)}"
    elif least:
        yield f"at least {units(least)}"


def _list_words(name: str, values: list[Any]) -> Iterator[str]:
    listed = ", ".join(_code(str(value)) for value in values)
    yield f"one of {listed}" if name == "in" else f"none of {listed}"


def _duration(seconds: float) -> str:
    for unit, size in (("day", _DAY_S), ("h", 3600), ("min", 60)):
        if seconds >= size and seconds % size == 0:
            number = int(seconds // size)
            return f"{number} {unit}{'s' if unit == 'day' and number > 1 else ''}"
    return f"{seconds:g} s" if seconds else "0"


def _code(text: str) -> str:
    # A backtick ends code in Markdown, so code that holds one has two around it.
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def _only(rules: Rules, known: set[str], what: str) -> None:
    unknown = rules.keys() - known
    if unknown:
        raise ValueError(f"no words for the rules {sorted(unknown)} of {what}")


_SIZES: Final = frozenset({"min_len", "max_len", "len", "min_bytes", "max_bytes", "len_bytes"})
_FORMATS: Final = {
    "uri": "a URI",
    "uri_ref": "a URI or a reference",
    "uuid": "a UUID",
    "email": "a mail address",
    "hostname": "a host name",
    "ip": "an IP address",
}
_NUMBERS: Final = frozenset(
    {"int32", "int64", "uint32", "uint64", "sint32", "sint64", "float", "double"}
)
_KINDS: Final[Mapping[str, Callable[[Any], Iterator[str]]]] = {
    "required": _required,
    "cel": _expressions,
    "oneof": _oneof_words,
    "string": _string_words,
    "bytes": _bytes_words,
    "repeated": _repeated_words,
    "map": _map_words,
    "enum": _enum_words,
    "duration": _duration_words,
    "timestamp": _timestamp_words,
    "field_mask": _field_mask_words,
}
