"""Validation of requests against the rules written beside their fields.

Responsible for running protovalidate, for refusing times that are none (`times`), for turning
violations into BadRequest, and for noticing at start that a contract lost its rules: stubs
generated without the options accept everything in silence. Not for rules that need the database.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Final

import protovalidate
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet
from protovalidate import Violation

from gridlane_kit import errors
from gridlane_kit.errors import GridlaneError
from gridlane_kit.times import impossible_times

RULES_FIELD: Final = 1159
"""Number of the options `buf.validate.field`, `.message` and `.oneof`."""

_ALL_NAMED_BYTES: Final = 16 * 1024
"""Messages up to this size have all their violations looked for. A violation takes 30 µs to tell
of, and 4 MiB have room for two million: that would stop the process for a minute."""
_ALL_NAMED_TIMES: Final = 100
_validator = protovalidate.Validator()


def validate(message: Message) -> None:
    """Checks a message.

    Raises:
        GridlaneError: INVALID_FIELDS with one violation a field; of very many the first ones, of a
            large message the first one alone.
    """
    try:
        violations = _validator.collect_violations(message, fail_fast=True)
        if violations and message.ByteSize() <= _ALL_NAMED_BYTES:
            violations = _validator.collect_violations(message)
    except protovalidate.EvaluationError:
        # A rule met a value that it cannot be computed for: the caller's, since rules compile at
        # start.
        raise errors.invalid([("", "a value for which the rules cannot be checked")]) from None
    if violations:
        raise _invalid(violations)
    impossible = list(islice(impossible_times(message), _ALL_NAMED_TIMES))
    if impossible:
        raise errors.invalid(impossible)


def compile_rules(message: Message) -> None:
    """Compiles the rules of a message's type ahead of the first call.

    Raises:
        protovalidate.CompilationError: the contract has a broken rule; a server must not start.
    """
    _validator.collect_violations(message)


def has_rules(descriptor: Descriptor) -> bool:
    """Whether a message type, or one that its fields lead to, has any validation rule."""
    return any(_own_rules(reached) for reached in _reachable(descriptor))


def _reachable(descriptor: Descriptor) -> Iterator[Descriptor]:
    seen = {descriptor.full_name}
    waiting = [descriptor]
    while waiting:
        current = waiting.pop()
        yield current
        for field in current.fields:
            inner = field.message_type
            if inner is not None and inner.full_name not in seen:
                seen.add(inner.full_name)
                waiting.append(inner)


def _own_rules(descriptor: Descriptor) -> bool:
    return (
        _carries(descriptor.GetOptions())
        or any(_carries(field.GetOptions()) for field in descriptor.fields)
        or any(_carries(oneof.GetOptions()) for oneof in descriptor.oneofs)
    )


def _carries(options: Message) -> bool:
    """Whether options hold the rules: as an extension, or as unknown bytes in generated code."""
    return any(field.number == RULES_FIELD for field, _ in options.ListFields()) or any(
        unknown.field_number == RULES_FIELD
        for unknown in UnknownFieldSet(options)  # type: ignore[attr-defined]
    )


def _invalid(violations: list[Violation]) -> GridlaneError:
    """Joins violations by field, each text once."""
    by_field: dict[str, dict[str, None]] = {}
    for violation in violations:
        text = (violation.proto.message or "is not acceptable")[:200]
        by_field.setdefault(_path(violation), {})[text] = None
    return errors.invalid([(path, "; ".join(texts)) for path, texts in by_field.items()])


def _path(violation: Violation) -> str:
    path = violation.proto.field
    if path is None:
        return ""
    parts = []
    for element in path.elements:
        subscript = element.subscript
        key = "" if subscript is None else f"[{str(subscript.value)[:64]}]"
        parts.append(f"{element.field_name}{key}")
    return ".".join(parts)
