"""Adding fields to messages that are encoded already.

Responsible for the few bytes that this takes. An encoded message may be followed by further fields,
and two encodings after each other mean the merged message (protobuf.dev, "Encoding", "Last One
Wins"). So a job's unchanging part and its status are stored apart and read as one, and the first
event carries the job without encoding it twice.
"""

from typing import Final

from gridlane.workload.v1.event_pb2 import JobEvent
from gridlane.workload.v1.job_pb2 import Job

# A field's tag is its number and its wire type: 0 for integers, 2 for what has a length.
_NUMBER_TAG: Final = bytes([Job.NUMBER_FIELD_NUMBER << 3])
_JOB_TAG: Final = bytes([JobEvent.JOB_FIELD_NUMBER << 3 | 2])


def with_number(job: bytes, number: int) -> bytes:
    """An encoded Job with its number."""
    return job + _NUMBER_TAG + _varint(number)


def with_job(event: bytes, *parts: bytes) -> bytes:
    """An encoded JobEvent with its job.

    Parameters:
        parts: of the encoded Job.
    """
    return b"".join((event, _JOB_TAG, _varint(sum(map(len, parts))), *parts))


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
