"""The rules of one file: the order for the mover, and what follows a failure."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridlane_transfer.backends.base import MoveOrder
from gridlane_transfer.catalogue.base import LogicalFile, StoredReplica
from gridlane_transfer.channels.channels import ExhaustedAction
from gridlane_transfer.moving import file_transfers
from gridlane_transfer.moving.alternatives import Alternatives, Source, Strategy
from gridlane_transfer.moving.failures import Failed, FailureClass, source_failure, target_failure
from gridlane_transfer.moving.file_transfers import Budget, RetryPolicy, after_failure, plan
from gridlane_transfer.moving.routes import Route, Stop
from gridlane_transfer.settings import StorageElementSettings, embedded_storage_elements
from gridlane_transfer.states import FileState, legal
from gridlane_transfer.storage.storage_elements import StorageElements
from gridlane_transfer.store.tables import FileRow, JobRow

CHECKSUMS = frozenset({"ADLER32", "MD5"})
ELEMENTS = StorageElements(
    [
        *embedded_storage_elements(Path("/data/storage"), Path("/data/jobs")),
        StorageElementSettings(
            name="mirror", base_url="file:///mirror", vo_paths={"local": "/local"}
        ),
    ]
)


def a_file(**given: Any) -> FileRow:
    values: dict[str, Any] = dict.fromkeys(FileRow._fields)
    values |= {
        "number": 1,
        "source": "file:///data/storage/local/a",
        "target": "LFN:/local/b",
        "target_url": "file:///data/storage/local/b",
        "target_lfn": "LFN:/local/b",
        "attempt": 0,
        "hop": 0,
        "lease_epoch": 1,
        "target_element": "storageElements/local",
    }
    return FileRow(**{**values, **given})


def a_job(**given: Any) -> JobRow:
    values: dict[str, Any] = dict.fromkeys(JobRow._fields)
    return JobRow(**{**values, "overwrite": 1, "verify": 1, **given})


def logical(lfn: str, checksum: str, *urls: str) -> dict[str, LogicalFile]:
    replicas = tuple(StoredReplica(url, "storageElements/x", 0) for url in urls)
    return {lfn: LogicalFile(lfn, "local", "me", 10, checksum, 0, replicas)}


def ordered(file: FileRow, known: dict[str, LogicalFile], **job: Any) -> MoveOrder:
    order = plan(file, a_job(**job), ELEMENTS, known, CHECKSUMS)
    assert isinstance(order, MoveOrder), order
    return order


def test_without_a_checksum_adler32_is_computed_and_nothing_expected() -> None:
    order = ordered(a_file(), {})
    assert (order.expected, order.checksums, order.size_bytes) == ({}, ["ADLER32"], None)
    assert (order.verify_source, order.verify_target, order.overwrite) == (True, True, False)


def test_a_logical_source_brings_its_size_checksum_and_copies() -> None:
    known = logical(
        "LFN:/local/a", "MD5:00", "file:///mirror/local/a", "file:///data/storage/local/a"
    )
    order = ordered(a_file(source="LFN:/local/a", checksum="ADLER32:11"), known)
    assert [source.url for source in order.sources] == [
        "file:///mirror/local/a",
        "file:///data/storage/local/a",
    ]
    assert order.expected == {"ADLER32": "11", "MD5": "00"}
    assert order.size_bytes == 10


def test_the_target_itself_is_no_source() -> None:
    known = logical("LFN:/local/a", "MD5:00", "file:///data/storage/local/a")
    file = a_file(source="LFN:/local/a", target_url="file:///data/storage/local/a", target_lfn="")
    refused = plan(file, a_job(), ELEMENTS, known, CHECKSUMS)
    assert isinstance(refused, Failed)
    assert refused.failure_class is FailureClass.BACKEND_REFUSED


@pytest.mark.parametrize(
    ("of_file", "of_job", "replaces"),
    [(0, 1, False), (0, 2, True), (1, 2, False), (2, 1, True), (1, 1, False)],
)
def test_a_file_s_own_overwrite_mode_counts_before_its_job_s(
    of_file: int, of_job: int, replaces: bool
) -> None:
    assert ordered(a_file(overwrite=of_file), {}, overwrite=of_job).overwrite is replaces


def test_a_target_with_copies_elsewhere_must_have_their_bytes() -> None:
    known = logical("LFN:/local/b", "ADLER32:00", "file:///mirror/local/b")
    assert ordered(a_file(), known).expected == {"ADLER32": "00"}
    refused = plan(a_file(checksum="ADLER32:11"), a_job(), ELEMENTS, known, CHECKSUMS)
    assert isinstance(refused, Failed)
    assert refused.failure_class is FailureClass.CATALOGUE
    alone = logical("LFN:/local/b", "MD5:00", "file:///data/storage/local/b")
    order = ordered(a_file(checksum="ADLER32:11"), alone, overwrite=2)
    assert order.expected == {"ADLER32": "11"}
    assert order.checksums == ["ADLER32", "MD5"]


@pytest.mark.parametrize(
    ("verify", "source", "target"), [(1, True, True), (2, True, False), (3, False, True)]
)
def test_the_ends_that_are_verified(verify: int, source: bool, target: bool) -> None:
    order = ordered(a_file(checksum="ADLER32:11"), {}, verify=verify)
    assert (order.verify_source, order.verify_target) == (source, target)
    assert order.expected == {"ADLER32": "11"}


def test_what_the_mover_cannot_compute_is_not_expected_of_it() -> None:
    known = logical("LFN:/local/a", "CRC32C:00", "file:///mirror/local/a")
    order = ordered(a_file(source="LFN:/local/a"), known)
    assert (order.expected, order.checksums, order.size_bytes) == ({}, ["ADLER32"], 10)


def routed(hop: int, **given: Any) -> FileRow:
    stops = [
        Stop("file:///mirror/local/way", "storageElements/mirror", "", stays=False),
        Stop("file:///data/storage/local/b", "storageElements/local", "LFN:/local/b", stays=True),
    ]
    present = stops[hop - 1]
    route = Route(stops, begun=given.pop("begun", 0))
    return a_file(
        route=route.to_json(),
        hop=hop,
        target_url=present.url,
        target_element=present.element,
        target_lfn=present.lfn,
        **given,
    )


def test_each_hop_reads_where_the_one_before_ended() -> None:
    first = ordered(routed(1), {})
    assert [one.url for one in first.sources] == ["file:///data/storage/local/a"]
    assert first.target.url == "file:///mirror/local/way"
    assert (first.overwrite, first.resumed) == (True, False)
    second = ordered(routed(2, attempt=1, begun=1, actual_checksum="ADLER32:11"), {})
    assert [one.url for one in second.sources] == ["file:///mirror/local/way"]
    assert second.target.url == "file:///data/storage/local/b"
    assert second.expected == {"ADLER32": "11"}
    assert first.target.shown == second.sources[0].shown == "the copy on storageElements/mirror"
    assert second.target.shown == "LFN:/local/b"
    assert (second.overwrite, second.resumed) == (False, False)
    assert ordered(routed(2, attempt=2, begun=1), {}).resumed


@pytest.mark.parametrize(
    ("mode", "attempt", "overwrite", "resumed"),
    [
        (1, 0, False, False),
        (1, 1, False, True),
        (2, 0, True, False),
        (3, 0, False, False),
        (3, 1, True, True),
        (5, 0, True, True),
    ],
)
def test_what_each_mode_of_overwriting_asks_of_an_attempt(
    mode: int, attempt: int, overwrite: bool, resumed: bool
) -> None:
    order = ordered(a_file(attempt=attempt), {}, overwrite=mode)
    assert (order.overwrite, order.resumed) == (overwrite, resumed)


@pytest.mark.parametrize(
    ("failure_class", "changes"),
    [
        (FailureClass.SOURCE_MISSING, True),
        (FailureClass.CHECKSUM_MISMATCH, True),
        (FailureClass.TIMED_OUT, True),
        (FailureClass.TARGET_EXISTS, False),
        (FailureClass.NO_SPACE, False),
        (FailureClass.PERMISSION, False),
    ],
)
def test_another_source_is_taken_for_what_lies_with_the_source(
    failure_class: FailureClass, changes: bool
) -> None:
    sources = Alternatives([Source("file:///a", "a"), Source("file:///b", "b")], Strategy.ORDERLY)
    budget = Budget(0, 0, ExhaustedAction.FAIL)
    failed = Failed(failure_class, "why")
    following = after_failure(FileState.ACTIVE, failed, budget, sources, lambda _: (0,))
    assert (following.sources is not None) is changes
    assert following.state is (FileState.RETRYING if changes else FileState.FAILED)
    assert not following.retry


failures = st.builds(
    Failed, st.sampled_from(FailureClass), st.just("why"), st.just(""), st.booleans()
)


@given(
    st.sampled_from([FileState.ACTIVE, FileState.CANCELING]),
    failures,
    st.integers(0, 300),
    st.integers(0, 256),
    st.sampled_from(ExhaustedAction),
)
def test_what_follows_a_failure(
    state: FileState, failed: Failed, retries: int, most: int, exhausted: ExhaustedAction
) -> None:
    following = after_failure(state, failed, Budget(retries, most, exhausted))
    if following.state is FileState.CANCELED:
        canceled = failed.failure_class is FailureClass.CANCELED
        assert state is FileState.CANCELING or canceled
    else:
        assert legal(state, following.state)
    assert following.retry == (following.state is FileState.RETRYING)
    if following.retry:
        assert failed.recoverable
        assert retries < most
    if following.state is FileState.HELD:
        assert exhausted is ExhaustedAction.HOLD
        assert retries >= most


def test_the_wait_grows_to_its_limit() -> None:
    policy = RetryPolicy(first_s=2, longest_s=60)
    waits = [policy.delay_us(retries) / 1e6 for retries in (0, 1, 2, 3, 4, 5, 200)]
    assert waits == [2, 4, 8, 16, 32, 60, 60]


@pytest.mark.parametrize(
    ("number", "source", "target"),
    [
        (errno.ENOENT, FailureClass.SOURCE_MISSING, None),
        (errno.EACCES, FailureClass.SOURCE_UNREADABLE, FailureClass.TARGET_UNWRITABLE),
        (errno.EPERM, FailureClass.SOURCE_UNREADABLE, FailureClass.TARGET_UNWRITABLE),
        (errno.ELOOP, FailureClass.SOURCE_UNREADABLE, FailureClass.TARGET_UNWRITABLE),
        (errno.EEXIST, None, FailureClass.TARGET_EXISTS),
        (errno.ENOSPC, None, FailureClass.NO_SPACE),
        (errno.EDQUOT, None, FailureClass.NO_SPACE),
        (errno.EROFS, None, FailureClass.TARGET_UNWRITABLE),
        (errno.ENOTDIR, FailureClass.SOURCE_MISSING, FailureClass.TARGET_UNWRITABLE),
    ],
)
def test_what_cannot_change_by_itself_is_not_tried_again(
    number: int, source: FailureClass | None, target: FailureClass | None
) -> None:
    error = OSError(number, os.strerror(number))
    for expected, classify in ((source, source_failure), (target, target_failure)):
        if expected is not None:
            failed = classify(error, "/data/x")
            assert (failed.failure_class, failed.recoverable) == (expected, False)
            assert "/data/x" in failed.message


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENOMEM])
def test_what_may_pass_is_tried_again(number: int) -> None:
    error = OSError(number, os.strerror(number))
    assert source_failure(error, "/data/x").recoverable
    assert target_failure(error, "/data/x").recoverable


def test_the_classes_are_those_of_the_contract() -> None:
    from gridlane.type.v1 import failure_pb2

    known = failure_pb2.FailureClass.keys()
    assert {f"FAILURE_CLASS_{one.value}" for one in FailureClass} <= set(known)


def test_names_are_resolved_only_when_they_are_logical() -> None:
    assert file_transfers.names_to_resolve(a_file()) == ["LFN:/local/b"]
    assert file_transfers.names_to_resolve(a_file(source="LFN:/local/a")) == [
        "LFN:/local/a",
        "LFN:/local/b",
    ]


def test_on_the_way_the_stop_before_is_read_in_whatever_order_the_sources_were_tried() -> None:
    one = Alternatives([Source("LFN:/local/a", "")], Strategy.AUTO)
    stops = [
        Stop("file:///mirror/local/a", "storageElements/mirror", "", False),
        Stop("file:///data/storage/local/b", "storageElements/local", "LFN:/local/b", True),
    ]
    file = a_file(
        source="LFN:/local/a", alternatives=one.to_json(), route=Route(stops).to_json(), hop=1
    )
    assert file_transfers.source_of(file) == "LFN:/local/a"
    assert file_transfers.source_of(file._replace(hop=2)) == "file:///mirror/local/a"
    assert file_transfers.names_to_resolve(file._replace(hop=2)) == ["LFN:/local/b"]
