"""Two storages copy between them; the mover only asks, listens and verifies."""

import threading
import time
from dataclasses import replace
from typing import Any

import pytest
from mover_ground import CONTENT, Ground, adler
from webdav_server import Fault, Storage

from gridlane_transfer.backends.embedded import copying
from gridlane_transfer.backends.embedded.opening import Ends
from gridlane_transfer.backends.embedded.webdav.third_party import Markers
from gridlane_transfer.moving.failures import FailureClass

NAME = "new/target"
MOVER = "gridlane/"


def read_by_mover(storage: Storage) -> bool:
    """Whether the mover read bytes of the storage's files itself."""
    gets = [one for one in storage.heard if one.method == "GET"]
    return any(one.headers.get("User-Agent", "").startswith(MOVER) for one in gets)


def test_the_target_fetches(ground: Ground) -> None:
    done = ground.copy(ground.have(ground.a), ground.remote(ground.b, NAME))
    assert ground.b.path(NAME).read_bytes() == CONTENT
    assert ground.b.files() == [NAME]
    assert done.checksums == {"ADLER32": adler(CONTENT)}
    assert ground.a.count("GET") == 1
    assert not read_by_mover(ground.a)
    assert not read_by_mover(ground.b)
    assert max(ground.control.totals) == len(CONTENT)
    assert ground.control.asked == 1


def test_the_flow_label_goes_along(ground: Ground) -> None:
    ground.copy(ground.have(ground.a), ground.remote(ground.b, "target"), scitag=65)
    (copied,) = [one for one in ground.b.heard if one.method == "COPY"]
    assert copied.headers["SciTag"] == "65"
    ground.copy(ground.have(ground.a), ground.local("target"), scitag=65)
    assert ground.a.heard[-1].headers["SciTag"] == "65"


def test_the_source_sends_where_the_target_cannot_fetch(ground: Ground) -> None:
    ground.b.copies = False
    ground.copy(ground.have(ground.a), ground.remote(ground.b, NAME))
    assert ground.b.files() == [NAME]
    assert (ground.b.count("COPY"), ground.a.count("COPY")) == (1, 1)
    assert not read_by_mover(ground.a)


def test_the_mover_copies_where_neither_can(ground: Ground) -> None:
    ground.a.copies = ground.b.copies = False
    ends = Ends(ground.options)
    for name in ("one", "two"):
        task = ground.task(ground.have(ground.a), ground.remote(ground.b, name))
        copying.copy(task, ground.control, ends)
        assert ground.b.path(name).read_bytes() == CONTENT
    assert read_by_mover(ground.a)
    # They are not asked again for every file.
    assert (ground.b.count("COPY"), ground.a.count("COPY")) == (1, 1)


@pytest.mark.parametrize("kind", ["copy_fails", "copy_unfinished", "stall"])
def test_a_success_in_the_status_alone_is_none(ground: Ground, kind: str) -> None:
    ground.b.faults = [Fault("COPY", kind)]
    ground.copy(ground.have(ground.a), ground.remote(ground.b, NAME))
    assert ground.b.path(NAME).read_bytes() == CONTENT
    assert ground.b.count("COPY") == 1
    assert ground.a.count("COPY") == 1, "the other way was tried"


def test_when_both_ways_fail_the_bytes_pass_the_mover(ground: Ground) -> None:
    ground.a.faults = [Fault("COPY", "copy_fails")]
    ground.b.faults = [Fault("COPY", "copy_fails")]
    ground.copy(ground.have(ground.a), ground.remote(ground.b, NAME))
    assert ground.b.path(NAME).read_bytes() == CONTENT
    assert read_by_mover(ground.a)
    assert ground.b.files() == [NAME]


def test_a_copy_that_is_stopped_ends_at_the_storages(ground: Ground) -> None:
    ground.b.faults = [Fault("COPY", "stall")]
    ground.options = replace(ground.options, idle_s=60)
    timer = threading.Timer(0.3, ground.control.stop)
    timer.start()
    begun = time.monotonic()
    failed = ground.failure(ground.have(ground.a), ground.remote(ground.b, "target"))
    assert failed.failure_class is FailureClass.CANCELED
    assert time.monotonic() - begun < 30
    assert ground.b.files() == []
    assert ground.a.count("COPY") == 0


def test_wrong_bytes_are_not_published(ground: Ground) -> None:
    ground.b.faults = [Fault("HEAD", "wrong_digest", ends=".part", times=5)]
    failed = ground.failure(ground.have(ground.a), ground.remote(ground.b, "target"))
    assert failed.failure_class is FailureClass.CHECKSUM_MISMATCH
    assert ground.b.files() == []


def test_a_target_that_tells_no_checksum_is_read(ground: Ground) -> None:
    ground.b.digests = False
    ground.copy(ground.have(ground.a), ground.remote(ground.b, "target"))
    assert read_by_mover(ground.b)
    assert not read_by_mover(ground.a)


def test_a_source_that_tells_no_checksum_is_not_verified_by_trust(ground: Ground) -> None:
    """Nothing is promised and the storages say nothing: the bytes pass the mover."""
    ground.a.digests = False
    ground.copy(ground.have(ground.a), ground.remote(ground.b, "target"))
    assert ground.b.count("COPY") == 0
    known: dict[str, Any] = {"expected": {"ADLER32": adler(CONTENT)}}
    ground.copy(ground.have(ground.a), ground.remote(ground.b, "other"), **known)
    assert ground.b.count("COPY") == 1
    # The target is not to be verified: nothing would compare what is expected.
    known |= {"verify_target": False}
    ground.copy(ground.have(ground.a), ground.remote(ground.b, "third"), **known)
    assert ground.b.count("COPY") == 1


def test_a_limit_of_bytes_in_a_second_is_the_mover_s_to_keep(ground: Ground) -> None:
    limit = {"max_bytes_per_second": 1 << 30}
    ground.copy(ground.have(ground.a), ground.remote(ground.b, "target"), **limit)
    assert ground.b.count("COPY") == 0


def test_an_existing_target_is_found_before_anything_is_copied(ground: Ground) -> None:
    ground.have(ground.b, "target", b"theirs")
    failed = ground.failure(ground.have(ground.a), ground.remote(ground.b, "target"))
    assert failed.failure_class is FailureClass.TARGET_EXISTS
    assert ground.b.count("COPY") == 0
    ground.copy(ground.have(ground.a), ground.remote(ground.b, "target"), overwrite=True)
    assert ground.b.path("target").read_bytes() == CONTENT


def test_a_missing_source_is_told_as_such(ground: Ground) -> None:
    failed = ground.failure(ground.remote(ground.a, "none"), ground.remote(ground.b, "target"))
    assert (failed.failure_class, failed.recoverable) == (FailureClass.SOURCE_MISSING, False)


def lines(*texts: str) -> Markers:
    markers = Markers()
    for text in texts:
        markers.take(text)
    return markers


def test_the_stripes_of_a_marker_are_summed() -> None:
    marker = ["Perf Marker", "    Timestamp: 1", "    Stripe Index: 0"]
    two = lines(
        *marker,
        "    Stripe Bytes Transferred: 10",
        "    Total Stripe Count: 2",
        "End",
        "Perf Marker",
        "    Stripe Index: 1",
        "    Stripe Bytes Transferred: 5",
        "End",
        "Perf Marker",
        "    Stripe Index: 0",
        "    Stripe Bytes Transferred: 20",
        "    RemoteConnections: tcp:129.93.3.4:1234,tcp:[2600:900:6:1301:268a:7ff:fef6:a590]:2345",
        "End",
    )
    assert (two.total_bytes, two.outcome, two.succeeded) == (25, "", False)


@pytest.mark.parametrize(
    ("line", "succeeded"),
    [
        ("success: Created", True),
        ("success", True),
        ("Success: Created\r", True),
        ("failure: Remote side failed with status code 404", False),
        ("failure", False),
        ("aborted", False),
        ("    failure: timed out", False),
    ],
)
def test_the_last_line_says_how_it_ended(line: str, succeeded: bool) -> None:
    markers = lines("garbage", "Stripe Bytes Transferred: many", line)
    assert markers.outcome == line.strip()
    assert markers.succeeded is succeeded
