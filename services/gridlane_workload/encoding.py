"""Adding fields to messages that are encoded already.

Responsible for the few bytes that this takes. An encoded message may be followed by further fields,
and two encodings after each other mean the merged message (protobuf.dev, "Encoding", "Last One
Wins"). So a job's unchanging part and its status are stored apart and read as one, the first event
carries the job without encoding it twice, and what jobs have in common is encoded once.
"""

from typing import Final

from gridlane.workload.v1.event_pb2 import JobEvent
from gridlane.workload.v1.job_pb2 import Job

# A field's tag is its number and its wire type: 0 for integers, 2 for what has a length.
_NUMBER_TAG: Final = bytes([Job.NUMBER_FIELD_NUMBER << 3])


def field(number: int, *parts: bytes) -> bytes:
    """An encoded field that holds a message.

    Parameters:
        number: the field's.
        parts: of the encoded message.
    """
    return b"".join((_varint(number << 3 | 2), _varint(sum(map(len, parts))), *parts))


def with_number(job: bytes, number: int) -> bytes:
    """An encoded Job with its number."""
    return job + _NUMBER_TAG + _varint(number)


def with_job(event: bytes, *parts: bytes) -> bytes:
    """An encoded JobEvent with its job.

    Parameters:
        parts: of the encoded Job.
    """
    return event + field(JobEvent.JOB_FIELD_NUMBER, *parts)


def _varint(value: int) -> bytes:
    # Most lengths take one byte or two.
    if value < 1 << 7:
        return bytes((value,))
    if value < 1 << 14:
        return bytes((value & 0x7F | 0x80, value >> 7))
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
