"""What contradicts itself in a description, or says nothing that can be kept.

Responsible for the rules on the fields of a submission that need neither storage elements nor the
store: each violation with its field. The rules of single fields stand in the contract.
"""

import json
from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import Final

from gridlane.transfer.v1 import transfer_job_pb2
from gridlane_transfer import messages
from gridlane_transfer.backends.base import BACKENDS
from gridlane_transfer.moving.file_transfers import VERIFY_NONE

Violation = tuple[str, str]

_END_OF_TIME_S: Final = 253_402_300_800
"""The year 10 000, seconds since 1970."""


def violations(
    job: transfer_job_pb2.TransferJob, now_us: int, backend: str, checksums: frozenset[str]
) -> list[Violation]:
    """What is wrong with a description by itself.

    Parameters:
        backend: the name of the one that there is.
        checksums: the algorithms that it computes.
    """
    found = list(_of_job(job, now_us, backend))
    strict = job.strict_copy
    compares = job.verify != VERIFY_NONE and not strict
    guids: set[str] = set()
    for index, file in enumerate(job.files):
        if file.HasField("checksum"):
            found += [
                (f"transfer_job.files[{index}].checksum{field}", why)
                for field, why in _of_checksum(file, checksums, compares=compares)
            ]
        metadata, guid = _said(file)
        if metadata and not is_json(metadata):
            found.append((f"transfer_job.files[{index}].metadata", "is no JSON text"))
        if guid:
            for why in _of_guid(guid.lower(), guids, placement=job.placement):
                found.append((f"transfer_job.files[{index}].guid", why))
            guids.add(guid.lower())
        if strict and file.overwrite in _LOOKING:
            found.append((f"transfer_job.files[{index}].overwrite", _STRICT))
    return found


_said: Final = attrgetter("metadata", "guid")
_STRICT: Final = "contradicts strict_copy: nothing is looked at before the copy"
_LOOKING: Final = frozenset({transfer_job_pb2.OVERWRITE_MODE_WHEN_DIFFERENT})


def _of_job(job: transfer_job_pb2.TransferJob, now_us: int, backend: str) -> Iterator[Violation]:
    if job.metadata and not is_json(job.metadata):
        yield "transfer_job.metadata", "is no JSON text"
    if job.HasField("expire_time"):
        seconds = job.expire_time.seconds
        if not 0 <= seconds < _END_OF_TIME_S or job.expire_time.ToMicroseconds() <= now_us:
            yield "transfer_job.expire_time", "is not after the submission"
    if job.strict_copy and job.verify not in (0, VERIFY_NONE):
        yield "transfer_job.verify", "contradicts strict_copy: nothing is verified then"
    if job.strict_copy and job.overwrite in _LOOKING:
        yield "transfer_job.overwrite", _STRICT
    if job.backend and job.backend != BACKENDS + backend:
        yield "transfer_job.backend", f"there is no such backend: {BACKENDS}{backend} is"
    if len(set(job.protocols)) < len(job.protocols):
        yield "transfer_job.protocols", "names a protocol twice"


def _of_checksum(
    file: transfer_job_pb2.FileTransfer, checksums: frozenset[str], *, compares: bool
) -> Iterator[Violation]:
    algorithm = messages.algorithm_of(file.checksum)
    if algorithm not in checksums:
        yield ".type", f"{algorithm} is not computed here: {', '.join(sorted(checksums))} are"
    if not compares:
        yield "", "contradicts verify: nothing would be verified"


def _of_guid(guid: str, others: set[str], *, placement: bool) -> Iterator[str]:
    if not placement:
        yield "is given to what placement registers: ask for placement, or leave it empty"
    if guid in others:
        yield "is the guid of another file of the job"


def is_json(text: str) -> bool:
    """Whether a text is JSON."""
    try:
        _loads(text)
    except (ValueError, RecursionError):
        return False
    return True


_loads: Callable[[str], object] = json.loads
