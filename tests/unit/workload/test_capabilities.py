"""Every field of a job's description is either carried out by every backend or refused by name."""

import re
from pathlib import Path
from typing import Any, Final

import pytest
from google.api import field_behavior_pb2
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.rpc import error_details_pb2

from gridlane.gateway.v1.task_service_pb2 import SubmitTaskRequest
from gridlane.workload.v1 import job_pb2
from gridlane.workload.v1.capability_pb2 import WorkloadCapability
from gridlane.workload.v1.job_pb2 import Executor, JobDescription
from gridlane.workload.v1.job_service_pb2 import BatchSubmitJobsRequest, SubmitJobRequest
from gridlane_kit.errors import ErrorReason, GridlaneError
from gridlane_workload.backends.interface import Capabilities, Capability, DataOwner
from gridlane_workload.capabilities import NEEDS, Requirements

CAPABILITIES = Capabilities(DataOwner.GRIDLANE, max_cpu_cores=4, logs_while_running=True)
CONTRACT = (Path(__file__).parents[3] / "protos/gridlane/workload/v1/job.proto").read_text()
EMBEDDED = Requirements(CAPABILITIES, "embedded")

# Reviewed: what every backend does what the contract says of. A new field stands here when it is
# carried out, with a test of that, or in the table of requirements.
CARRIED: Final[dict[str, set[str]]] = {
    "JobDescription": {
        "display_name",
        "inputs",
        "outputs",
        "executors",
        "resources",
        "tags",
        "priority",
        "job_type",
        "job_group",
        "description",
        "annotations",
        "destination",
        "retry",
        "backend_options",
    },
    "JobInput": {
        "path",
        "source",
        "checksum",
        "display_name",
        "description",
        "content",
        "executable",
    },
    "JobOutput": {"path", "target", "optional", "overwrite", "display_name", "description"},
    "Executor": {"command", "environment", "ignore_error", "run_always"},
    "Resources": {
        "cpu_cores",
        "memory_bytes",
        "disk_bytes",
        "walltime",
        "preemptible",
        "max_cpu_cores",
    },
    "BackendOptions": {"ignore_unknown_parameters"},
}
# What of these fields is carried out, and what is not; other values than these there are none.
IN_PART: Final[dict[str, tuple[list[Any], list[Any]]]] = {
    "JobInput.type": ([job_pb2.FILE_TYPE_FILE], [job_pb2.FILE_TYPE_DIRECTORY]),
    "JobInput.access": (
        [
            job_pb2.INPUT_ACCESS_COPY,
            job_pb2.INPUT_ACCESS_SHARED,
            job_pb2.INPUT_ACCESS_STREAM,
        ],
        [job_pb2.INPUT_ACCESS_REMOTE],
    ),
    "JobOutput.type": ([job_pb2.FILE_TYPE_FILE], [job_pb2.FILE_TYPE_DIRECTORY]),
    "Executor.workdir": (["a/b"], ["/a"]),
    "Executor.stdin": (["a/b"], ["/a"]),
    "Executor.stdout": (["a/b"], ["/a"]),
    "Executor.stderr": (["a/b"], ["/a"]),
}


def fields() -> list[Any]:
    """The fields of a description and of all messages in it, by their descriptors."""
    found: dict[str, Any] = {}
    waiting: list[Any] = [JobDescription.DESCRIPTOR]
    while waiting:
        message = waiting.pop()
        found[message.name] = message
        inner = (field.message_type for field in message.fields if field.message_type is not None)
        waiting += [of for of in inner if of.file is message.file and not is_map(of)]
    return [field for message in found.values() for field in message.fields]


def is_map(message: Any) -> bool:
    return bool(message.GetOptions().map_entry)


def full(field: Any) -> str:
    return f"{field.containing_type.name}.{field.name}"


def needs_of(field: Any) -> bool:
    return any(
        field.name in needs
        for message, needs in NEEDS.items()
        if message.DESCRIPTOR is field.containing_type
    )


def value_of(field: Any) -> Any:
    """Some value that sets a field."""
    if field.message_type is not None:
        if is_map(field.message_type):
            return {"a": "b"}
        made = message_class(field.message_type)()
        return [made] if field.is_repeated else made
    value: Any = {"string": "a", "bytes": b"a", "bool": True}.get(kind(field), 1)
    return [value] if field.is_repeated else value


def kind(field: Any) -> str:
    names = {
        FieldDescriptor.TYPE_STRING: "string",
        FieldDescriptor.TYPE_BYTES: "bytes",
        FieldDescriptor.TYPE_BOOL: "bool",
    }
    return names.get(field.type, "number")


def message_class(descriptor: Any) -> Any:
    return descriptor._concrete_class


def description_with(message: Any) -> tuple[JobDescription, str]:
    """A description that has a message in its place, and the path to that."""
    if isinstance(message, JobDescription):
        return message, "job.description"
    for field in JobDescription.DESCRIPTOR.fields:
        if field.message_type is message.DESCRIPTOR:
            placed: Any = [message] if field.is_repeated else message
            index = "[0]" if field.is_repeated else ""
            return JobDescription(**{field.name: placed}), f"job.description.{field.name}{index}"
    raise AssertionError(f"{message.DESCRIPTOR.name} has no place in a description")


def refused(description: JobDescription, requirements: Requirements = EMBEDDED) -> list[str]:
    """The fields that a description is refused for; none when it is not."""
    try:
        requirements.check(description)
    except GridlaneError as error:
        return named(error)
    return []


def named(error: GridlaneError) -> list[str]:
    """The fields that a refusal names, in the form that the contract promises."""
    assert error.reason is ErrorReason.CAPABILITY_MISSING
    (bad,) = error.details
    assert isinstance(bad, error_details_pb2.BadRequest)
    assert all(violation.description for violation in bad.field_violations)
    assert error.metadata["field"] == bad.field_violations[0].field
    assert error.metadata["capability"] in Capability.__members__
    assert error.metadata["backend"] == "embedded"
    return [violation.field for violation in bad.field_violations]


def asked(field: Any, value: Any) -> tuple[JobDescription, str]:
    message = message_class(field.containing_type)(**{field.name: value})
    description, path = description_with(message)
    return description, f"{path}.{field.name}"


@pytest.mark.parametrize("field", fields(), ids=full)
def test_a_field_is_carried_out_or_has_its_requirement(field: Any) -> None:
    carried = field.name in CARRIED.get(field.containing_type.name, ())
    assert carried != needs_of(field), (
        "a field that is carried out belongs into CARRIED, with a test of it; one that is not"
        " belongs into the table of requirements"
    )


def test_only_fields_that_there_are_stand_in_the_lists() -> None:
    known = {full(field) for field in fields()}
    listed = {f"{message}.{name}" for message, names in CARRIED.items() for name in names}
    needing = {f"{m.DESCRIPTOR.name}.{name}" for m, names in NEEDS.items() for name in names}
    assert listed | needing | IN_PART.keys() <= known


@pytest.mark.parametrize("field", fields(), ids=full)
def test_what_is_not_carried_out_is_refused_by_name(field: Any) -> None:
    if full(field) in IN_PART:
        fine, not_fine = IN_PART[full(field)]
    else:
        fine, not_fine = ([], [value_of(field)]) if needs_of(field) else ([value_of(field)], [])
    for value in fine:
        assert refused(asked(field, value)[0]) == []
    for value in not_fine:
        description, path = asked(field, value)
        assert refused(description) == [path]


@pytest.mark.parametrize("name", [name for name in IN_PART if name.endswith(("type", "access"))])
def test_every_value_of_an_enum_is_judged(name: str) -> None:
    (field,) = (field for field in fields() if full(field) == name)
    values = {value.number for value in field.enum_type.values} - {0}
    fine, not_fine = IN_PART[name]
    assert values == {*fine, *not_fine}


def test_the_contract_s_comments_name_every_capability() -> None:
    told = set(
        re.findall(r"needs the\s+(?://\s+)?capability\s+(?://\s+)?([A-Z_]+)", CONTRACT, re.I)
    )
    assert told == set(Capability.__members__)
    prefix = "WORKLOAD_CAPABILITY_"
    assert {f"{prefix}{name}" for name in told | {"UNSPECIFIED"}} == set(WorkloadCapability.keys())


def test_all_that_is_missing_is_named_at_once() -> None:
    description = JobDescription(
        executors=[Executor(command=["true"]), Executor(command=["true"], image="python:3")],
        destination=job_pb2.JobDestination(queue="long", sites=["A"]),
        resources=job_pb2.Resources(whole_node=True),
    )
    assert set(refused(description)) == {
        "job.description.executors[1].image",
        "job.description.destination.queue",
        "job.description.destination.sites",
        "job.description.resources.whole_node",
    }


def test_of_very_many_the_first_are_named() -> None:
    inputs = [job_pb2.JobInput(image_path="/x")] * 1000
    *named, last = refused(JobDescription(inputs=inputs))
    assert named == [f"job.description.inputs[{i}].image_path" for i in range(len(named))]
    assert len(named) > 5
    assert last == "…"


def test_parameters_may_be_passed_over_when_the_caller_says_so() -> None:
    options = job_pb2.BackendOptions(parameters={"a": "b"}, ignore_unknown_parameters=True)
    assert refused(JobDescription(backend_options=options)) == []


def test_what_a_backend_offers_is_not_refused() -> None:
    offers = frozenset({Capability.IMAGES, Capability.RETRIES})
    able = Requirements(Capabilities(DataOwner.BACKEND, 4, False, offers), "embedded")
    description = JobDescription(
        executors=[Executor(command=["true"], image="python:3", workdir="/data")],
        volumes=["/data"],
        retry=job_pb2.RetryPolicy(max_retries=1),
        output_sandbox=["a"],
    )
    assert refused(description, able) == ["job.description.output_sandbox"]


def test_what_else_a_submission_says_is_the_request_s_own() -> None:
    behavior: Any = field_behavior_pb2.field_behavior

    def said(message: type[Message]) -> set[str]:
        return {
            field.name
            for field in message.DESCRIPTOR.fields
            if field_behavior_pb2.OUTPUT_ONLY not in field.GetOptions().Extensions[behavior]
        }

    assert said(job_pb2.Job) == {"vo", "description"}
    assert said(SubmitJobRequest) == {"job", "request_id", "validate_only"}
    assert said(SubmitTaskRequest) == {"job", "request_id", "validate_only"}
    assert said(BatchSubmitJobsRequest) == {"requests"}
