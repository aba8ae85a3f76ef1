"""What a failed call raises: all that the server said; what it did not say breaks nothing."""

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

import gridlane
from gridlane.errors import error_from_call, error_from_status
from gridlane_kit import errors as kit
from gridlane_kit.wire import help_links


def raised(error: kit.GridlaneError) -> gridlane.GridlaneError:
    """What the client raises when a server answers with one of its errors."""
    trailing = (("grpc-status-details-bin", error.to_status().SerializeToString()),)
    return error_from_call(error.code, error.message, trailing, trace_id="ab" * 16, method="s/M")


def test_an_error_says_where_to_read_of_its_reason() -> None:
    links, error = help_links("https://docs.example.org/errors"), kit.not_found("jobs/1")
    assert links.keys() == {reason.value for reason in kit.ErrorReason}
    details = error.to_status().SerializeToString() + links[error.reason.value]
    found = error_from_call(error.code, error.message, (("grpc-status-details-bin", details),))
    assert found.help_url == "https://docs.example.org/errors#not_found"
    assert (found.reason, found.metadata) == ("NOT_FOUND", {"name": "jobs/1"})
    assert raised(error).help_url == ""
    assert not help_links("")


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code.value[0]])
def test_every_code_is_raised_as_itself(code: grpc.StatusCode) -> None:
    assert error_from_call(code, "said", ()).code is code


def test_violations_name_each_field() -> None:
    error = raised(kit.invalid([("job.vo", "is not one of yours"), ("request_id", "no UUIDv7")]))
    assert isinstance(error, gridlane.InvalidArgument)
    assert error.reason == "INVALID_FIELDS"
    assert error.violations == (("job.vo", "is not one of yours"), ("request_id", "no UUIDv7"))


def test_a_failed_precondition_names_what_it_is_about() -> None:
    error = raised(kit.illegal_transition("jobs/1", "DONE", "RUNNING"))
    assert isinstance(error, gridlane.FailedPrecondition)
    assert error.metadata == {"name": "jobs/1", "from": "DONE", "to": "RUNNING"}
    assert error.violations[0].field == "jobs/1"


def test_a_full_server_says_when_to_come_again() -> None:
    error = raised(kit.overloaded("unary", 2.5))
    assert isinstance(error, gridlane.ResourceExhausted)
    assert error.retry_after_s == 2.5


def test_the_servers_trace_id_goes_before_the_callers_own() -> None:
    assert raised(kit.internal("cd" * 16)).trace_id == "cd" * 16
    assert raised(kit.not_found("jobs/1")).trace_id == "ab" * 16


def test_the_text_has_the_reason_and_the_message() -> None:
    assert str(raised(kit.not_found("jobs/1"))) == "NOT_FOUND: there is no jobs/1"


def test_an_item_of_a_batch_is_the_same_error() -> None:
    error = error_from_status(kit.not_found("jobs/1").to_status())
    assert isinstance(error, gridlane.NotFound)
    assert error.metadata == {"name": "jobs/1"}


def test_reasons_of_others_are_not_taken_for_gridlanes() -> None:
    status = status_pb2.Status(code=14)
    packed = any_pb2.Any()
    packed.Pack(error_details_pb2.ErrorInfo(reason="QUOTA", domain="proxy.example.org"))
    status.details.append(packed)
    assert error_from_status(status).reason == ""


def test_one_broken_detail_does_not_hide_the_others() -> None:
    status = kit.not_found("jobs/1").to_status()
    broken = any_pb2.Any(type_url="type.googleapis.com/google.rpc.RetryInfo", value=b"\xff\xff")
    status.details.insert(0, broken)
    assert error_from_status(status).reason == "NOT_FOUND"


def test_a_code_of_the_future_is_unknown_not_a_crash() -> None:
    assert error_from_status(status_pb2.Status(code=99)).code is grpc.StatusCode.UNKNOWN


@given(st.binary(max_size=200))
def test_any_bytes_for_details_give_an_error_with_code_and_message(details: bytes) -> None:
    trailing = (("grpc-status-details-bin", details),)
    error = error_from_call(grpc.StatusCode.NOT_FOUND, "gone", trailing)
    assert isinstance(error, gridlane.NotFound)
    assert error.message == "gone"
