"""What a call raises: one class for each kind of failure, with all that the server said about it.

Responsible for turning a gRPC status (of a call, or of one item of a batch) into a `GridlaneError`.
The reasons are documented in `gridlane/type/v1/error_reason.proto`. Whether to try again is decided
in `retry.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import grpc

if TYPE_CHECKING:
    from google.protobuf.any_pb2 import Any
    from google.rpc import error_details_pb2
    from google.rpc.status_pb2 import Status

DETAILS_KEY = "grpc-status-details-bin"
DOMAIN = "gridlane"


class Violation(NamedTuple):
    """One thing that is wrong with a request."""

    #: The path of the field ("job.vo"), or what a precondition is about ("jobs/…").
    field: str
    #: What was expected of it.
    description: str


class GridlaneError(Exception):
    """A call failed. The subclasses tell the kind; this class is what to catch for all of them."""

    code: grpc.StatusCode = grpc.StatusCode.UNKNOWN

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode | None = None,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        violations: Iterable[Violation] = (),
        retry_after_s: float | None = None,
        trace_id: str = "",
        method: str = "",
        help_url: str = "",
    ) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code
        #: What happened, for people.
        self.message = message
        #: Why, as a word to decide by ("NOT_FOUND", "TOKEN_EXPIRED"); empty when the answer did not
        #: come from Gridlane.
        self.reason = reason
        #: What the server says beside the reason; documented with each reason.
        self.metadata: Mapping[str, str] = dict(metadata or {})
        #: What is wrong with the request, field by field.
        self.violations = tuple(violations)
        #: When to come again, in seconds; None when the server does not say.
        self.retry_after_s = retry_after_s
        #: The id under which the servers' traces and logs have the call.
        self.trace_id = trace_id
        #: The method that was called, "gridlane.workload.v1.JobService/GetJob".
        self.method = method
        #: Where to read about the reason; empty when the deployment has no such page.
        self.help_url = help_url

    def __str__(self) -> str:
        return f"{self.reason or self.code.name}: {self.message}"


class InvalidArgument(GridlaneError):  # noqa: N818 - the names are gRPC's
    """The request is wrong; `violations` names each field. Repeating it as it is cannot help."""

    code = grpc.StatusCode.INVALID_ARGUMENT


class Unauthenticated(GridlaneError):  # noqa: N818
    """There is no token, or the server does not accept it."""

    code = grpc.StatusCode.UNAUTHENTICATED


class PermissionDenied(GridlaneError):  # noqa: N818
    """The caller may not do this; `metadata["permission"]` names what is missing."""

    code = grpc.StatusCode.PERMISSION_DENIED


class NotFound(GridlaneError):  # noqa: N818
    """There is no such resource, or the caller may not see it."""

    code = grpc.StatusCode.NOT_FOUND


class AlreadyExists(GridlaneError):  # noqa: N818
    """Something else is there under that name or that request id."""

    code = grpc.StatusCode.ALREADY_EXISTS


class FailedPrecondition(GridlaneError):  # noqa: N818
    """The resource is not in a state in which this can be done."""

    code = grpc.StatusCode.FAILED_PRECONDITION


class Aborted(GridlaneError):  # noqa: N818
    """Somebody else changed the resource at the same time."""

    code = grpc.StatusCode.ABORTED


class OutOfRange(GridlaneError):  # noqa: N818
    """A watch cannot go on where it stopped: the events are no longer kept."""

    code = grpc.StatusCode.OUT_OF_RANGE


class ResourceExhausted(GridlaneError):  # noqa: N818
    """The server is full, of work (`retry_after_s` says when to come again) or of data."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED


class Unavailable(GridlaneError):  # noqa: N818
    """The server, or one behind it, does not answer."""

    code = grpc.StatusCode.UNAVAILABLE


class DeadlineExceeded(GridlaneError):  # noqa: N818
    """The time given for the call passed. Whether it was carried out is not known."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED


class DataLoss(GridlaneError):  # noqa: N818
    """Bytes do not have the size or checksum that was promised."""

    code = grpc.StatusCode.DATA_LOSS


class Unimplemented(GridlaneError):  # noqa: N818
    """This server does not have the method."""

    code = grpc.StatusCode.UNIMPLEMENTED


class Internal(GridlaneError):  # noqa: N818
    """A defect of the server; its log has more under `trace_id`."""

    code = grpc.StatusCode.INTERNAL


class Cancelled(GridlaneError):  # noqa: N818
    """The call was cancelled before it was answered."""

    code = grpc.StatusCode.CANCELLED


_CLASSES: dict[grpc.StatusCode, type[GridlaneError]] = {
    kind.code: kind for kind in GridlaneError.__subclasses__()
}
_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


def error_from_call(
    code: grpc.StatusCode,
    message: str,
    trailing: Iterable[tuple[str, str | bytes]],
    *,
    trace_id: str = "",
    method: str = "",
) -> GridlaneError:
    """The error that a call ended with.

    Parameters:
        code: the call's status.
        message: its text.
        trailing: its trailing metadata, in which the details come.
        trace_id: the id of the trace that the call was made in.
        method: the method called.
    """
    details: Iterable[Any] = ()
    for key, value in trailing:
        if key == DETAILS_KEY and isinstance(value, bytes):
            details = _parse_details(value)
    return _build(code, message, details, trace_id=trace_id, method=method)


def error_from_status(status: Status) -> GridlaneError:
    """The error of one item of a batch, from the `google.rpc.Status` in its place."""
    code = _CODES.get(status.code, grpc.StatusCode.UNKNOWN)
    return _build(code, status.message, status.details, trace_id="", method="")


def _parse_details(serialized: bytes) -> Iterable[Any]:
    from google.protobuf.message import DecodeError
    from google.rpc.status_pb2 import Status

    try:
        return Status.FromString(serialized).details
    except DecodeError:
        return ()  # not from Gridlane: code and message are all there is


def _build(
    code: grpc.StatusCode, message: str, details: Iterable[Any], *, trace_id: str, method: str
) -> GridlaneError:
    found = _read(details)
    return _CLASSES.get(code, GridlaneError)(
        message or code.name,
        code=code,
        reason=found.reason,
        metadata=found.metadata,
        violations=found.violations,
        retry_after_s=found.retry_after_s,
        trace_id=found.metadata.get("trace_id") or trace_id,
        method=method,
        help_url=found.help_url,
    )


class _Details:
    """What the messages of `google.rpc` beside a status say."""

    def __init__(self) -> None:
        self.reason = ""
        self.metadata: dict[str, str] = {}
        self.violations: list[Violation] = []
        self.retry_after_s: float | None = None
        self.help_url = ""

    def error_info(self, info: error_details_pb2.ErrorInfo) -> None:
        if info.domain == DOMAIN:
            self.reason, self.metadata = info.reason, dict(info.metadata)

    def bad_request(self, bad: error_details_pb2.BadRequest) -> None:
        self.violations += [Violation(v.field, v.description) for v in bad.field_violations]

    def precondition(self, failure: error_details_pb2.PreconditionFailure) -> None:
        self.violations += [Violation(v.subject, v.description) for v in failure.violations]

    def help(self, told: error_details_pb2.Help) -> None:
        self.help_url = next((link.url for link in told.links), "")

    def retry_info(self, info: error_details_pb2.RetryInfo) -> None:
        delay = info.retry_delay
        self.retry_after_s = max(0.0, delay.seconds + delay.nanos / 1e9)


def _read(details: Iterable[Any]) -> _Details:
    found = _Details()
    packed = list(details)
    if not packed:
        return found
    from google.protobuf.message import DecodeError
    from google.rpc import error_details_pb2 as google

    for item in packed:
        kind = item.type_url.rpartition("/")[2]
        try:
            if kind == "google.rpc.ErrorInfo":
                found.error_info(google.ErrorInfo.FromString(item.value))
            elif kind == "google.rpc.BadRequest":
                found.bad_request(google.BadRequest.FromString(item.value))
            elif kind == "google.rpc.PreconditionFailure":
                found.precondition(google.PreconditionFailure.FromString(item.value))
            elif kind == "google.rpc.RetryInfo":
                found.retry_info(google.RetryInfo.FromString(item.value))
            elif kind == "google.rpc.Help":
                found.help(google.Help.FromString(item.value))
        except DecodeError:
            continue  # one broken detail does not hide the others
    return found
