"""Plans: what the pipeline must know of each method, worked out once from the descriptors.

Responsible for reading a service's descriptors and their options, for matching them with an
implementation, and for refusing what must not be served: a method without a rule, a permission that
the decision table does not know, a contract without validation rules, an implementation of the
wrong form.
"""

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message

from gridlane.type.v1 import options_pb2
from gridlane_kit.admission import Admission, AdmissionClass, Gate
from gridlane_kit.call import Call
from gridlane_kit.errors import GridlaneError
from gridlane_kit.foreign import FOREIGN_RULES, MethodRule
from gridlane_kit.metrics import MethodStats, Metrics
from gridlane_kit.permissions import PERMISSIONS
from gridlane_kit.telemetry import AttributeValue
from gridlane_kit.times import has_times
from gridlane_kit.validation import compile_rules, has_rules

Denied = Callable[[str, Call, GridlaneError], None]
"""Told of a call that was denied before its handler was entered: permission, call, error."""

_OWN_PREFIX: Final = "gridlane."


class ContractError(Exception):
    """A service cannot be served as it stands; the server refuses to start."""


@dataclass(frozen=True, slots=True)
class MethodPlan:
    """One method, ready to be called.

    `name` is "package.Service/Method", `service` the short name of its service ("workload").
    `handler` is None when the implementation lacks the method. `denied` is the implementation's
    method of that name, where it has one. `validated` is false where no rule can apply.
    """

    name: str
    method: str
    service: str
    rule: MethodRule
    request_class: type[Message]
    response_class: type[Message]
    client_streaming: bool
    server_streaming: bool
    handler: Callable[..., Any] | None
    denied: Denied | None
    validated: bool
    has_request_id: bool
    gate: Gate
    stats: MethodStats
    span_attributes: dict[str, AttributeValue]

    @property
    def streaming(self) -> bool:
        """Whether either side streams."""
        return self.client_streaming or self.server_streaming


def plan_service(
    full_name: str, implementation: object, admission: Admission, metrics: Metrics
) -> dict[str, MethodPlan]:
    """Works out the plans of a service, by method name.

    Parameters:
        full_name: "gridlane.workload.v1.JobService"; its generated module must be imported.
        implementation: the object whose methods are named as in the contract; it may lack some.

    Raises:
        ContractError: see the module.
    """
    try:
        service = descriptor_pool.Default().FindServiceByName(full_name)
    except KeyError:
        raise ContractError(f"{full_name} is unknown: import its generated module") from None
    _refuse_strangers(service, implementation)
    return {
        method.name: _plan(service, method, implementation, admission, metrics)
        for method in service.methods
    }


def _refuse_strangers(service: ServiceDescriptor, implementation: object) -> None:
    """A public method in the contract's spelling that the contract lacks is a typing error."""
    known = {method.name for method in service.methods}
    strangers = [
        name
        for name, value in inspect.getmembers(type(implementation), callable)
        if name[0].isupper() and name not in known and inspect.isfunction(value)
    ]
    if strangers and service.full_name.startswith(_OWN_PREFIX):
        raise ContractError(f"{service.full_name} has no method {', '.join(strangers)}")


def refuse_stripped(full_names: Iterable[str]) -> None:
    """Refuses to serve when all services of a package together have no validation rule.

    Raises:
        ContractError: names the package.
    """
    bare: dict[str, bool] = {}
    for full_name in full_names:
        service = descriptor_pool.Default().FindServiceByName(full_name)
        if full_name not in _FOREIGN_SERVICES:
            package = service.file.package
            bare[package] = bare.get(package, True) and not _any_rules(service)
    packages = sorted(package for package, is_bare in bare.items() if is_bare)
    if packages:
        raise ContractError(
            f"the descriptors of {', '.join(packages)} hold no validation rules: the generated code"
            " lost its options and would accept everything; generate it again"
        )


def _any_rules(service: ServiceDescriptor) -> bool:
    messages: list[Descriptor] = list(service.file.message_types_by_name.values())
    messages += [method.input_type for method in service.methods]
    return any(has_rules(message) for message in messages)


def _plan(
    service: ServiceDescriptor,
    method: MethodDescriptor,
    implementation: object,
    admission: Admission,
    metrics: Metrics,
) -> MethodPlan:
    name = f"{service.full_name}/{method.name}"
    rule = _rule(name, method)
    if rule.permission is not None and rule.permission not in PERMISSIONS:
        raise ContractError(f"{name} names {rule.permission!r}, a permission that no table knows")
    request_class = message_factory.GetMessageClass(method.input_type)
    validated = has_rules(method.input_type) or has_times(method.input_type)
    if validated:
        compile_rules(request_class())
    return MethodPlan(
        name=name,
        method=method.name,
        service=_short_name(service.full_name),
        rule=rule,
        request_class=request_class,
        response_class=message_factory.GetMessageClass(method.output_type),
        client_streaming=method.client_streaming,
        server_streaming=method.server_streaming,
        handler=_handler(name, method, implementation),
        denied=getattr(implementation, "denied", None),
        validated=validated,
        has_request_id="request_id" in method.input_type.fields_by_name,
        gate=admission.gates[rule.admission],
        stats=metrics.method(name),
        span_attributes={
            "rpc.system": "grpc",
            "rpc.service": service.full_name,
            "rpc.method": method.name,
        },
    )


def _rule(name: str, method: MethodDescriptor) -> MethodRule:
    foreign = FOREIGN_RULES.get(name)
    if foreign is not None:
        return foreign
    # Read anew: options parsed before the extension was known keep it as unknown bytes.
    options = descriptor_pb2.MethodOptions.FromString(method.GetOptions().SerializeToString())
    declared = options.Extensions[options_pb2.rule]
    if not declared.permission:
        raise ContractError(f"{name} declares no permission: give it (gridlane.type.v1.rule)")
    return MethodRule(
        permission=declared.permission,
        admission=_admission_class(declared.admission, method),
        resource=declared.resource,
    )


def _admission_class(declared: int, method: MethodDescriptor) -> AdmissionClass:
    named: dict[int, AdmissionClass] = {
        options_pb2.ADMISSION_UNARY: AdmissionClass.UNARY,
        options_pb2.ADMISSION_BATCH: AdmissionClass.BATCH,
        options_pb2.ADMISSION_STREAM: AdmissionClass.STREAM,
    }
    streaming = method.client_streaming or method.server_streaming
    by_form = AdmissionClass.STREAM if streaming else AdmissionClass.UNARY
    return named.get(declared, by_form)


def _handler(
    name: str, method: MethodDescriptor, implementation: object
) -> Callable[..., Any] | None:
    handler: Callable[..., Any] | None = getattr(implementation, method.name, None)
    if handler is None:
        return None
    if method.server_streaming and not inspect.isasyncgenfunction(handler):
        raise ContractError(f"{name} streams answers: its handler must be an async generator")
    if not method.server_streaming and not inspect.iscoroutinefunction(handler):
        raise ContractError(f"{name} gives one answer: its handler must be a coroutine function")
    return handler


def _short_name(full_name: str) -> str:
    segments = full_name.split(".")
    return segments[1] if segments[0] == "gridlane" and len(segments) > 1 else segments[0]


_FOREIGN_SERVICES: Final = frozenset(name.partition("/")[0] for name in FOREIGN_RULES)
