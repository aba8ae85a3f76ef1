"""What the fields of a job's description need of the backend that would run it.

Responsible for the table of those that not every backend carries out, and for refusing a job that
asks for one: at submission, by name, before anything is stored. A field that is in no row here is
carried out by every backend, and promised so: tests/unit/workload/test_capabilities.py names those
one by one, so that a field that is added to the contract and forgotten here fails.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final

from google.protobuf.message import Message

from gridlane.workload.v1.job_pb2 import (
    BackendOptions,
    Executor,
    FileType,
    InputAccess,
    JobDescription,
    JobDestination,
    JobInput,
    JobOutput,
    Resources,
    RetryPolicy,
)
from gridlane_kit import errors
from gridlane_workload.backends.interface import Capabilities, Capability

_ROOT: Final = "job.description"


@dataclass(frozen=True, slots=True)
class Need:
    """What a field needs when it asks for something.

    Parameters:
        capability: without which the job is refused.
        cure: what the caller can do instead.
        asks: whether the field, which is set, asks for it; it is given the message.
    """

    capability: Capability
    cure: str
    asks: Callable[[Any], bool] = lambda message: True


def _all(message: type[Message], capability: Capability, cure: str) -> Mapping[str, Need]:
    return {field.name: Need(capability, cure) for field in message.DESCRIPTOR.fields}


def _path_in_image(name: str) -> Need:
    return Need(
        Capability.IMAGES,
        "name a path below the working directory",
        lambda executor: getattr(executor, name).startswith("/"),
    )


_NO_IMAGE: Final = "leave it out: files are found in the working directory, where there is no image"
_NO_DIRECTORY: Final = "name its files one by one, or pack them into one"

NEEDS: Final[Mapping[type[Message], Mapping[str, Need]]] = {
    JobDescription: {
        "volumes": Need(
            Capability.IMAGES, "leave it out: the executors share the working directory"
        ),
        "output_sandbox": Need(
            Capability.OUTPUT_SANDBOX, "name the files as outputs; the log is kept in any case"
        ),
    },
    JobDestination: _all(
        JobDestination,
        Capability.DESTINATION,
        "leave it out: the backend is one machine, without sites and queues",
    ),
    RetryPolicy: _all(
        RetryPolicy, Capability.RETRIES, "leave it out, and submit the job again when it failed"
    ),
    BackendOptions: {
        "parameters": Need(
            Capability.BACKEND_PARAMETERS,
            "leave it out, or set ignore_unknown_parameters",
            lambda options: not options.ignore_unknown_parameters,
        ),
        "accounting_group": Need(Capability.ACCOUNTING, "leave it out: the VO is accounted"),
        "accounting_user": Need(Capability.ACCOUNTING, "leave it out: the owner is accounted"),
        "concurrency_limits": Need(
            Capability.CONCURRENCY_LIMITS, "leave it out: the backend has a limit for all jobs"
        ),
    },
    JobInput: {
        "type": Need(
            Capability.DIRECTORIES,
            _NO_DIRECTORY,
            lambda item: item.type == FileType.FILE_TYPE_DIRECTORY,
        ),
        "access": Need(
            Capability.REMOTE_INPUTS,
            "let it be brought (COPY), or hand its URL to the payload as an argument",
            lambda item: item.access == InputAccess.INPUT_ACCESS_REMOTE,
        ),
        "image_path": Need(Capability.IMAGES, _NO_IMAGE),
    },
    JobOutput: {
        "type": Need(
            Capability.DIRECTORIES,
            _NO_DIRECTORY,
            lambda item: item.type == FileType.FILE_TYPE_DIRECTORY,
        ),
        "glob": Need(Capability.OUTPUT_PATTERNS, _NO_DIRECTORY),
        "path_prefix": Need(Capability.OUTPUT_PATTERNS, "leave it out: it goes with glob"),
        "image_path": Need(Capability.IMAGES, _NO_IMAGE),
        "storage_elements": Need(
            Capability.STORAGE_CHOICE, "leave it out: the target says where it goes"
        ),
    },
    Executor: {
        "image": Need(Capability.IMAGES, "leave it out: the command runs on the machine itself"),
        "workdir": _path_in_image("workdir"),
        "stdin": _path_in_image("stdin"),
        "stdout": _path_in_image("stdout"),
        "stderr": _path_in_image("stderr"),
    },
    Resources: {
        "whole_node": Need(
            Capability.WHOLE_NODE, "leave it out, and ask for processors (cpu_cores)"
        ),
        "min_memory_bytes": Need(
            Capability.MIN_MEMORY, "leave it out: the machine's memory is shared by its jobs"
        ),
        "cpu_time": Need(Capability.CPU_TIME, "leave it out, and give a walltime"),
    },
}
"""The table: messages, their fields, and what those need."""

_PARTS: Final = {
    "resources": Resources,
    "destination": JobDestination,
    "retry": RetryPolicy,
    "backend_options": BackendOptions,
}
_LISTS: Final = {"inputs": JobInput, "outputs": JobOutput, "executors": Executor}


class Requirements:
    """The table against one backend.

    Parameters:
        capabilities: of the backend; what it offers needs no refusal.
        backend: its name.
    """

    def __init__(self, capabilities: Capabilities, backend: str) -> None:
        self._backend = backend
        self._of: dict[type[Message], _Fields] = {
            message: _Fields(message, needs, capabilities.offers)
            for message, needs in NEEDS.items()
        }
        self._description = self._of[JobDescription]
        self._parts = [(name, self._of[kind]) for name, kind in _PARTS.items()]
        self._lists = [(attrgetter(name), self._of[kind]) for name, kind in _LISTS.items()]

    def check(self, description: JobDescription) -> None:
        """Refuse what the backend does not carry out.

        Raises:
            GridlaneError: CAPABILITY_MISSING, naming each such field, of very many the first.
        """
        if not self._may_ask(description):
            return
        found = [
            (f"{path}.{name}", need)
            for path, part in _parts(description)
            for name, need in self._of[type(part)].asked(part)
        ]
        if found:
            named = [
                (field, f"needs {need.capability}, which {self._backend} lacks: {need.cure}")
                for field, need in found
            ]
            raise errors.capability_missing(named, found[0][1].capability.value, self._backend)

    def _may_ask(self, description: Message) -> bool:
        """Whether a field is set that may ask for something; a part of every submission."""
        if self._description.set_in(description):
            return True
        for name, fields in self._parts:
            if description.HasField(name) and fields.set_in(getattr(description, name)):
                return True
        return any(fields.set_in_any(items(description)) for items, fields in self._lists)


def _parts(description: Message) -> Iterator[tuple[str, Message]]:
    """The messages that fields are looked for in, by path."""
    yield _ROOT, description
    for name in _PARTS:
        if description.HasField(name):
            yield f"{_ROOT}.{name}", getattr(description, name)
    for name in _LISTS:
        for index, item in enumerate(getattr(description, name)):
            yield f"{_ROOT}.{name}[{index}]", item


class _Fields:
    """The fields of one message that a backend does not carry out."""

    def __init__(
        self, message: type[Message], needs: Mapping[str, Need], offers: frozenset[Capability]
    ) -> None:
        self._needs = {name: n for name, n in needs.items() if n.capability not in offers}
        fields = message.DESCRIPTOR.fields_by_name
        self._messages = [
            name
            for name in self._needs
            if fields[name].message_type is not None and not fields[name].is_repeated
        ]
        self._values = _reader([name for name in self._needs if name not in self._messages])

    def set_in(self, message: Message) -> bool:
        """Whether any of the fields is set."""
        if any(self._values(message)):
            return True
        return bool(self._messages) and any(map(message.HasField, self._messages))

    def set_in_any(self, messages: Iterable[Message]) -> bool:
        """Whether any of the fields is set in any of some messages."""
        if any(map(any, map(self._values, messages))):
            return True
        return bool(self._messages) and any(map(self.set_in, messages))

    def asked(self, message: Message) -> Iterator[tuple[str, Need]]:
        """The fields that ask for something, and what they need."""
        for name, need in self._needs.items():
            is_set = message.HasField(name) if name in self._messages else getattr(message, name)
            if is_set and need.asks(message):
                yield name, need


def _reader(names: list[str]) -> Callable[[Message], Iterable[Any]]:
    """What reads fields of a message, all at once."""
    if len(names) > 1:
        return attrgetter(*names)
    return lambda message: [getattr(message, name) for name in names]
