"""The form of a call on the wire: metadata in, status and trailing metadata out.

Responsible for reading `authorization` and `traceparent`, and for errors as gRPC status with
`grpc-status-details-bin` (google.rpc.Status). Trailing metadata is kept small: clients refuse more
than a few KiB of it, and would then not see the error at all.
"""

from collections.abc import Iterable
from typing import Any, Final

from google.rpc import status_pb2
from grpc import aio

from gridlane_kit.call import Call
from gridlane_kit.errors import GridlaneError

MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024
DETAILS_KEY: Final = "grpc-status-details-bin"
TRACE_ID_KEY: Final = "gridlane-trace-id"
# Bytes. Clients take 8 KiB of trailing metadata by default; the message travels percent-encoded
# (at most three times as long), the details are in base64.
_MAX_MESSAGE: Final = 700
_MAX_SHORT: Final = 200
_MAX_DETAILS: Final = 4096


def header_and_traceparent(metadata: Iterable[tuple[str, Any]] | None) -> tuple[str, str]:
    """Returns the `authorization` header and the trace context of a call; empty when not sent."""
    header = traceparent = ""
    for key, value in metadata or ():
        if key == "authorization":
            header = value
        elif key == "traceparent":
            traceparent = value
    return header, traceparent


def send_error(
    context: "aio.ServicerContext[bytes, bytes]", call: Call, error: GridlaneError
) -> None:
    """Ends a call with an error; a stream that named its place tells it (`resume_token`)."""
    if call.resume_token:
        error.metadata.setdefault("resume_token", call.resume_token)
    context.set_code(error.code)
    context.set_details(_cut(error.message, _MAX_MESSAGE))
    context.set_trailing_metadata(
        ((DETAILS_KEY, _details(error)), (TRACE_ID_KEY, call.trace.trace_id_hex))
    )


def send_trace_id(context: "aio.ServicerContext[bytes, bytes]", call: Call) -> None:
    """Tells the caller under which id a sampled call that went well can be found."""
    context.set_trailing_metadata(((TRACE_ID_KEY, call.trace.trace_id_hex),))


def _details(error: GridlaneError) -> bytes:
    try:
        status = error.to_status()
    except (TypeError, ValueError):
        # Metadata that is no text: a defect of the handler, which must not hide the error itself.
        status = GridlaneError(error.reason, error.message).to_status()
    status.message = _cut(status.message, _MAX_MESSAGE)
    raw = status.SerializeToString()
    if len(raw) <= _MAX_DETAILS:
        return raw
    return _shortened(error).SerializeToString()


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
