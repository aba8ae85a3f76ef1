"""Running checksums. Responsible for the algorithms that the mover computes."""

import hashlib
import zlib
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Protocol


class Checksum(Protocol):
    """A running checksum."""

    def update(self, data: bytes | memoryview, /) -> None:
        """Take more bytes."""

    def hexdigest(self) -> str:
        """The value so far, lower-case hexadecimal."""


class _Adler32:
    """Adler-32 (RFC 1950) in the shape of hashlib's objects."""

    def __init__(self, data: bytes | bytearray = b"") -> None:
        self._value = zlib.adler32(data)

    def update(self, data: bytes | memoryview, /) -> None:
        self._value = zlib.adler32(data, self._value)

    def hexdigest(self) -> str:
        return f"{self._value:08x}"


_ALGORITHMS: Mapping[str, Callable[[bytes | bytearray], Checksum]] = {
    "ADLER32": _Adler32,
    "MD5": partial(hashlib.md5, usedforsecurity=False),
    "SHA1": partial(hashlib.sha1, usedforsecurity=False),
    "SHA256": hashlib.sha256,
}
CHECKSUMS = frozenset(_ALGORITHMS)
"""What this mover computes. CRC-32C would want a library of its own."""


class Checksums:
    """Several checksums of the same bytes."""

    def __init__(self, algorithms: Iterable[str]) -> None:
        self._running = {name: _ALGORITHMS[name](b"") for name in algorithms}

    def update(self, data: bytes | memoryview) -> None:
        """Take more bytes."""
        for checksum in self._running.values():
            checksum.update(data)

    def values(self) -> dict[str, str]:
        """The values so far, by algorithm."""
        return {name: checksum.hexdigest() for name, checksum in self._running.items()}


def checksums_of(data: bytes | bytearray, algorithms: Iterable[str]) -> dict[str, str]:
    """Several checksums of bytes that are there already, by algorithm."""
    return {name: _ALGORITHMS[name](data).hexdigest() for name in algorithms}
