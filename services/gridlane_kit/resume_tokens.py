"""Resume tokens of watches: a place in a feed, for a caller to come back with.

Responsible for their form, and for that a token is good for the watch it was made for alone: the
same method on the same names. A token is opaque and not secret: what the caller may see is decided
anew with each call.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Iterable
from typing import Final

from gridlane_kit import errors
from gridlane_kit.feed import Position

_BINDING_BYTES: Final = 8


class ResumeTokens:
    """The tokens of one watch.

    Parameters:
        method: the watch's.
        names: the resources that are watched; their order does not count.
    """

    def __init__(self, method: str, names: Iterable[str]) -> None:
        content = json.dumps([method, *sorted(set(names))]).encode()
        self._binding = hashlib.blake2b(content, digest_size=_BINDING_BYTES).digest()

    def encode(self, position: Position) -> str:
        """Returns the token for a place."""
        return base64.urlsafe_b64encode(self._binding + str(position).encode()).decode().rstrip("=")

    def decode(self, token: str) -> Position | None:
        """Returns the place of a token; None for the empty one: before the first event.

        Raises:
            GridlaneError: TOKEN_NOT_OURS: no token, or one of another watch.
        """
        if not token:
            return None
        try:
            raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
            if raw[:_BINDING_BYTES] != self._binding:
                raise ValueError("of another watch")
            epoch, _, position = raw[_BINDING_BYTES:].decode("ascii").rpartition(":")
            return Position(epoch, int(position))
        except (ValueError, binascii.Error) as error:
            raise errors.token_not_ours("resume_token") from error
