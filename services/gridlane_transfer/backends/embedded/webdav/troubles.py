"""What can go wrong with a request, as exceptions. What it means to a transfer is `meanings`'."""

from enum import StrEnum


class Kind(StrEnum):
    """Kinds of troubles that are no answer of a storage."""

    FORBIDDEN_ADDRESS = "FORBIDDEN_ADDRESS"
    UNRESOLVED = "UNRESOLVED"
    UNREACHABLE = "UNREACHABLE"
    TIMED_OUT = "TIMED_OUT"
    BROKEN = "BROKEN"
    CERTIFICATE = "CERTIFICATE"
    TLS = "TLS"
    REDIRECT = "REDIRECT"
    PROTOCOL = "PROTOCOL"
    CHANGED = "CHANGED"


class HttpError(Exception):
    """A request that did not do what it was for."""


class TroubleError(HttpError):
    """There was no answer that could be used.

    Parameters:
        kind: by which programs decide.
        detail: for people; never a credential.
    """

    def __init__(self, kind: Kind, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail


class StatusError(HttpError):
    """The storage answered with a status that says no.

    Parameters:
        status: the HTTP status.
        detail: what it said besides, shortened; may be empty.
    """

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(f"{status} {detail}".strip())
        self.status = status
        self.detail = detail
