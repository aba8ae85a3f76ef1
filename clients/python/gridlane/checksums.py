"""Checksums as people write them ("ADLER32:0a1b2c3d"), and computing them.

Responsible for the text form, which is DIRAC's and FTS3's, and for the algorithms that need nothing
but the standard library; CRC32C is carried, not computed.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from gridlane.type.v1.checksum_pb2 import Checksum, ChecksumType

_DIGITS: Mapping[str, int] = {"ADLER32": 8, "CRC32C": 8, "MD5": 32, "SHA1": 40, "SHA256": 64}
_PREFIX = "CHECKSUM_TYPE_"
_CHUNK_BYTES = 1 << 20


class Digest(Protocol):
    """A checksum under way."""

    def update(self, data: bytes, /) -> object:
        """Take more bytes."""

    def hexdigest(self) -> str:
        """The checksum of all bytes taken, in lower-case hexadecimal."""


class Adler32:
    """Adler-32 (RFC 1950) with the interface of `hashlib`."""

    def __init__(self) -> None:
        self._value = 1

    def update(self, data: bytes, /) -> None:
        self._value = zlib.adler32(data, self._value)

    def hexdigest(self) -> str:
        return f"{self._value:08x}"


_ALGORITHMS: Mapping[str, Callable[[], Digest]] = {
    "ADLER32": Adler32,
    "MD5": lambda: hashlib.md5(usedforsecurity=False),
    "SHA1": lambda: hashlib.sha1(usedforsecurity=False),
    "SHA256": hashlib.sha256,
}


def parse_checksum(text: str) -> Checksum:
    """Read "ADLER32:0a1b2c3d"; upper and lower case are alike, and leading zeros of ADLER32 and
    CRC32C may be left out, as some tools do.

    Raises:
        ValueError: the algorithm is not known, or the value has not its length in hexadecimal
            digits.
    """
    name, _, value = text.strip().partition(":")
    name, value = name.upper().replace("-", ""), value.lower()
    digits = _DIGITS.get(name)
    if digits is None:
        raise ValueError(
            f"checksum {text!r}: expected ALGORITHM:hex with one of {', '.join(_DIGITS)}"
        )
    if digits == 8 and value:
        value = value.rjust(digits, "0")
    if len(value) != digits or any(character not in "0123456789abcdef" for character in value):
        raise ValueError(f"checksum {text!r}: {name} has {digits} hexadecimal digits")
    return Checksum(type=ChecksumType.Value(_PREFIX + name), value=value)


def format_checksum(checksum: Checksum) -> str:
    """ "ADLER32:0a1b2c3d"; empty when there is none."""
    if not checksum.value:
        return ""
    return f"{ChecksumType.Name(checksum.type).removeprefix(_PREFIX)}:{checksum.value}"


def digest_for(checksum: Checksum) -> Digest | None:
    """An empty digest of the checksum's algorithm; None when it is not computed here."""
    make = _ALGORITHMS.get(ChecksumType.Name(checksum.type).removeprefix(_PREFIX))
    return make() if make else None


def checksum_of(path: Path, algorithm: str = "ADLER32") -> Checksum:
    """The checksum of a file's bytes.

    Parameters:
        path: the file.
        algorithm: ADLER32, MD5, SHA1 or SHA256.

    Raises:
        OSError: the file cannot be read.
    """
    digest = _ALGORITHMS[algorithm]()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return Checksum(type=ChecksumType.Value(_PREFIX + algorithm), value=digest.hexdigest())
