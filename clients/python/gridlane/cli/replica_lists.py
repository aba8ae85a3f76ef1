"""Copies of logical files as people list them: CSV and JSON lines.

Responsible for what a row of such a list stands for. To register: the columns `lfn`, `url`,
`size_bytes`, `checksum` and, as needed, `guid`; a JSON line has the fields of a
RegisterReplicaRequest. To unregister: `lfn` and `replica`, a URL or a storage element.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from gridlane.cli.files import is_remote, normal
from gridlane.names import collection_name

if TYPE_CHECKING:
    from gridlane.transfer.v1.replica_service_pb2 import RegisterReplicaRequest

COPIES: Final = ("lfn", "url", "size_bytes", "checksum", "guid")
REMOVALS: Final = ("lfn", "replica")


def copy_of(row: Mapping[str, Any]) -> RegisterReplicaRequest:
    """The copy that a row asks to be registered.

    Raises:
        ValueError: something is missing, or is not what it should be.
    """
    from google.protobuf.json_format import ParseDict, ParseError

    from gridlane.checksums import parse_checksum
    from gridlane.transfer.v1.replica_service_pb2 import RegisterReplicaRequest

    needed = [name for name in COPIES[:-1] if row.get(name) in (None, "")]
    if needed:
        raise ValueError(f"{', '.join(needed)}: needed")
    fields = dict(row)
    checksum = fields["checksum"]
    if isinstance(checksum, str):
        del fields["checksum"]
    copy = RegisterReplicaRequest()
    try:
        ParseDict(fields, copy)
    except ParseError as error:
        # Behind its first line protobuf lists every field, in a spelling of its own.
        raise ValueError(str(error).partition("\n")[0].rstrip(".")) from error
    if isinstance(checksum, str):
        copy.checksum.CopyFrom(parse_checksum(checksum))
    copy.lfn = normal(copy.lfn)
    return copy


def removal_of(row: Mapping[str, Any]) -> tuple[str, str]:
    """The logical name and the copy that a row asks to be taken out.

    Raises:
        ValueError: something is missing, or is not what it should be.
    """
    unknown = sorted(row.keys() - set(REMOVALS))
    if unknown:
        raise ValueError(f"no such fields: {', '.join(unknown)}")
    lfn, replica = row.get("lfn"), row.get("replica")
    if not (isinstance(lfn, str) and lfn and isinstance(replica, str) and replica):
        raise ValueError("lfn and replica are needed")
    return normal(lfn), copy_name(replica)


def copy_name(text: str) -> str:
    """Which copy is meant: its URL, or "storageElements/<name>" from that or the bare name."""
    return text if is_remote(text) else collection_name(text, "storageElements")
