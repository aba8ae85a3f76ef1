"""Claims: reading what a JWT says, before and after its signature is proven.

Responsible for the form of single claims, for users' tokens (`tokens`) and for services' assertions
(`assertions`). Not for what they mean together, nor for signatures.
"""

import base64
import json
from collections.abc import Mapping
from typing import Any, Final

MAX_TOKEN_BYTES: Final = 16 * 1024
_LATEST_S: Final = 253_402_300_799  # 9999-12-31T23:59:59Z


class BadTokenError(Exception):
    """The token breaks a rule; the text names the rule and never a part of the token."""


def describe(error: Exception) -> str:
    """Returns what may be logged of a refusal: never a part of the token."""
    return str(error) if isinstance(error, BadTokenError) else type(error).__name__


def unverified_issuer(token: str, max_bytes: int = MAX_TOKEN_BYTES) -> str:
    """Returns `iss`, for finding the key that must prove it.

    Raises:
        BadTokenError, ValueError, RecursionError: it is no JWT.
    """
    if len(token) > max_bytes:
        raise BadTokenError(f"longer than {max_bytes} bytes")
    segments = token.split(".")
    if len(segments) != 3:
        raise BadTokenError("not three segments")
    padded = segments[1] + "=" * (-len(segments[1]) % 4)
    claims = json.loads(base64.urlsafe_b64decode(padded))
    if not isinstance(claims, dict):
        raise BadTokenError("claims are no object")
    return text(claims, "iss")


def text(claims: Mapping[str, Any], name: str) -> str:
    """Returns a claim that is a text and not empty."""
    value = claims.get(name)
    if not isinstance(value, str) or not value or "\0" in value:
        raise BadTokenError(f"{name} is missing or no text")
    return value


def texts(claims: Mapping[str, Any], name: str) -> frozenset[str]:
    """Returns a claim that is a list of texts; empty when it is missing."""
    values = claims.get(name, [])
    if not isinstance(values, list) or not all(
        isinstance(v, str) and "\0" not in v for v in values
    ):
        raise BadTokenError(f"{name} is no list of texts")
    return frozenset(values)


def instant(claims: Mapping[str, Any], name: str) -> float:
    """Returns a claim that is a time: seconds since the epoch (UTC)."""
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _LATEST_S:
        raise BadTokenError(f"{name} is missing or no time")
    return value
