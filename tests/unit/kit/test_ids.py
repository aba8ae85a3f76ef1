"""Ids are UUIDv7, grow strictly within a process, and tell when they were made."""

import subprocess
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridlane.ids import uuid7, uuid7_floor, uuid7_time_ms

MILLISECONDS = st.integers(min_value=0, max_value=2**48 - 1)


def test_an_id_is_a_uuid_of_version_7_in_canonical_text() -> None:
    made = uuid7()
    assert str(uuid.UUID(made)) == made
    assert uuid.UUID(made).version == 7
    assert uuid.UUID(made).variant == uuid.RFC_4122


def test_an_id_tells_when_it_was_made() -> None:
    before = time.time_ns() // 1_000_000
    made = uuid7_time_ms(uuid7())
    # Ids made in a burst run ahead of the clock by 244 ns each.
    assert before <= made <= time.time_ns() // 1_000_000 + 10


def test_ids_grow_strictly_even_when_threads_make_them() -> None:
    with ThreadPoolExecutor(4) as pool:
        runs = list(pool.map(lambda _: [uuid7() for _ in range(5000)], range(4)))
    assert all(run == sorted(set(run)) for run in runs)
    assert len({made for run in runs for made in run}) == 20_000


def test_ids_grow_when_the_clock_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    first = uuid7()
    monkeypatch.setattr(time, "time_ns", lambda: 1_000_000_000)
    assert uuid7() > first


def test_a_forked_child_makes_ids_of_its_own() -> None:
    script = """
import os
from gridlane.ids import uuid7
uuid7()
read, write = os.pipe()
if os.fork() == 0:
    os.write(write, uuid7().encode())
    os._exit(0)
os.wait()
print(uuid7()[-17:] != os.read(read, 36).decode()[-17:])
"""
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True
    )
    assert run.stdout == "True\n"


@given(MILLISECONDS)
def test_the_floor_of_a_millisecond_has_that_time(time_ms: int) -> None:
    assert uuid7_time_ms(uuid7_floor(time_ms)) == time_ms


@given(MILLISECONDS, MILLISECONDS)
def test_text_order_is_time_order(one: int, other: int) -> None:
    assert (uuid7_floor(one) < uuid7_floor(other)) == (one < other)


@given(
    st.one_of(
        st.text(max_size=40),
        st.uuids(version=4).map(str),
        st.just(uuid7()).map(str.upper),
        st.just(uuid7().replace("-", "")),
        st.just(f"{{{uuid7()}}}"),
        st.just(uuid7() + "\n"),
    )
)
def test_what_is_no_canonical_uuid7_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a UUIDv7"):
        uuid7_time_ms(text)


def test_the_module_needs_the_standard_library_only() -> None:
    program = (
        "import sys, gridlane.ids\n"
        "print([name for name in sys.modules if name.startswith(('grpc', 'google'))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout.strip() == "[]"
