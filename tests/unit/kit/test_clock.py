"""Stored times are whole microseconds and become protobuf's timestamps and back."""

import time

from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from gridlane_kit.clock import from_timestamp, now_us, to_timestamp


def test_now_is_the_present() -> None:
    assert abs(now_us() - time.time() * 1e6) < 1e6


@given(st.integers(min_value=-62_135_596_800_000_000, max_value=253_402_300_799_999_999))
def test_a_stored_time_survives_the_way_to_protobuf_and_back(time_us: int) -> None:
    timestamp = to_timestamp(time_us)
    assert 0 <= timestamp.nanos < 1_000_000_000
    assert from_timestamp(timestamp) == time_us
    assert timestamp.ToMicroseconds() == time_us


def test_nanoseconds_are_cut_off() -> None:
    assert from_timestamp(Timestamp(seconds=1, nanos=1999)) == 1_000_001
