"""Which calls between services are made again: every method of the contracts has its answer."""

import importlib
import pkgutil

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
BY_REQUEST_ID = {"SubmitJob", "BatchSubmitJobs", "SubmitTransferJob"}


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


@pytest.mark.parametrize("name", METHODS)
def test_a_unary_call_may_be_repeated_or_carries_what_makes_it_so(name):
    method = METHODS[name]
    request = message_factory.GetMessageClass(method.input_type)()
    by_id = {"request_id", "requests"} & set(method.input_type.fields_by_name)
    assert bool(by_id) == (method.name in BY_REQUEST_ID)
    if method.name == "BatchSubmitJobs":
        request.requests.add(request_id="a")
        request.requests.add()
    # A method of a new verb is called once until somebody decides: `REPEATABLE_VERBS`.
    assert repeatable(method)(request) is not bool(by_id)


@pytest.mark.parametrize("name", [name for name in METHODS if METHODS[name].name in BY_REQUEST_ID])
def test_what_is_created_under_a_request_id_may_be_repeated(name):
    method = METHODS[name]
    request = message_factory.GetMessageClass(method.input_type)()
    if "requests" in method.input_type.fields_by_name:
        request.requests.add(request_id="a")
        request.requests.add(request_id="b")
    else:
        request.request_id = "a"
    assert repeatable(method)(request)
