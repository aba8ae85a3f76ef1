"""What requests may ask for and this version does not carry out, as data; and its early refusal.

Responsible for the tables of such fields and for the error that names each with its cure: a field
is carried, refused here, or output only, and nothing is ignored in silence (a test walks the
descriptors). Whoever carries a field out takes it from its table. Not for what depends on the ends
of a file, such as which checksums are computed (`submission`).

A thousand files of one job are looked through with the costs of one attribute read a field, since
hardly any of them asks for anything.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from operator import attrgetter
from types import MappingProxyType
from typing import Final

from google.protobuf.message import Message

from gridlane.transfer.v1 import replica_service_pb2, transfer_job_pb2, transfer_service_pb2
from gridlane_kit import errors

GRIDLANE: Final = "gridlane"
EMBEDDED: Final = "embedded"


@dataclass(frozen=True, slots=True)
class Missing:
    """What a field or value asks for and nothing here does.

    Parameters:
        capability: the `TransferCapability` it needs, without prefix.
        cure: what the caller can do instead.
        backend: who lacks it: the mover alone, where another backend has it, or this version.
    """

    capability: str
    cure: str
    backend: str = EMBEDDED


_EMPTY: Final = "leave it empty"
_ZERO: Final = "leave it 0"
_UNSET: Final = "leave it unset"
_FALSE: Final = "leave it false"
_TAGS: Final = "leave it empty; short pairs go into tags"
_JOB_TAGS: Final = "leave it empty; short pairs go into the job's tags"
_ONE_SOURCE: Final = "leave it unspecified; a logical source has all its replicas"
_MODES: Final = "ask for NEVER or ALWAYS"

OVERWRITE_MODES: Final[Mapping[int, Missing]] = MappingProxyType(
    {
        transfer_job_pb2.OVERWRITE_MODE_ON_RETRY: Missing("OVERWRITE_ON_RETRY", _MODES),
        transfer_job_pb2.OVERWRITE_MODE_WHEN_ONLY_ON_DISK: Missing(
            "OVERWRITE_WHEN_ONLY_ON_DISK", _MODES
        ),
        transfer_job_pb2.OVERWRITE_MODE_WHEN_DIFFERENT: Missing(
            "OVERWRITE_WHEN_DIFFERENT", _MODES, GRIDLANE
        ),
    }
)
"""Values of `overwrite`, of jobs and files; the others are carried out."""

JOB_FIELDS: Final[Mapping[str, Missing]] = MappingProxyType(
    {
        "activity": Missing("ACTIVITIES", _EMPTY, GRIDLANE),
        "metadata": Missing("METADATA", _TAGS, GRIDLANE),
        "retry_delay": Missing("RETRY_DELAY", _UNSET, GRIDLANE),
        "max_time_in_queue": Missing("QUEUE_TIME_LIMIT", "cancel it when it is late", GRIDLANE),
        "expire_time": Missing("JOB_EXPIRY", "cancel it when it is late", GRIDLANE),
        "timeout": Missing("ATTEMPT_TIMEOUT", _UNSET),
        "session_reuse": Missing("SESSION_REUSE", _FALSE),
        "streams": Missing("STREAMS", _ZERO),
        "buffer_size_bytes": Missing("BUFFER_SIZE", _ZERO),
        "bring_online_timeout": Missing("STAGING", _UNSET),
        "copy_pin_lifetime": Missing("STAGING", _UNSET),
        "archive_timeout": Missing("ARCHIVING", _UNSET),
        "report_target_file": Missing("TARGET_REPORT", _FALSE),
        "strict_copy": Missing("STRICT_COPY", "ask for verify NONE"),
        "disable_cleanup": Missing("KEEP_FAILED_TARGET", _FALSE),
        "s3_alternate": Missing("S3_ALTERNATE", _UNSET),
        "ip_version": Missing("IP_VERSION", "leave it unspecified"),
        "target_qos": Missing("TARGET_QOS", _EMPTY),
        "source_spacetoken": Missing("SPACE_TOKENS", _EMPTY),
        "target_spacetoken": Missing("SPACE_TOKENS", _EMPTY),
        "overwrite_intermediate": Missing("MULTIHOP", _FALSE),
        "credential": Missing("CREDENTIALS", _EMPTY),
        "selection_strategy": Missing("ALTERNATIVE_SOURCES", _ONE_SOURCE),
        "backend": Missing("BACKEND_CHOICE", _EMPTY, GRIDLANE),
        "protocols": Missing("PROTOCOL_CHOICE", "leave it empty and name URLs", GRIDLANE),
    }
)
"""Fields of `TransferJob`."""

FILE_FIELDS: Final[Mapping[str, Missing]] = MappingProxyType(
    {
        "alternative_sources": Missing(
            "ALTERNATIVE_SOURCES", "register the copies and name the logical file"
        ),
        "via": Missing("MULTIHOP", "submit each hop when the one before has finished"),
        "activity": Missing("ACTIVITIES", _EMPTY, GRIDLANE),
        "scitag": Missing("SCITAGS", _ZERO),
        "metadata": Missing("METADATA", _JOB_TAGS, GRIDLANE),
        "staging_metadata": Missing("STAGING", _EMPTY),
        "archive_metadata": Missing("ARCHIVING", _EMPTY),
        "selection_strategy": Missing("ALTERNATIVE_SOURCES", _ONE_SOURCE),
        "guid": Missing("GUIDS", _EMPTY, GRIDLANE),
    }
)
"""Fields of `FileTransfer`. Scalars and lists alone, of which what asks for nothing is false."""

REGISTRATION_FIELDS: Final[Mapping[str, Missing]] = MappingProxyType(
    {"guid": Missing("GUIDS", _EMPTY, GRIDLANE)}
)
"""Fields of `RegisterReplicaRequest`."""

FILE_LISTING_FIELDS: Final[Mapping[str, Missing]] = MappingProxyType(
    {"filter": Missing("FILE_FILTERS", "leave it empty and choose among the pages", GRIDLANE)}
)
"""Fields of `ListFileTransfersRequest`."""

_HIGHEST_OVERWRITE: Final = transfer_job_pb2.OVERWRITE_MODE_ALWAYS
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
        if any(_asked_of_file(file)) or file.overwrite > _HIGHEST_OVERWRITE:
            found += _asked(file, FILE_FIELDS, f"transfer_job.files[{index}].")
    _refuse(found)


def refuse_registration(request: replica_service_pb2.RegisterReplicaRequest) -> None:
    """Refuse a registration that asks for what is not carried out.

    Raises:
        GridlaneError: CAPABILITY_MISSING.
    """
    _refuse(_asked(request, REGISTRATION_FIELDS, ""))


def refuse_file_listing(request: transfer_service_pb2.ListFileTransfersRequest) -> None:
    """Refuse a listing of files that asks for what is not carried out.

    Raises:
        GridlaneError: CAPABILITY_MISSING.
    """
    _refuse(_asked(request, FILE_LISTING_FIELDS, ""))


def _asked(message: Message, fields: Mapping[str, Missing], path: str) -> Iterator[Found]:
    """What a message asks for; a field that is set to its default asks for nothing."""
    for field, value in message.ListFields():
        missing = fields.get(field.name)
        if field.name == "overwrite":
            missing = OVERWRITE_MODES.get(value)
        if missing is not None and value is not False:
            yield path + field.name, missing


def _refuse(found: Iterable[Found]) -> None:
    asked = list(found)
    if not asked:
        return
    first = asked[0][1]
    violations = [
        (field, f"needs {missing.capability}, which {missing.backend} lacks: {missing.cure}")
        for field, missing in asked
    ]
    raise errors.capability_missing(violations, first.capability, first.backend)
