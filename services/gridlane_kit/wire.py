"""The form of a call on the wire: metadata in, status and trailing metadata out.

Responsible for reading `authorization`, `gridlane-group` (in which of its groups the caller wants
to act) and `traceparent`, and for errors as gRPC status with `grpc-status-details-bin`
(google.rpc.Status), written and read. Trailing metadata is kept small: clients refuse more than a
few KiB of it, and would then not see the error at all.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2
from grpc import aio

from gridlane_kit.call import Call
from gridlane_kit.errors import CODES, DOMAIN, ErrorReason, GridlaneError

MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024
DETAILS_KEY: Final = "grpc-status-details-bin"
TRACE_ID_KEY: Final = "gridlane-trace-id"
GROUP_KEY: Final = "gridlane-group"
# Bytes. Clients take 8 KiB of trailing metadata by default; the message travels percent-encoded
# (at most three times as long), the details are in base64.
_MAX_MESSAGE: Final = 700
_MAX_SHORT: Final = 200
_MAX_DETAILS: Final = 4096

_DETAIL_CLASSES: Final[tuple[type[Message], ...]] = (
    error_details_pb2.BadRequest,
    error_details_pb2.PreconditionFailure,
    error_details_pb2.RetryInfo,
)
_BROADEST: Final[Mapping[grpc.StatusCode, ErrorReason]] = MappingProxyType(
    {
        grpc.StatusCode.PERMISSION_DENIED: ErrorReason.PERMISSION_DENIED,
        grpc.StatusCode.INVALID_ARGUMENT: ErrorReason.INVALID_FIELDS,
        grpc.StatusCode.NOT_FOUND: ErrorReason.NOT_FOUND,
        grpc.StatusCode.ALREADY_EXISTS: ErrorReason.ALREADY_EXISTS,
        grpc.StatusCode.FAILED_PRECONDITION: ErrorReason.PRECONDITION,
        grpc.StatusCode.ABORTED: ErrorReason.REVISION_CONFLICT,
        grpc.StatusCode.OUT_OF_RANGE: ErrorReason.POSITION_TRIMMED,
        grpc.StatusCode.RESOURCE_EXHAUSTED: ErrorReason.OVERLOADED,
    }
)
"""What stands for a reason that only a newer version knows."""


def caller_and_traceparent(metadata: Iterable[tuple[str, Any]] | None) -> tuple[str, str, str]:
    """Returns the `authorization` header, the group in which the caller wants to act and the trace
    context of a call; each is empty when not sent."""
    header = group = traceparent = ""
    for key, value in metadata or ():
        if key == "authorization":
            header = value
        elif key == "traceparent":
            traceparent = value
        elif key == GROUP_KEY:
            group = value
    return header, group, traceparent


def help_links(page: str) -> Mapping[str, bytes]:
    """Returns, for each reason, the `google.rpc.Help` with the place where people read of it: as
    bytes that are put behind those of a Status, and so are one of its details.

    Parameters:
        page: the URL of the page with all reasons (`docs/reference/errors.md`); empty: there is
            none, and no error names it.
    """
    if not page:
        return MappingProxyType({})
    return MappingProxyType({reason.value: _help(page, reason) for reason in ErrorReason})


def _help(page: str, reason: ErrorReason) -> bytes:
    link = error_details_pb2.Help.Link(
        description=f"what {reason.value} means, and the cure",
        url=f"{page}#{reason.value.lower()}",
    )
    status = status_pb2.Status()
    status.details.add().Pack(error_details_pb2.Help(links=[link]))
    return status.SerializeToString()


def send_error(
    context: "aio.ServicerContext[bytes, bytes]",
    call: Call,
    error: GridlaneError,
    links: Mapping[str, bytes],
) -> str:
    """Ends a call with an error; a stream that named its place tells it (`resume_token`).

    Parameters:
        links: `help_links`.

    Whoever caught the error passes it on without a name of its own: a frame that names an error
    which came through it is kept by that error, and the request with it, until the collector runs.

    Returns:
        The name of its code.
    """
    if call.resume_token:
        error.metadata.setdefault("resume_token", call.resume_token)
    context.set_code(error.code)
    context.set_details(_cut(error.message, _MAX_MESSAGE))
    context.set_trailing_metadata(
        ((DETAILS_KEY, _details(error, links)), (TRACE_ID_KEY, call.trace.trace_id_hex))
    )
    return error.code.name


def send_trace_id(context: "aio.ServicerContext[bytes, bytes]", call: Call) -> None:
    """Tells the caller under which id a sampled call that went well can be found."""
    context.set_trailing_metadata(((TRACE_ID_KEY, call.trace.trace_id_hex),))


def read_error(
    code: grpc.StatusCode, trailing: Iterable[tuple[str, str | bytes]]
) -> GridlaneError | None:
    """Returns the error that a service of Gridlane ended a call with.

    Parameters:
        code: the call's status.
        trailing: its trailing metadata.

    Returns:
        None when the status was not made by one: gRPC's own, or something else that answered.
    """
    raw = next((value for key, value in trailing if key == DETAILS_KEY), b"")
    try:
        status = status_pb2.Status.FromString(raw if isinstance(raw, bytes) else raw.encode())
    except DecodeError:
        return None
    info = error_details_pb2.ErrorInfo()
    if not any(packed.Unpack(info) for packed in status.details) or info.domain != DOMAIN:
        return None
    reason = _reason(code, info.reason)
    if reason is None:
        return None
    return GridlaneError(reason, status.message, info.metadata, _unpacked(status))


def _reason(code: grpc.StatusCode, name: str) -> ErrorReason | None:
    if name in ErrorReason.__members__:
        reason = ErrorReason(name)
        if CODES[reason] is code:
            return reason
    return _BROADEST.get(code)


def _unpacked(status: status_pb2.Status) -> list[Message]:
    found: list[Message] = []
    for packed in status.details:
        for known in _DETAIL_CLASSES:
            message = known()
            if packed.Unpack(message):
                found.append(message)
    return found


def _details(error: GridlaneError, links: Mapping[str, bytes]) -> bytes:
    link = links.get(error.reason.value, b"")
    try:
        status = error.to_status()
    except (TypeError, ValueError):
        # Metadata that is no text: a defect of the handler, which must not hide the error itself.
        status = GridlaneError(error.reason, error.message).to_status()
    status.message = _cut(status.message, _MAX_MESSAGE)
    raw = status.SerializeToString()
    if len(raw) + len(link) <= _MAX_DETAILS:
        return raw + link
    return _shortened(error).SerializeToString() + link


def _shortened(error: GridlaneError) -> status_pb2.Status:
    """Keeps what programs decide by: code and reason, and of the rest what is short."""
    metadata = {
        key: value for key, value in error.metadata.items() if len(value.encode()) <= _MAX_SHORT
    }
    short = GridlaneError(error.reason, _cut(error.message, _MAX_SHORT), metadata)
    return short.to_status()


def _cut(text: str, size_bytes: int) -> str:
    """The beginning of a text, as much of it as takes so many bytes in UTF-8."""
    return text.encode()[:size_bytes].decode(errors="ignore")
