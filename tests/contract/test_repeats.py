"""Which calls between services are made again: every method of the contracts has its answer."""

import importlib
import pkgutil
from typing import Any

import pytest
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor

import gridlane.authorization.v1
import gridlane.reporting.v1
import gridlane.transfer.v1
import gridlane.workload.v1
from gridlane_kit.repeats import repeatable

PACKAGES = (
    gridlane.authorization.v1,
    gridlane.reporting.v1,
    gridlane.transfer.v1,
    gridlane.workload.v1,
)
BY_REQUEST_ID = {
    "BanStorage",
    "BatchSubmitJobs",
    "BatchSubmitTransferJobs",
    "CreateChannel",
    "CreateGroup",
    "CreateIssuer",
    "CreateQuota",
    "CreateRoleBinding",
    "CreateStorageElement",
    "CreateVo",
    "RetryTransferJob",
    "RotateSigningKey",
    "StartDelegation",
    "SubmitDeletionJob",
    "SubmitJob",
    "SubmitStagingJob",
    "SubmitTransferJob",
}
# A repeat would make another secret that nobody asked for.
ONCE = {"CreateToken"}


def unary_methods() -> dict[str, MethodDescriptor]:
    found = {}
    for package in PACKAGES:
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            if module.name.endswith("_service_pb2"):
                file = importlib.import_module(module.name).DESCRIPTOR
                for service in file.services_by_name.values():
                    for method in service.methods:
                        if not (method.client_streaming or method.server_streaming):
                            found[method.full_name] = method
    return found


METHODS = unary_methods()


def carries_request_ids(method: MethodDescriptor) -> bool:
    """Whether a request carries an id, or holds requests that do."""
    fields = method.input_type.fields_by_name
    held = fields["requests"].message_type if "requests" in fields else None
    return "request_id" in fields or (held is not None and "request_id" in held.fields_by_name)


@pytest.mark.parametrize("name", METHODS)
def test_a_unary_call_may_be_repeated_or_carries_what_makes_it_so(name: str) -> None:
    method = METHODS[name]
    request: Any = message_factory.GetMessageClass(method.input_type)()
    by_id = carries_request_ids(method)
    assert by_id == (method.name in BY_REQUEST_ID)
    if by_id and "requests" in method.input_type.fields_by_name:
        request.requests.add(request_id="a")
        request.requests.add()
    # A method of a new verb is called once until somebody decides: `REPEATABLE_VERBS`.
    assert repeatable(method)(request) is (not by_id and method.name not in ONCE)


@pytest.mark.parametrize("name", [name for name in METHODS if METHODS[name].name in BY_REQUEST_ID])
def test_what_is_created_under_a_request_id_may_be_repeated(name: str) -> None:
    method = METHODS[name]
    request: Any = message_factory.GetMessageClass(method.input_type)()
    if "requests" in method.input_type.fields_by_name:
        request.requests.add(request_id="a")
        request.requests.add(request_id="b")
    else:
        request.request_id = "a"
    assert repeatable(method)(request)
