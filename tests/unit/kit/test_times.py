"""Times that are none are told with the path of their field; those of answers are not looked at."""

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from gridlane.authorization.v1 import audit_service_pb2
from gridlane.transfer.v1 import storage_admin_service_pb2, transfer_service_pb2
from gridlane_kit.errors import GridlaneError
from gridlane_kit.times import has_times, impossible_times
from gridlane_kit.validation import validate

LAST_S = 253_402_300_799
FIRST_S = -62_135_596_800


def summarize(**time: int) -> transfer_service_pb2.SummarizeTransferJobsRequest:
    request = transfer_service_pb2.SummarizeTransferJobsRequest()
    request.window.end_time.CopyFrom(Timestamp(**time))
    return request


@pytest.mark.parametrize("seconds", [FIRST_S, -1, 0, LAST_S])
def test_a_time_is_let_through(seconds: int) -> None:
    assert list(impossible_times(summarize(seconds=seconds))) == []


@pytest.mark.parametrize(
    "time",
    [
        {"seconds": FIRST_S - 1},
        {"seconds": LAST_S + 1},
        {"seconds": (1 << 63) - 1},
        {"nanos": 1_000_000_000},
        {"nanos": -1},
        {"seconds": -1, "nanos": -1},
    ],
)
def test_what_is_no_time_is_told_with_its_path(time: dict[str, int]) -> None:
    (found,) = impossible_times(summarize(**time))
    assert found == ("window.end_time", "is no time of the years 1 to 9999")


def ban(**length: int) -> storage_admin_service_pb2.BanStorageRequest:
    request = storage_admin_service_pb2.BanStorageRequest()
    request.storage_ban.wait_timeout.CopyFrom(Duration(**length))
    return request


@pytest.mark.parametrize(
    "length",
    [
        {"seconds": 315_576_000_001},
        {"seconds": 1, "nanos": -1},
        {"seconds": -1, "nanos": 1},
        {"nanos": 1_000_000_000},
        {"nanos": -1_000_000_000},
    ],
)
def test_a_length_of_time_has_a_range_too(length: dict[str, int]) -> None:
    (found,) = impossible_times(ban(**length))
    assert found[0] == "storage_ban.wait_timeout"


@pytest.mark.parametrize(
    "length",
    [{"nanos": -1}, {"nanos": 1}, {"seconds": -1, "nanos": -1}, {"seconds": 1, "nanos": 1}],
)
def test_a_length_of_time_is_let_through(length: dict[str, int]) -> None:
    assert list(impossible_times(ban(**length))) == []
    ban(**length).storage_ban.wait_timeout.ToMicroseconds()


def test_those_of_answers_are_not_looked_at() -> None:
    request = transfer_service_pb2.SubmitTransferJobRequest()
    request.transfer_job.create_time.seconds = LAST_S + 1
    assert list(impossible_times(request)) == []


def test_a_request_without_any_is_not_gone_through() -> None:
    assert not has_times(transfer_service_pb2.GetFileTransferRequest.DESCRIPTOR)
    assert has_times(audit_service_pb2.ListAuditEntriesRequest.DESCRIPTOR)


def test_validation_refuses_it() -> None:
    with pytest.raises(GridlaneError) as raised:
        validate(summarize(seconds=LAST_S + 1))
    assert "window.end_time" in str(raised.value) + repr(raised.value.details)
