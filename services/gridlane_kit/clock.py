"""The wall clock as the services store it: whole microseconds since 1970-01-01 UTC.

Responsible for reading the clock, and for turning stored times and lengths of time into protobuf's
and back. Leases do not use it: they expire by the database's clock (`leases`).
"""

import time

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp


def now_us() -> int:
    """The present, in microseconds since 1970-01-01 UTC."""
    return time.time_ns() // 1000


def to_timestamp(time_us: int) -> Timestamp:
    """A stored time as a protobuf Timestamp.

    Parameters:
        time_us: microseconds since 1970-01-01 UTC.
    """
    seconds, micros = divmod(time_us, 1_000_000)
    return Timestamp(seconds=seconds, nanos=micros * 1000)


def set_timestamp(timestamp: Timestamp, time_us: int) -> None:
    """Make a Timestamp in a message a stored time, at less cost than to copy one into it.

    Parameters:
        time_us: as `to_timestamp` takes it.
    """
    timestamp.seconds, micros = divmod(time_us, 1_000_000)
    timestamp.nanos = micros * 1000


def from_timestamp(timestamp: Timestamp) -> int:
    """A protobuf Timestamp as a stored time, nanoseconds cut off.

    Returns:
        Microseconds since 1970-01-01 UTC.
    """
    return timestamp.seconds * 1_000_000 + timestamp.nanos // 1000


def given_us(message: Message, field: str) -> int | None:
    """What a message gives in a field that is a Timestamp or a Duration.

    Returns:
        Microseconds, of a time since 1970-01-01 UTC; None when the field is unset.
    """
    return getattr(message, field).ToMicroseconds() if message.HasField(field) else None


def to_duration(length_us: int) -> Duration:
    """A length of time as a protobuf Duration.

    Parameters:
        length_us: microseconds.
    """
    duration = Duration()
    duration.FromMicroseconds(length_us)
    return duration
