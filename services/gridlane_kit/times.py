"""Times and lengths of time that requests give: whether they are any.

Responsible for the ranges of google.protobuf.Timestamp (the years 1 to 9999) and Duration (about
10 000 years), which nothing else looks at: on the wire both are any 64-bit number, and one beyond
fits in no column. Fields that only answers have are not looked at.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any, Final

from google.api import field_behavior_pb2
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

_TIMESTAMP: Final = "google.protobuf.Timestamp"
_DURATION: Final = "google.protobuf.Duration"
_SECONDS: Final = {
    _TIMESTAMP: (-62_135_596_800, 253_402_300_799),
    _DURATION: (-315_576_000_000, 315_576_000_000),
}
_WHY: Final = {
    _TIMESTAMP: "is no time of the years 1 to 9999",
    _DURATION: "is no length of time of at most 10 000 years",
}
_NANOS: Final = 1_000_000_000


def has_times(descriptor: Descriptor) -> bool:
    """Whether a request of this type can give a time or a length of time."""
    return bool(_leading(descriptor))


def impossible_times(message: Message, path: str = "") -> Iterator[tuple[str, str]]:
    """The paths of the fields of a request that hold no time, and why."""
    for field in _leading(message.DESCRIPTOR):
        if field.is_repeated:
            for index, inner in enumerate(getattr(message, field.name)):
                yield from _looked_at(inner, f"{path}{field.name}[{index}]")
        elif message.HasField(field.name):
            yield from _looked_at(getattr(message, field.name), path + field.name)


def _looked_at(inner: Any, path: str) -> Iterator[tuple[str, str]]:
    kind = inner.DESCRIPTOR.full_name
    if kind not in _SECONDS:
        yield from impossible_times(inner, f"{path}.")
        return
    least, most = _SECONDS[kind]
    seconds, nanos = inner.seconds, inner.nanos
    # Those of a time count forward; those of a length of time have the sign of its seconds.
    signed = nanos >= 0 if kind == _TIMESTAMP else seconds * nanos >= 0
    if not (least <= seconds <= most and signed and abs(nanos) < _NANOS):
        yield path, _WHY[kind]


@cache
def _leading(descriptor: Descriptor) -> tuple[FieldDescriptor, ...]:
    """The fields that are times, or lead to some."""
    return tuple(field for field in descriptor.fields if _leads(field, frozenset()))


def _leads(field: FieldDescriptor, passed: frozenset[str]) -> bool:
    inner = field.message_type
    if inner is None or inner.full_name in passed or _is_map(inner) or _only_in_answers(field):
        return False
    if inner.full_name in _SECONDS:
        return True
    return any(_leads(one, passed | {inner.full_name}) for one in inner.fields)


def _is_map(descriptor: Descriptor) -> bool:
    return bool(descriptor.GetOptions().map_entry)


def _only_in_answers(field: FieldDescriptor) -> bool:
    # Read anew: options parsed before the extension was known keep it as unknown bytes.
    options = descriptor_pb2.FieldOptions.FromString(field.GetOptions().SerializeToString())
    behaviour: Any = options.Extensions[field_behavior_pb2.field_behavior]  # type: ignore[index]
    return field_behavior_pb2.OUTPUT_ONLY in behaviour
