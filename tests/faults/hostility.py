"""Hostile messages: what a client that is broken, or worse, may send to a method.

Responsible for making them, from the descriptors alone and from a seed, so that a run can be had
again. Some are no messages at all, some are messages of the right type with values that nobody
expects: a handler sees only what parsing and validation let through, so many differ from a good
message in one value only. Sending them is `test_hostile_messages`.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.internal import encoder
from google.protobuf.message import Message

NEARLY_4_MIB: Final = 4 * 1024 * 1024 - 4096
_DEPTH: Final = 4
_LENGTH_DELIMITED: Final = 2
_START_GROUP: Final = 3

_INTEGERS: Final = {
    FieldDescriptor.CPPTYPE_INT32: (0, 1, -1, 7, 2**31 - 1, -(2**31)),
    FieldDescriptor.CPPTYPE_UINT32: (0, 1, 2**32 - 1),
    FieldDescriptor.CPPTYPE_INT64: (0, 1, -1, 2**31, 2**53 + 1, 2**63 - 1, -(2**63)),
    FieldDescriptor.CPPTYPE_UINT64: (0, 1, 2**63, 2**64 - 1),
    FieldDescriptor.CPPTYPE_ENUM: (0, 1, 2, 3, -1, 99, 2**31 - 1),
}
_FLOATS: Final = (0.0, -1.5, float("inf"), float("nan"), 1e308)
_BYTES: Final = (b"", b"\x00", bytes(8), bytes(16), b"\xff" * 300)
_STRINGS: Final = (
    "",
    "a",
    "\x00",
    "a\nb",
    "\x1b[31mred\x7f",
    "../../../../etc/passwd",
    "LFN:/local/../../../etc/passwd",
    "LFN:/local/%2e%2e/%2e%2e/secret",
    "file:///etc/passwd",
    "file://%00",
    "LFN:/local/" + "d/" * 400 + "x",
    "LFN:/local/" + "x" * 300,
    "LFN:/" + "\U0001f600" * 1000,
    "LFN:/local/\ud7ff",
    "LFN:/local/\U0010ffff",
    "'; DROP TABLE job; --",
    "\u202eevil\ufeff",
    'state = "RUNNING" AND vo = "local" OR 1=1',
    'vo = "' + "\\" * 99 + '"',
    'tags.gridlane.job = "\x00"',
    "state = " + "9" * 400,
    "9" * 5000,
    "{" * 900,
    "0192f0c4-0000-7000-8000-000000000000",
    "ffffffff-ffff-7fff-bfff-ffffffffffff",
)


@dataclass(frozen=True)
class Known:
    """Things that are there on the server: by the name of a field, values that go deep."""

    values: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def of(self, name: str) -> Sequence[str]:
        return self.values.get(name, ())

    def odd(self, name: str) -> Sequence[str]:
        """Values that only a forger would send."""
        return self.values.get(f"odd {name}", ())


class Hostility:
    """Makes hostile messages; the same seed makes the same ones."""

    def __init__(self, seed: str, known: Known) -> None:
        self._random = random.Random(seed)  # noqa: S311 - repeatable, not secret
        self._known = known

    def messages(self, method: MethodDescriptor, rounds: int) -> Iterator[tuple[str, bytes]]:
        """Pairs of a kind and the bytes."""
        kinds: Sequence[tuple[str, Callable[[Descriptor], bytes]]] = (
            ("random bytes", self._random_bytes),
            ("truncated", self._truncated),
            ("flipped bits", self._flipped),
            ("unknown fields", self._with_unknown_fields),
            ("wrong UTF-8", self._wrong_utf8),
            ("one odd value", self._one_odd_value),
            ("one odd value", self._one_odd_value),
            ("one odd value", self._one_odd_value),
            ("odd values", lambda kind: self._filled(kind, odd=0.3).SerializeToString()),
            ("good", lambda kind: self._filled(kind, odd=0).SerializeToString()),
        )
        for _ in range(rounds):
            for name, make in kinds:
                yield name, make(method.input_type)
        yield from self._forged(method.input_type)
        yield "empty", b""
        yield "nested messages", self._nested(method.input_type)
        yield "nested groups", _tag(1, _START_GROUP) * 100_000
        yield from self._huge(method.input_type)

    def stream(self, method: MethodDescriptor) -> list[bytes]:
        """The messages of one client's stream: good ones and others, in any order."""
        kind = method.input_type
        count = self._random.randint(0, 6)
        good = [self._filled(kind, odd=0).SerializeToString() for _ in range(count)]
        return [raw if self._random.random() < 0.7 else self._one_odd_value(kind) for raw in good]

    def metadata(self) -> list[tuple[str, str]]:
        """Headers that no well-behaved client sends, beside the token."""
        odd = ("", "00", "0" * 55, "00-" + "f" * 32 + "-" + "f" * 16 + "-ff", "x" * 4000, "-" * 300)
        headers = [("traceparent", self._random.choice(odd))]
        if self._random.random() < 0.3:
            headers += [(f"x-{n}", "y" * 20) for n in range(30)]
        return headers

    def token(self, good: str) -> str:
        """A value of `authorization` that must not be believed."""
        head, claims, signature = good.split(".")
        return self._random.choice(
            (
                "Bearer",
                "Bearer  ",
                "Basic dXNlcjpwYXNz",
                f"Bearer {head}.{claims}.",
                f"Bearer {head}.{claims}.{signature[:-6]}AAAAAA",
                f"Bearer {claims}.{head}.{signature}",
                "Bearer " + "." * 4000,
                "Bearer " + "A" * 5000,
                "Bearer bnVsbA.bnVsbA.bnVsbA",
                "Bearer W10.W10.W10",
                f"Bearer {head}.{'W1tb' * 1000}.{signature}",
            )
        )

    def _random_bytes(self, _: Descriptor) -> bytes:
        return self._random.randbytes(self._random.choice((1, 2, 7, 40, 300, 5000)))

    def _truncated(self, kind: Descriptor) -> bytes:
        raw = self._filled(kind, odd=0).SerializeToString()
        return raw[: self._random.randint(0, max(0, len(raw) - 1))]

    def _flipped(self, kind: Descriptor) -> bytes:
        raw = bytearray(self._filled(kind, odd=0).SerializeToString())
        for _ in range(min(len(raw), self._random.randint(1, 4))):
            raw[self._random.randrange(len(raw))] ^= 1 << self._random.randrange(8)
        return bytes(raw)

    def _with_unknown_fields(self, kind: Descriptor) -> bytes:
        raw = self._filled(kind, odd=0).SerializeToString()
        return raw + _delimited(536_870_911, b"x" * 50) + _delimited(999, b"\xff" * 9)

    def _wrong_utf8(self, kind: Descriptor) -> bytes:
        texts = [f for f in kind.fields if f.type == FieldDescriptor.TYPE_STRING]
        number = self._random.choice(texts).number if texts else 1
        return _delimited(number, b"jobs/\xff\xfe\xc0\x80")

    def _one_odd_value(self, kind: Descriptor) -> bytes:
        """A good message in which one field, somewhere, is not."""
        message = self._filled(kind, odd=0)
        inner: Message = message
        while True:
            fields: list[Any] = list(inner.DESCRIPTOR.fields)
            if not fields:
                break
            chosen = self._random.choice(fields)
            deeper = _single_message(inner, chosen)
            if deeper is None or self._random.random() < 0.2:
                self._set(inner, chosen, odd=1, depth=_DEPTH - 1)
                break
            inner = deeper
        return message.SerializeToString()

    def _forged(self, kind: Descriptor) -> Iterator[tuple[str, bytes]]:
        """Good messages, each with one value that was made to look like the server's own."""
        for each in kind.fields:
            for value in self._known.odd(each.name):
                message = self._filled(kind, odd=0)
                setattr(message, each.name, value)
                yield f"forged {each.name}", message.SerializeToString()

    def _nested(self, kind: Descriptor) -> bytes:
        """A message in itself, ten thousand deep, or what would be one."""
        inner = [f.number for f in kind.fields if f.message_type is not None] or [1]
        raw = b""
        for _ in range(10_000):
            raw = _delimited(inner[0], raw)
            if len(raw) > 200_000:
                break
        return raw

    def _huge(self, kind: Descriptor) -> Iterator[tuple[str, bytes]]:
        """A string, and as many elements as a message holds, near the limit of 4 MiB."""
        texts = [f for f in kind.fields if f.type == FieldDescriptor.TYPE_STRING]
        if texts:
            number = self._random.choice(texts).number
            yield "huge string", _delimited(number, b"LFN:/local/" + b"a" * (NEARLY_4_MIB - 99))
        for repeated in kind.fields:
            if repeated.is_repeated:
                one = _delimited(repeated.number, b"")
                yield "huge repeated", one * (NEARLY_4_MIB // len(one))

    def _filled(self, kind: Descriptor, *, odd: float, depth: int = 0) -> Message:
        """A message with most fields set; `odd` is how likely a value is one that nobody
        expects.
        """
        message: Message = message_factory.GetMessageClass(kind)()
        for each in self._one_of_each(kind):
            wanted = self._known.of(each.name) or depth == 0
            if wanted or self._random.random() < 0.5:
                self._set(message, each, odd=odd, depth=depth)
        return message

    def _one_of_each(self, kind: Descriptor) -> list[FieldDescriptor]:
        """The fields, of each oneof a single one."""
        chosen = {o.name: self._random.choice(list(o.fields)) for o in kind.oneofs}
        return [
            each
            for each in kind.fields
            if each.containing_oneof is None or chosen[each.containing_oneof.name] == each
        ]

    def _set(self, message: Message, each: FieldDescriptor, *, odd: float, depth: int) -> None:
        if each.message_type is not None and each.message_type.GetOptions().map_entry:
            if odd:
                self._set_entry(message, each, odd=odd, depth=depth)
        elif each.message_type is not None:
            if depth < _DEPTH:
                self._set_message(message, each, odd=odd, depth=depth)
        elif each.is_repeated:
            count = self._random.choice((0, 1, 3)) if odd else 1
            getattr(message, each.name).extend(self._value(each, odd=odd) for _ in range(count))
        else:
            setattr(message, each.name, self._value(each, odd=odd))

    def _set_entry(
        self, message: Message, each: FieldDescriptor, *, odd: float, depth: int
    ) -> None:
        assert each.message_type is not None
        key, value = (each.message_type.fields_by_name[name] for name in ("key", "value"))
        entries = getattr(message, each.name)
        if value.message_type is None:
            entries[self._value(key, odd=odd)] = self._value(value, odd=odd)
        elif depth < _DEPTH:
            filled = self._filled(value.message_type, odd=odd, depth=depth + 1)
            entries[self._value(key, odd=odd)].CopyFrom(filled)

    def _set_message(
        self, message: Message, each: FieldDescriptor, *, odd: float, depth: int
    ) -> None:
        assert each.message_type is not None
        filled = self._filled(each.message_type, odd=odd, depth=depth + 1)
        if each.is_repeated:
            getattr(message, each.name).append(filled)
        else:
            getattr(message, each.name).CopyFrom(filled)

    def _value(self, each: FieldDescriptor, *, odd: float) -> Any:
        strange = self._random.random() < odd
        if each.cpp_type in _INTEGERS:
            choices = _INTEGERS[each.cpp_type]
            return self._random.choice(choices) if strange else choices[1]
        if each.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
            return strange and self._random.random() < 0.5
        if each.cpp_type != FieldDescriptor.CPPTYPE_STRING:
            return self._random.choice(_FLOATS) if strange else 1.0
        if each.type == FieldDescriptor.TYPE_BYTES:
            return self._random.choice(_BYTES) if strange else b"0123456789abcdef"
        return self._text(each.name, odd=odd)

    def _text(self, name: str, *, odd: float) -> str:
        if self._random.random() >= odd:
            return self._random.choice(self._known.of(name) or ("",))
        odd_ones: list[str] = [*_STRINGS, *self._known.odd(name)]
        for good in self._known.of(name):
            odd_ones += [good + "\n", good.upper(), good + "/..", good[:-1], good * 30]
        return self._random.choice(odd_ones).encode("utf-8", "replace").decode()


def _single_message(message: Message, each: FieldDescriptor) -> Message | None:
    if each.message_type is None or each.message_type.GetOptions().map_entry:
        return None
    inner: Any = getattr(message, each.name)
    if each.is_repeated:
        return inner[0] if len(inner) else None
    return inner if message.HasField(each.name) else None


def _tag(number: int, wire_type: int) -> bytes:
    return bytes(encoder.TagBytes(number, wire_type))


def _delimited(number: int, content: bytes) -> bytes:
    return _tag(number, _LENGTH_DELIMITED) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    parts = []
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])
