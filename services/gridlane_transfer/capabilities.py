"""What requests may ask for and this version does not carry out, as data; and its early refusal.

Responsible for the tables of such fields and for the error that names each with its cure: a field
is carried, refused here, or output only, and nothing is ignored in silence (a test walks the
descriptors). Whoever carries a field out takes it from its table. Not for what depends on the ends
of a file, such as which checksums are computed (`submission`).

A thousand files of one job are looked through with the costs of one attribute read a field, since
hardly any of them asks for anything.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from types import MappingProxyType
from typing import Final

from google.protobuf.message import Message

from gridlane.transfer.v1 import (
    selection_strategy_pb2,
    transfer_job_pb2,
    transfer_service_pb2,
)
from gridlane_kit import errors

EMBEDDED: Final = "embedded"
"""The backend that lacks all of this."""


@dataclass(frozen=True, slots=True)
class Missing:
    """What a field or value asks for and nothing here does.

    Parameters:
        capability: the `TransferCapability` it needs, without prefix.
        cure: what the caller can do instead.
    """

    capability: str
    cure: str


_EMPTY: Final = "leave it empty"
_ZERO: Final = "leave it 0"
_UNSET: Final = "leave it unset"
_FALSE: Final = "leave it false"
_MODES: Final = "ask for NEVER, ALWAYS, ON_RETRY or WHEN_DIFFERENT"
_STRATEGIES: Final = "ask for ORDERLY, AUTO or SUCCESS"

OF_EVERY_BACKEND: Final = frozenset(
    {
        "ALTERNATIVE_SOURCES",
        "MULTIHOP",
        "TARGET_REPORT",
        "OVERWRITE_ON_RETRY",
        "OVERWRITE_WHEN_DIFFERENT",
        "ACTIVITIES",
        "METADATA",
        "GUIDS",
        "RETRY_DELAY",
        "QUEUE_TIME_LIMIT",
        "JOB_EXPIRY",
        "BACKEND_CHOICE",
        "FILE_FILTERS",
        "PROTOCOL_CHOICE",
    }
)
"""Capabilities that lie with the service, whatever the backend."""

OVERWRITE_MODES: Final[Mapping[int, Missing]] = MappingProxyType(
    {
        transfer_job_pb2.OVERWRITE_MODE_WHEN_ONLY_ON_DISK: Missing(
            "OVERWRITE_WHEN_ONLY_ON_DISK", _MODES
        ),
    }
)
"""Values of `overwrite`, of jobs and files; the others are carried out."""

SELECTION_STRATEGIES: Final[Mapping[int, Missing]] = MappingProxyType(
    {
        number: Missing("SOURCE_STATISTICS", _STRATEGIES)
        for number in selection_strategy_pb2.SelectionStrategy.values()
        if number > selection_strategy_pb2.SELECTION_STRATEGY_SUCCESS
    }
)
"""Values of `selection_strategy`, of jobs and files; the others are carried out."""

JOB_FIELDS: Final[Mapping[str, Missing]] = MappingProxyType(
    {
        "session_reuse": Missing("SESSION_REUSE", _FALSE),
        "buffer_size_bytes": Missing("BUFFER_SIZE", _ZERO),
        "bring_online_timeout": Missing("STAGING", _UNSET),
        "copy_pin_lifetime": Missing("STAGING", _UNSET),
        "archive_timeout": Missing("ARCHIVING", _UNSET),
        "s3_alternate": Missing("S3_ALTERNATE", _UNSET),
        "ip_version": Missing("IP_VERSION", "leave it unspecified"),
        "target_qos": Missing("TARGET_QOS", _EMPTY),
        "source_spacetoken": Missing("SPACE_TOKENS", _EMPTY),
        "target_spacetoken": Missing("SPACE_TOKENS", _EMPTY),
        "credential": Missing("CREDENTIALS", _EMPTY),
    }
)
"""Fields of `TransferJob`."""

FILE_FIELDS: Final[Mapping[str, Missing]] = MappingProxyType(
    {
        "staging_metadata": Missing("STAGING", _EMPTY),
        "archive_metadata": Missing("ARCHIVING", _EMPTY),
    }
)
"""Fields of `FileTransfer`. Scalars and lists alone, of which what asks for nothing is false."""

CHANNEL_FIELDS: Final[Mapping[str, Missing]] = MappingProxyType(
    {"default_buffer_size_bytes": Missing("BUFFER_SIZE", _ZERO)}
)
"""Fields of `Channel`."""

DELETION_FIELDS: Final[Mapping[str, Missing]] = MappingProxyType(
    {
        "spacetoken": Missing("SPACE_TOKENS", _EMPTY),
        "credential": Missing("CREDENTIALS", _EMPTY),
    }
)
"""Fields of `SubmitDeletionJobRequest`."""

NO_STAGING: Final = Missing("STAGING", "submit files that lie on disk")
"""What every file of a staging job asks for."""

NO_REMOTE_PUT: Final = Missing(
    "PUT_CONTENT",
    "put it to a storage element that is a directory here, and submit a transfer to the remote one",
)
"""What putting bytes to a remote storage asks for."""

_VALUES: Final = {"overwrite": OVERWRITE_MODES, "selection_strategy": SELECTION_STRATEGIES}
_asked_of_file: Final = attrgetter(*FILE_FIELDS)

Found = tuple[str, Missing]
"""A field's path in the request, and what it asks for."""


def refuse_job(job: transfer_job_pb2.TransferJob) -> None:
    """Refuse a submission that asks for what is not carried out; the rules beside its fields hold.

    Raises:
        GridlaneError: CAPABILITY_MISSING that names each such field, of very many the first ones.
    """
    found = list(_asked(job, JOB_FIELDS, "transfer_job."))
    for index, file in enumerate(job.files):
        if (
            any(_asked_of_file(file))
            or file.overwrite in OVERWRITE_MODES
            or file.selection_strategy in SELECTION_STRATEGIES
        ):
            found += _asked(file, FILE_FIELDS, f"transfer_job.files[{index}].")
    _refuse(found)


def refuse_deletion(request: transfer_service_pb2.SubmitDeletionJobRequest) -> None:
    """Refuse a job that removes files and asks for what is not carried out.

    Raises:
        GridlaneError: CAPABILITY_MISSING.
    """
    _refuse(_asked(request, DELETION_FIELDS, ""))


def staging_missing(
    request: transfer_service_pb2.SubmitStagingJobRequest,
) -> errors.GridlaneError:
    """The refusal of a job that brings files from tape: no backend does."""
    fields = (f"files[{index}].source" for index in range(len(request.files)))
    return _missing([(field, NO_STAGING) for field in fields])


def remote_put(field: str) -> errors.GridlaneError:
    """The refusal of bytes for a remote storage: no backend takes them through the service."""
    return _missing([(field, NO_REMOTE_PUT)])


def _asked(message: Message, fields: Mapping[str, Missing], path: str) -> Iterator[Found]:
    """What a message asks for; a field that is set to its default asks for nothing."""
    for field, value in message.ListFields():
        missing = fields.get(field.name)
        if field.name in _VALUES:
            missing = _VALUES[field.name].get(value)
        if missing is not None and value is not False:
            yield path + field.name, missing


def _refuse(found: Iterable[Found]) -> None:
    asked = list(found)
    if asked:
        raise _missing(asked)


def _missing(asked: Sequence[Found]) -> errors.GridlaneError:
    first = asked[0][1]
    violations = [
        (field, f"needs {missing.capability}, which {EMBEDDED} lacks: {missing.cure}")
        for field, missing in asked
    ]
    return errors.capability_missing(violations, first.capability, EMBEDDED)
