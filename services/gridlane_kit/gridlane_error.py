"""The one class of errors that callers see.

Responsible for what an error carries and for its form as `google.rpc.Status`. The errors themselves
are made in `errors`, which is where everybody else takes the class from.
"""

from collections.abc import Iterable, Mapping

from google.protobuf import any_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from gridlane_kit.error_reasons import CODES, ErrorReason

DOMAIN = "gridlane"


class GridlaneError(Exception):
    """A failure as the caller sees it.

    Parameters:
        reason: why; the gRPC code follows from it.
        message: for people: names the value, what was expected, and the cure. Never another error's
            text.
        metadata: what programs may want to know, as `error_reason.proto` documents it.
        details: further messages of `google.rpc`: BadRequest, PreconditionFailure, RetryInfo.
    """

    def __init__(
        self,
        reason: ErrorReason,
        message: str,
        metadata: Mapping[str, str] | None = None,
        details: Iterable[Message] = (),
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.code = CODES[reason]
        self.message = message
        self.metadata = dict(metadata or {})
        self.details = tuple(details)

    def to_status(self) -> status_pb2.Status:
        """The error as `google.rpc.Status`: for an item of a batch, and for trailing metadata."""
        info = error_details_pb2.ErrorInfo(
            reason=self.reason.value, domain=DOMAIN, metadata=self.metadata
        )
        number: int = self.code.value[0]
        return status_pb2.Status(
            code=number,
            message=self.message,
            details=[_packed(message) for message in (info, *self.details)],
        )


def _packed(message: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
