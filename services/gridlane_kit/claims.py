"""Claims: taking a JWT apart, strictly, and reading single claims of it.

Responsible for the form of a JWT in compact serialisation (RFC 7519, RFC 7515) and of single
claims, for users' tokens (`tokens`) and for services' assertions (`assertions`). Not for what the
claims mean together (`token_profile`), nor for signatures (`jwks`).

What is read here is what the signature covers: nobody parses the same bytes a second time, by other
rules.
"""

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

MAX_TOKEN_BYTES: Final = 16 * 1024
MAX_DEPTH: Final = 8
"""Objects and lists inside of each other; a token of the profile has two."""

_LATEST_S: Final = 253_402_300_799  # 9999-12-31T23:59:59Z
# Base64url without padding: Python's decoder would pass over every other character.
_COMPACT: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+", re.ASCII)


class BadTokenError(Exception):
    """The token breaks a rule; the text names the rule and never a part of the token."""


def describe(error: Exception) -> str:
    """Returns what may be logged of a refusal: never a part of the token."""
    return str(error) if isinstance(error, BadTokenError) else type(error).__name__


@dataclass(frozen=True, slots=True)
class UnprovenJwt:
    """A JWT that was taken apart; nothing of it is proven yet."""

    encoded: str
    header: Mapping[str, Any]
    claims: Mapping[str, Any]

    @property
    def issuer(self) -> str:
        """Who is said to have signed it: for finding the keys that must prove it.

        Raises:
            BadTokenError: `iss` is missing, or no text.
        """
        return text(self.claims, "iss")


def read_jwt(token: str, max_bytes: int = MAX_TOKEN_BYTES) -> UnprovenJwt:
    """Takes a token apart.

    Refused beside what is no JWT: objects that name a member twice (readers differ in which one
    counts), numbers that JSON does not have, text in another encoding than UTF-8.

    Raises:
        BadTokenError: it is no JWT, or one that breaks these rules.
    """
    if len(token) > max_bytes:
        raise BadTokenError(f"longer than {max_bytes} bytes")
    if _COMPACT.fullmatch(token) is None:
        raise BadTokenError("not three segments in base64url")
    header, claims, _ = token.split(".")
    return UnprovenJwt(token, _object(header, "header"), _object(claims, "claims"))


def text(claims: Mapping[str, Any], name: str) -> str:
    """Returns a claim that is a text and not empty."""
    value = claims.get(name)
    if not value or not _is_text(value):
        raise BadTokenError(f"{name} is missing or no text")
    return str(value)


def texts(claims: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """Returns a claim that is a list of texts, each once; empty when it is missing."""
    values = claims.get(name, [])
    if not isinstance(values, list) or not all(map(_is_text, values)):
        raise BadTokenError(f"{name} is no list of texts")
    return tuple(dict.fromkeys(values))


def instant(claims: Mapping[str, Any], name: str) -> float:
    """Returns a claim that is a time: seconds since the epoch (UTC)."""
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _LATEST_S:
        raise BadTokenError(f"{name} is missing or no time")
    return value


def _is_text(value: object) -> bool:
    """Whether it is a text that a database and protobuf take too: no NUL, no half of a pair."""
    if not isinstance(value, str) or "\0" in value:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _object(segment: str, name: str) -> Mapping[str, Any]:
    padded = segment + "=" * (-len(segment) % 4)
    try:
        raw = base64.urlsafe_b64decode(padded).decode()
        value = json.loads(raw, object_pairs_hook=_once_each, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise BadTokenError(f"the {name} cannot be read") from error
    if not isinstance(value, dict):
        raise BadTokenError(f"the {name} is no object")
    _refuse_depth(value, MAX_DEPTH)
    return value


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise BadTokenError("a member is named twice")
    return members


def _no_constant(_name: str) -> Any:
    raise BadTokenError("a number that JSON does not have")


def _refuse_depth(value: Any, left: int) -> None:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        if left == 0:
            raise BadTokenError(f"nested more than {MAX_DEPTH} deep")
        for inner in value:
            _refuse_depth(inner, left - 1)
