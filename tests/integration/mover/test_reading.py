"""Files are fetched from a WebDAV storage, whatever becomes of the connection."""

import threading
import time
from dataclasses import replace

import pytest
from mover_ground import CONTENT, Ground, adler
from webdav_server import Fault

from gridlane_transfer.moving.failures import FailureClass

HALF = len(CONTENT) // 2


def fetched(ground: Ground) -> bytes:
    return (ground.folder / "target").read_bytes()


def test_a_file_is_fetched_and_verified(ground: Ground) -> None:
    source = ground.have(ground.a, "deep/a file.root")
    source = ground.remote(ground.a, "deep/a%20file.root")
    done = ground.copy(source, ground.local("target"))
    assert fetched(ground) == CONTENT
    assert done.checksums == {"ADLER32": adler(CONTENT)}
    assert [path.name for path in ground.folder.iterdir()] == ["target"]


def test_an_empty_file_is_fetched(ground: Ground) -> None:
    ground.copy(ground.have(ground.a, content=b""), ground.local("target"))
    assert fetched(ground) == b""


@pytest.mark.parametrize("kind", ["reset", "truncate", "stall"])
@pytest.mark.parametrize("etags", [True, False])
def test_a_broken_connection_is_taken_up_where_it_broke(
    ground: Ground, kind: str, etags: bool
) -> None:
    ground.a.etags = etags
    ground.a.faults = [Fault("GET", kind, after=HALF), Fault("GET", kind, after=1000)]
    if not etags:
        # Nothing says whether the rest would be of the same file.
        assert ground.failure(ground.have(ground.a), ground.local("target")).recoverable
        assert list(ground.folder.iterdir()) == []
        return
    ground.copy(ground.have(ground.a), ground.local("target"))
    assert fetched(ground) == CONTENT
    gets = [one for one in ground.a.heard if one.method == "GET"]
    assert len(gets) == 3
    assert all("If-Match" in one.headers for one in gets[1:])
    starts = [int(one.headers["Range"][len("bytes=") :].split("-")[0]) for one in gets[1:]]
    assert starts[0] > 0
    assert starts[1] > starts[0]


def test_a_storage_without_ranges_is_read_again_from_the_beginning(ground: Ground) -> None:
    ground.a.ranges = False
    ground.a.faults = [Fault("GET", "reset", after=HALF)]
    ground.copy(ground.have(ground.a), ground.local("target"))
    assert fetched(ground) == CONTENT


@pytest.mark.parametrize("streams", [0, 4])
@pytest.mark.parametrize("conditions", [True, False])
def test_two_versions_are_never_mixed(ground: Ground, streams: int, conditions: bool) -> None:
    """Also by a storage that does not look at `If-Match`."""
    ground.a.conditions = conditions
    source = ground.have(ground.a)
    ground.a.faults = [Fault("GET", "change", after=HALF)]
    failed = ground.failure(source, ground.local("target"), streams=streams)
    assert failed.failure_class is FailureClass.SOURCE_UNREADABLE
    assert failed.recoverable
    assert "changed" in failed.message
    assert list(ground.folder.iterdir()) == []


def test_a_connection_that_breaks_again_and_again_is_given_up(ground: Ground) -> None:
    ground.a.faults = [Fault("GET", "reset", times=100)]
    failed = ground.failure(ground.have(ground.a), ground.local("target"))
    assert (failed.failure_class, failed.recoverable) == (FailureClass.BACKEND_LOST, True)
    assert ground.a.count("GET") < 10


def test_several_streams_fetch_one_file(ground: Ground) -> None:
    content = CONTENT * 8
    ground.a.faults = [Fault("GET", "reset", after=1 << 20, times=2)]
    done = ground.copy(ground.have(ground.a, content=content), ground.local("target"), streams=4)
    assert fetched(ground) == content
    assert done.checksums == {"ADLER32": adler(content)}
    ranges = {one.headers.get("Range") for one in ground.a.heard if one.method == "GET"}
    assert len(ranges) >= 6


def test_wrong_bytes_are_not_published(ground: Ground) -> None:
    failed = ground.failure(
        ground.have(ground.a), ground.local("target"), expected={"ADLER32": "00000001"}
    )
    assert failed.failure_class is FailureClass.CHECKSUM_MISMATCH
    assert list(ground.folder.iterdir()) == []


def test_a_source_of_another_size_is_not_fetched(ground: Ground) -> None:
    failed = ground.failure(ground.have(ground.a), ground.local("target"), size_bytes=5)
    assert failed.failure_class is FailureClass.CHECKSUM_MISMATCH
    assert list(ground.folder.iterdir()) == []


def test_the_next_source_is_taken_when_one_does_not_answer(ground: Ground) -> None:
    ground.a.faults = [Fault("GET", "status", status=403, times=100)]
    sources = [ground.have(ground.a), ground.have(ground.b)]
    done = ground.copy(sources[0], ground.local("target"), sources=sources)
    assert done.source == 1
    assert fetched(ground) == CONTENT


def test_a_stopped_copy_ends_though_the_storage_is_silent(ground: Ground) -> None:
    ground.a.faults = [Fault("GET", "stall", after=HALF)]
    ground.options = replace(ground.options, idle_s=60)
    timer = threading.Timer(0.3, ground.control.stop)
    timer.start()
    begun = time.monotonic()
    failed = ground.failure(ground.have(ground.a), ground.local("target"))
    assert failed.failure_class is FailureClass.CANCELED
    assert time.monotonic() - begun < 30
    assert list(ground.folder.iterdir()) == []


def test_a_limit_of_bytes_in_a_second_is_kept(ground: Ground) -> None:
    content = CONTENT[: 1 << 20]
    begun = time.monotonic()
    ground.copy(
        ground.have(ground.a, content=content), ground.local("target"), max_bytes_per_second=1 << 20
    )
    assert time.monotonic() - begun > 0.7
    assert fetched(ground) == content
