"""The reasons of errors and the gRPC code that each always comes with.

Responsible for two tables alone; `gridlane/type/v1/error_reason.proto` is the vocabulary with its
meaning, and a contract test compares the two. The errors themselves are made in `errors`, which is
where everybody else takes these names from.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum

import grpc


class ErrorReason(StrEnum):
    """The values of `gridlane.type.v1.ErrorReason` without prefix: the strings on the wire."""

    TOKEN_MISSING = "TOKEN_MISSING"  # noqa: S105 - a reason, no secret
    TOKEN_INVALID = "TOKEN_INVALID"  # noqa: S105
    TOKEN_EXPIRED = "TOKEN_EXPIRED"  # noqa: S105
    PERMISSION_DENIED = "PERMISSION_DENIED"
    CALLER_VETOED = "CALLER_VETOED"
    SCOPE_TOO_NARROW = "SCOPE_TOO_NARROW"
    MALFORMED_MESSAGE = "MALFORMED_MESSAGE"
    INVALID_FIELDS = "INVALID_FIELDS"
    REQUEST_ID_TOO_OLD = "REQUEST_ID_TOO_OLD"
    TOKEN_NOT_OURS = "TOKEN_NOT_OURS"  # noqa: S105
    FILTER_UNSUPPORTED = "FILTER_UNSUPPORTED"
    NO_STORAGE_ELEMENT = "NO_STORAGE_ELEMENT"
    VO_AMBIGUOUS = "VO_AMBIGUOUS"
    CAPABILITY_MISSING = "CAPABILITY_MISSING"
    ADDRESS_FORBIDDEN = "ADDRESS_FORBIDDEN"
    NOT_FOUND = "NOT_FOUND"
    REQUEST_ID_REUSED = "REQUEST_ID_REUSED"
    ALREADY_EXISTS = "ALREADY_EXISTS"
    ILLEGAL_TRANSITION = "ILLEGAL_TRANSITION"
    PRECONDITION = "PRECONDITION"
    REVISION_CONFLICT = "REVISION_CONFLICT"
    POSITION_TRIMMED = "POSITION_TRIMMED"
    CREDENTIAL_MISSING = "CREDENTIAL_MISSING"
    CREDENTIAL_EXPIRED = "CREDENTIAL_EXPIRED"
    LAST_ADMIN = "LAST_ADMIN"
    OVERLOADED = "OVERLOADED"
    NO_SPACE = "NO_SPACE"
    DRAINING = "DRAINING"
    WATCHER_TOO_SLOW = "WATCHER_TOO_SLOW"
    PEER_UNAVAILABLE = "PEER_UNAVAILABLE"
    STORE_UNAVAILABLE = "STORE_UNAVAILABLE"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    POLICY_STALE = "POLICY_STALE"
    QUOTA_EXCEEDED = "QUOTA_EXCEEDED"
    REVISION_NOT_REACHED = "REVISION_NOT_REACHED"
    NOT_IMPLEMENTED = "NOT_IMPLEMENTED"
    CHECKSUM_MISMATCH = "CHECKSUM_MISMATCH"
    INTERNAL = "INTERNAL"
    IN_USE = "IN_USE"


_REASONS_BY_CODE: Mapping[grpc.StatusCode, Sequence[ErrorReason]] = {
    grpc.StatusCode.UNAUTHENTICATED: (
        ErrorReason.TOKEN_MISSING,
        ErrorReason.TOKEN_INVALID,
        ErrorReason.TOKEN_EXPIRED,
    ),
    grpc.StatusCode.PERMISSION_DENIED: (
        ErrorReason.PERMISSION_DENIED,
        ErrorReason.CALLER_VETOED,
        ErrorReason.SCOPE_TOO_NARROW,
    ),
    grpc.StatusCode.INVALID_ARGUMENT: (
        ErrorReason.MALFORMED_MESSAGE,
        ErrorReason.INVALID_FIELDS,
        ErrorReason.REQUEST_ID_TOO_OLD,
        ErrorReason.TOKEN_NOT_OURS,
        ErrorReason.FILTER_UNSUPPORTED,
        ErrorReason.NO_STORAGE_ELEMENT,
        ErrorReason.VO_AMBIGUOUS,
        ErrorReason.CAPABILITY_MISSING,
        ErrorReason.ADDRESS_FORBIDDEN,
    ),
    grpc.StatusCode.NOT_FOUND: (ErrorReason.NOT_FOUND,),
    grpc.StatusCode.ALREADY_EXISTS: (ErrorReason.REQUEST_ID_REUSED, ErrorReason.ALREADY_EXISTS),
    grpc.StatusCode.FAILED_PRECONDITION: (
        ErrorReason.ILLEGAL_TRANSITION,
        ErrorReason.PRECONDITION,
        ErrorReason.CREDENTIAL_MISSING,
        ErrorReason.CREDENTIAL_EXPIRED,
        ErrorReason.LAST_ADMIN,
        ErrorReason.IN_USE,
    ),
    grpc.StatusCode.ABORTED: (ErrorReason.REVISION_CONFLICT,),
    grpc.StatusCode.OUT_OF_RANGE: (ErrorReason.POSITION_TRIMMED,),
    grpc.StatusCode.RESOURCE_EXHAUSTED: (
        ErrorReason.OVERLOADED,
        ErrorReason.NO_SPACE,
        ErrorReason.QUOTA_EXCEEDED,
    ),
    grpc.StatusCode.UNAVAILABLE: (
        ErrorReason.DRAINING,
        ErrorReason.WATCHER_TOO_SLOW,
        ErrorReason.PEER_UNAVAILABLE,
        ErrorReason.STORE_UNAVAILABLE,
        ErrorReason.POLICY_STALE,
        ErrorReason.REVISION_NOT_REACHED,
    ),
    grpc.StatusCode.DEADLINE_EXCEEDED: (ErrorReason.DEADLINE_EXCEEDED,),
    grpc.StatusCode.UNIMPLEMENTED: (ErrorReason.NOT_IMPLEMENTED,),
    grpc.StatusCode.DATA_LOSS: (ErrorReason.CHECKSUM_MISMATCH,),
    grpc.StatusCode.INTERNAL: (ErrorReason.INTERNAL,),
}

CODES: Mapping[ErrorReason, grpc.StatusCode] = {
    reason: code for code, reasons in _REASONS_BY_CODE.items() for reason in reasons
}
