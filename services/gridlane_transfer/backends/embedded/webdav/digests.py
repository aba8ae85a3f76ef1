"""Checksums that storages tell in their answers' heads.

Responsible for RFC 3230 (`Want-Digest`, `Digest`), as WLCG's HTTP-TPC uses it: values are base64,
but ADLER32 is hexadecimal; some storages write hexadecimal for all, which their length tells.
"""

import base64
import binascii
from collections.abc import Iterable, Mapping
from typing import Final

# Our name → theirs, and the bytes of a value.
_NAMES: Final[Mapping[str, tuple[str, int]]] = {
    "ADLER32": ("adler32", 4),
    "MD5": ("md5", 16),
    "SHA1": ("sha", 20),
    "SHA256": ("sha-256", 32),
}
_THEIRS: Final = {theirs: ours for ours, (theirs, _) in _NAMES.items()} | {
    "sha256": "SHA256",
    "sha1": "SHA1",
    "sha-1": "SHA1",
}


def want(algorithms: Iterable[str]) -> dict[str, str]:
    """The header that asks for checksums; empty when none is asked for."""
    names = [_NAMES[name][0] for name in algorithms if name in _NAMES]
    return {"Want-Digest": ",".join(names)} if names else {}


def told(digest: str) -> dict[str, str]:
    """The checksums that a `Digest` header tells, by algorithm, as lower-case hexadecimal; what is
    not understood is left out.
    """
    found = {}
    for part in digest.split(","):
        name, _, value = part.strip().partition("=")
        ours = _THEIRS.get(name.strip().lower())
        if ours is None:
            continue
        text = _hexadecimal(value.strip().strip('"'), _NAMES[ours][1])
        if text:
            found[ours] = text
    return found


def _hexadecimal(value: str, size: int) -> str:
    """A value as hexadecimal; empty when it is none."""
    digits = value.lower()
    if all(digit in "0123456789abcdef" for digit in digits) and 0 < len(digits) <= 2 * size:
        if len(digits) == 2 * size:
            return digits
        # ADLER32 is written without leading zeros by some.
        if size == 4 and len(digits) > 4:
            return digits.zfill(8)
    try:
        decoded = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return ""
    return decoded.hex() if len(decoded) == size else ""
