"""Every method of the contract is there; those said to be missing say so themselves.

What is said stands in the generated pages (`contracts.served`); here a real server is asked.
"""

from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from support import EmbeddedServer

from contracts.model import Contract, Method, read_contract
from contracts.served import unserved, unserved_words

ROOT = Path(__file__).resolve().parents[3]
FOR_SERVICES = {
    "gridlane.authorization.v1.CredentialService.FetchAccessToken",
    "gridlane.authorization.v1.CredentialService.SignSubProxy",
    "gridlane.authorization.v1.QuotaService.ReportQuotaUse",
}
NO_MESSAGE = b"\xff"
"""No request of any method: nothing is done, whatever the method."""


@pytest.fixture(scope="module")
def contract() -> Contract:
    return read_contract(ROOT)


def reason_of(server: EmbeddedServer, method: Method, request: bytes) -> str:
    """What a method answers these bytes with: the reason, or gRPC's code when there is none."""
    service, _, name = method.name.rpartition(".")
    call: Any = server.channel.stream_stream(f"/{service}/{name}")
    try:
        list(call(iter([request]), timeout=20, metadata=server.metadata))
    except grpc.RpcError as error:
        return reason_in(error)
    return "OK"


def reason_in(error: Any) -> str:
    info = error_details_pb2.ErrorInfo()
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            for detail in status_pb2.Status.FromString(value).details:
                if detail.Unpack(info):
                    return str(info.reason)
    return str(error.code())


def test_methods_that_are_said_to_be_missing_say_so(
    embedded_server: EmbeddedServer, contract: Contract
) -> None:
    answers = {
        method.name: reason_of(embedded_server, method, b"") for method in unserved(contract, ROOT)
    }
    # Permission goes first: an administrator may call all but what services alone may.
    for_services = {name for name, answer in answers.items() if answer == "PERMISSION_DENIED"}
    others = {name: answer for name, answer in answers.items() if name not in for_services}
    assert for_services <= FOR_SERVICES
    assert {name: answer for name, answer in others.items() if answer != "NOT_IMPLEMENTED"} == {}


def test_every_service_of_the_contract_is_registered(
    embedded_server: EmbeddedServer, contract: Contract
) -> None:
    missing = {method.name for method in unserved(contract, ROOT)}
    expected = {
        method.name: {"MALFORMED_MESSAGE", "NOT_IMPLEMENTED"}
        if method.name in missing
        # One that takes a stream is refused before its first message is read.
        else {"MALFORMED_MESSAGE"}
        for method in contract.methods
    }
    answers = {
        method.name: reason_of(embedded_server, method, NO_MESSAGE) for method in contract.methods
    }
    assert {name: answers[name] for name in answers if answers[name] not in expected[name]} == {}


def test_a_method_whose_handler_is_taken_away_is_missing(
    contract: Contract, tmp_path: Path
) -> None:
    source = tmp_path / "services/gridlane_gateway/service.py"
    source.parent.mkdir(parents=True)
    text = (ROOT / "services/gridlane_gateway/service.py").read_text()
    source.write_text(text.replace("async def WatchTask(", "async def watch_task("))
    gateway = [
        method.short
        for method in unserved(contract, tmp_path)
        if method.name.startswith("gridlane.gateway.")
    ]
    assert "WatchTask" in gateway
    assert "Ping" not in gateway
    told = unserved_words(contract, unserved(contract, tmp_path))
    assert "WatchTask" in told
    assert "all of JobEventService, JobService" in told


def test_what_a_shell_is_made_from_counts(contract: Contract, tmp_path: Path) -> None:
    source = tmp_path / "services/gridlane_gateway/service.py"
    source.parent.mkdir(parents=True)
    source.write_text(
        "class LookShell:\n    async def DescribeTask(self): ...\n\n"
        "class TaskShell(LookShell):\n    async def Ping(self): ...\n"
    )
    missing = {method.short for method in unserved(contract, tmp_path)}
    assert {"SubmitTask", "WatchTask"} <= missing
    assert not {"DescribeTask", "Ping"} & missing


def test_what_is_served_does_not_say_that_it_is_not(contract: Contract) -> None:
    missing = {method.name for method in unserved(contract, ROOT)}
    services = [service for file in contract.files for service in file.services]
    whole = [one for one in services if not missing & {method.name for method in one.methods}]
    served = [method for method in contract.methods if method.name not in missing]
    assert [one.name for one in (*whole, *served) if "UNIMPLEMENTED" in one.comment] == []
