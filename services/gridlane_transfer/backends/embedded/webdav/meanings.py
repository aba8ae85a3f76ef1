"""What a storage's refusal, or its silence, means to a transfer: the tables.

Responsible for classes, cures and whether trying again can help. The statuses are those of RFC 9110
and RFC 4918; a lock, a server that is full or busy, and everything that broke on the way passes; a
missing file, a refused right and a name that is taken do not.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, NamedTuple

from gridlane_transfer.backends.embedded.webdav.troubles import (
    HttpError,
    Kind,
    StatusError,
    TroubleError,
)
from gridlane_transfer.moving.failures import Failed, FailureClass


class Side(StrEnum):
    """Which end of a transfer a request was for."""

    SOURCE = "source"
    TARGET = "target"


class Meaning(NamedTuple):
    """What is wrong, with `{side}` for the end; and what follows from it."""

    failure_class: FailureClass
    what: str
    cure: str = ""
    recoverable: bool = False


_UNUSABLE: Final = {
    Side.SOURCE: FailureClass.SOURCE_UNREADABLE,
    Side.TARGET: FailureClass.TARGET_UNWRITABLE,
}
_CREDENTIAL, _REFUSED = FailureClass.CREDENTIAL, FailureClass.BACKEND_REFUSED
_NO_SPACE, _EXISTS = FailureClass.NO_SPACE, FailureClass.TARGET_EXISTS
_UNREADABLE, _UNWRITABLE = FailureClass.SOURCE_UNREADABLE, FailureClass.TARGET_UNWRITABLE
_MISSING, _TIMED_OUT = FailureClass.SOURCE_MISSING, FailureClass.TIMED_OUT

_WAIT: Final = "it is tried again; when it stays so, ask who runs the storage"
_ASKS: Final = "have a token for this storage configured where the service runs"
_RIGHT: Final = "ask who runs the storage for the right"
_NAME: Final = "check the name"
_NETWORK: Final = "name a public host, or have its network allowed where the service runs"
_CA: Final = "have the storage's authority configured where the service runs"

STATUSES: Final[Mapping[Side, Mapping[int, Meaning]]] = {
    Side.SOURCE: {
        401: Meaning(_CREDENTIAL, "the source's storage asks for a credential", _ASKS),
        403: Meaning(_UNREADABLE, "the source may not be read", _RIGHT),
        404: Meaning(_MISSING, "the source does not exist", _NAME),
        408: Meaning(_TIMED_OUT, "the source's storage waited in vain", _WAIT, True),
        410: Meaning(_MISSING, "the source does not exist any more", _NAME),
        412: Meaning(
            _UNREADABLE,
            "the source changed while it was read",
            "leave it alone until it is copied",
            True,
        ),
        416: Meaning(
            _UNREADABLE,
            "the source changed while it was read",
            "leave it alone until it is copied",
            True,
        ),
        423: Meaning(_UNREADABLE, "the source is locked", _WAIT, True),
        429: Meaning(_UNREADABLE, "the source's storage is asked too much", _WAIT, True),
    },
    Side.TARGET: {
        401: Meaning(_CREDENTIAL, "the target's storage asks for a credential", _ASKS),
        403: Meaning(_UNWRITABLE, "the target may not be written", _RIGHT),
        404: Meaning(_UNWRITABLE, "the target's directory does not exist", _NAME),
        405: Meaning(
            _UNWRITABLE,
            "the target is a directory, or its storage takes no files there",
            "choose another target",
        ),
        408: Meaning(_TIMED_OUT, "the target's storage waited in vain", _WAIT, True),
        409: Meaning(
            _UNWRITABLE,
            "the target's directory does not exist, or a part of its path is a file",
            "choose another target",
        ),
        412: Meaning(
            _EXISTS,
            "the target exists",
            "choose another name, remove it first, or allow overwriting",
        ),
        413: Meaning(_NO_SPACE, "the target's storage takes no file this big"),
        414: Meaning(_UNWRITABLE, "the target's name is too long", "shorten it"),
        415: Meaning(_REFUSED, "the target's storage does not take this request"),
        423: Meaning(_UNWRITABLE, "the target is locked", _WAIT, True),
        429: Meaning(_UNWRITABLE, "the target's storage is asked too much", _WAIT, True),
        501: Meaning(_REFUSED, "the target's storage cannot do this", "choose another target"),
        507: Meaning(_NO_SPACE, "there is no room for the target", "free some space"),
    },
}
"""Statuses that say something of their own; of the others, 5xx passes and 4xx does not."""

TROUBLES: Final[Mapping[Kind, Meaning]] = {
    Kind.FORBIDDEN_ADDRESS: Meaning(
        _REFUSED, "the {side}'s host has an address that is not to be reached", _NETWORK
    ),
    Kind.UNRESOLVED: Meaning(_REFUSED, "the {side}'s host is not known", _NAME, True),
    Kind.UNREACHABLE: Meaning(_REFUSED, "the {side}'s storage cannot be reached", _WAIT, True),
    Kind.TIMED_OUT: Meaning(_TIMED_OUT, "the {side}'s storage does not answer", _WAIT, True),
    Kind.BROKEN: Meaning(
        FailureClass.BACKEND_LOST, "the connection to the {side}'s storage broke", _WAIT, True
    ),
    Kind.CERTIFICATE: Meaning(_REFUSED, "the {side}'s storage has no certificate we trust", _CA),
    Kind.TLS: Meaning(_REFUSED, "no secure connection to the {side}'s storage", _WAIT, True),
    Kind.REDIRECT: Meaning(
        _REFUSED, "the {side}'s storage leads where we do not follow", "ask who runs the storage"
    ),
    Kind.PROTOCOL: Meaning(
        _REFUSED, "the {side}'s storage does not speak as agreed", "ask who runs the storage"
    ),
    Kind.CHANGED: Meaning(
        _UNREADABLE,
        "the source changed while it was read",
        "leave it alone until it is copied",
        True,
    ),
}
"""What is no answer."""


def failure(side: Side, error: HttpError, shown: str) -> Failed:
    """The failure that an error means at an end.

    Parameters:
        shown: what the file is called.
    """
    meaning, detail = _meaning(side, error)
    what = meaning.what.format(side=side)
    said = f" ({detail})" if detail else ""
    return Failed(
        meaning.failure_class,
        f"{what}: {shown}{said}",
        meaning.cure,
        recoverable=meaning.recoverable,
    )


def _meaning(side: Side, error: HttpError) -> tuple[Meaning, str]:
    if isinstance(error, TroubleError):
        return TROUBLES[error.kind], error.detail
    if not isinstance(error, StatusError):
        raise error
    detail = f"HTTP {error.status}: {error.detail}".removesuffix(": ")
    found = STATUSES[side].get(error.status)
    if found is not None:
        return found, detail
    passing = error.status >= 500
    verb = "read" if side is Side.SOURCE else "written"
    what = f"the {side} cannot be {verb}"
    return Meaning(_UNUSABLE[side], what, _WAIT if passing else "", passing), detail
