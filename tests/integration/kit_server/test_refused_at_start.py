"""What a server refuses to serve, and the contracts of the product, which it does serve."""

import importlib
import pkgutil
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool

import gridlane
from gridlane.type.v1 import options_pb2
from gridlane_kit.admission import Admission, AdmissionClass
from gridlane_kit.foreign import FOREIGN_RULES
from gridlane_kit.metrics import Metrics
from gridlane_kit.plans import ContractError, MethodPlan, plan_service, refuse_stripped

Plan = Callable[[str, object], dict[str, MethodPlan]]
SAMPLE = "gridlane.transfer.sample.v1.SampleService"


@pytest.fixture
def plan(messages: SimpleNamespace) -> Plan:
    def plan(full_name: str, implementation: object) -> dict[str, MethodPlan]:
        return plan_service(full_name, implementation, Admission(), Metrics())

    return plan


def variant(
    file: descriptor_pb2.FileDescriptorProto,
    name: str,
    change: Callable[[descriptor_pb2.FileDescriptorProto], None],
) -> str:
    """Adds a changed copy of the sample contract to the pool; returns its service's name."""
    copy = descriptor_pb2.FileDescriptorProto.FromString(file.SerializeToString())
    copy.name = f"{name}.proto"
    copy.package = f"gridlane.{name}.v1"
    for method in copy.service[0].method:
        for side in ("input_type", "output_type"):
            renamed = getattr(method, side).replace(file.package, copy.package)
            setattr(method, side, renamed)
    for message in copy.message_type:
        for field in (field for field in message.field if field.type_name):
            field.type_name = field.type_name.replace(file.package, copy.package)
    change(copy)
    descriptor_pool.Default().AddSerializedFile(copy.SerializeToString())
    return f"{copy.package}.SampleService"


def test_a_contract_without_validation_rules_is_refused(
    sample_file: descriptor_pb2.FileDescriptorProto, messages: SimpleNamespace, plan: Plan
) -> None:
    def strip(file: descriptor_pb2.FileDescriptorProto) -> None:
        for message in file.message_type:
            for field in message.field:
                field.ClearField("options")

    service = variant(sample_file, "stripped", strip)
    with pytest.raises(ContractError, match="no validation rules"):
        refuse_stripped([service])
    refuse_stripped([SAMPLE, "grpc.health.v1.Health"])


def test_a_method_without_a_rule_is_refused(
    sample_file: descriptor_pb2.FileDescriptorProto, messages: SimpleNamespace, plan: Plan
) -> None:
    service = variant(
        sample_file, "ruleless", lambda file: file.service[0].method[2].ClearField("options")
    )
    with pytest.raises(ContractError, match="ForgetThing declares no permission"):
        plan(service, object())


def test_a_permission_that_the_table_does_not_know_is_refused(
    sample_file: descriptor_pb2.FileDescriptorProto, messages: SimpleNamespace, plan: Plan
) -> None:
    def misspell(file: descriptor_pb2.FileDescriptorProto) -> None:
        options = file.service[0].method[0].options
        options.Extensions[options_pb2.rule].permission = "workload.jobs.veiw"

    service = variant(sample_file, "misspelt", misspell)
    with pytest.raises(ContractError, match=r"workload\.jobs\.veiw"):
        plan(service, object())


def test_an_unknown_service_is_refused(plan: Plan) -> None:
    with pytest.raises(ContractError, match="import its generated module"):
        plan("gridlane.nowhere.v1.NoService", object())


class Misspelt:
    async def GetThign(self, request: Any, call: Any) -> Any: ...


class NotAGenerator:
    async def WatchThings(self, request: Any, call: Any) -> Any: ...


class NotACoroutine:
    def GetThing(self, request: Any, call: Any) -> Any: ...


@pytest.mark.parametrize(
    ("implementation", "text"),
    [
        (Misspelt, "has no method GetThign"),
        (NotAGenerator, "async generator"),
        (NotACoroutine, "coroutine function"),
    ],
)
def test_an_implementation_of_the_wrong_form_is_refused(
    implementation: Callable[[], object], text: str, plan: Plan
) -> None:
    with pytest.raises(ContractError, match=text):
        plan(SAMPLE, implementation())


def test_classes_follow_the_rule_and_else_the_form(plan: Plan) -> None:
    plans = plan(SAMPLE, object())
    classes = {name: p.rule.admission for name, p in plans.items()}
    assert classes["GetThing"] is AdmissionClass.UNARY
    assert classes["BatchGetThings"] is AdmissionClass.BATCH
    assert classes["WatchThings"] is AdmissionClass.STREAM
    assert plans["CreateThing"].has_request_id
    assert not plans["GetThing"].has_request_id


def test_every_service_of_the_product_can_be_served(plan: Plan) -> None:
    names = [
        service.full_name
        for module in pkgutil.walk_packages(gridlane.__path__, "gridlane.")
        if module.name.endswith("_pb2")
        for service in importlib.import_module(module.name).DESCRIPTOR.services_by_name.values()
    ]
    assert len(names) > 10
    for name in names:
        assert plan(name, object())
    refuse_stripped(names)


def test_foreign_methods_have_their_rules_in_one_table(plan: Plan) -> None:
    from grpc_health.v1 import health_pb2
    from grpc_reflection.v1alpha import reflection_pb2
    from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

    found = {
        f"{service.full_name}/{method.name}": plan(service.full_name, object())[method.name].rule
        for module in (health_pb2, reflection_pb2, trace_service_pb2)
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }
    assert found == dict(FOREIGN_RULES)
    assert {name: rule.permission for name, rule in found.items()} == {
        "grpc.health.v1.Health/Check": None,
        "grpc.health.v1.Health/List": None,
        "grpc.health.v1.Health/Watch": None,
        "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": "server.reflection.view",
        "opentelemetry.proto.collector.trace.v1.TraceService/Export": "reporting.spans.write",
    }
