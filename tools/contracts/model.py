"""The contracts as data: services, messages and enums with their comments, options and lines.

Responsible for building protos/ with buf and for reading what comes out into plain dataclasses.
Knows nothing of what is made of it: the reference (`pages`) and the style rules
(`style`) judge and write.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message as ProtoMessage

Rules = Mapping[str, Any]
"""Options of `buf.validate`, as dictionaries with the proto's own field names; a duration is its
seconds."""

_FIELD = descriptor_pb2.FieldDescriptorProto
_SCALARS = {number: name.removeprefix("TYPE_").lower() for name, number in _FIELD.Type.items()}
# Numbers of the parts of a descriptor, of which the paths of source locations are made.
_FILE_MESSAGE, _FILE_ENUM, _FILE_SERVICE = 4, 5, 6
_MESSAGE_FIELD, _MESSAGE_NESTED, _MESSAGE_ENUM = 2, 3, 4
_ENUM_VALUE = _SERVICE_METHOD = 2


@dataclass(frozen=True)
class Symbol:
    """What everything with a name has: its full name, its comment, where it stands, and whether it
    is on its way out."""

    name: str
    comment: str
    file: str
    line: int
    deprecated: bool

    @property
    def short(self) -> str:
        """The last part of the name."""
        return self.name.rpartition(".")[2]

    @property
    def place(self) -> str:
        """File and line, for people."""
        return f"protos/{self.file}:{self.line}"


@dataclass(frozen=True)
class Field(Symbol):
    """A field of a message.

    `type` is a scalar's name or the full name of a message or enum; of a map, that of its values,
    and `key` the type of its keys. `behavior` has the words of `google.api.field_behavior`.
    """

    number: int
    type: str
    is_message: bool
    is_enum: bool
    repeated: bool
    key: str
    oneof: str
    presence: bool
    behavior: frozenset[str]
    rules: Rules

    @property
    def output_only(self) -> bool:
        """Whether callers never set it."""
        return "OUTPUT_ONLY" in self.behavior


@dataclass(frozen=True)
class Message(Symbol):
    """A message; `required_oneofs` are those of which one member must be set."""

    fields: tuple[Field, ...]
    rules: Rules
    required_oneofs: frozenset[str]

    def field(self, name: str) -> Field | None:
        """The field of that name, if there is one."""
        return next((one for one in self.fields if one.short == name), None)


@dataclass(frozen=True)
class EnumValue(Symbol):
    """One value; `word` is its name without the enum's prefix."""

    number: int
    word: str


@dataclass(frozen=True)
class Enum(Symbol):
    """An enum."""

    values: tuple[EnumValue, ...]


@dataclass(frozen=True)
class Method(Symbol):
    """An rpc. `permission`, `resource` and `admission` are those of its rule, empty without one."""

    service: str
    takes: str
    gives: str
    takes_stream: bool
    gives_stream: bool
    permission: str
    resource: str
    admission: str


@dataclass(frozen=True)
class Service(Symbol):
    """A service."""

    methods: tuple[Method, ...]


@dataclass(frozen=True)
class File:
    """One proto file; nested messages and enums stand behind the ones that hold them."""

    path: str
    package: str
    services: tuple[Service, ...]
    messages: tuple[Message, ...]
    enums: tuple[Enum, ...]


@dataclass(frozen=True)
class Contract:
    """All of Gridlane's files, and what is found in them by its full name."""

    files: tuple[File, ...]
    messages: Mapping[str, Message] = field(init=False)
    enums: Mapping[str, Enum] = field(init=False)

    def __post_init__(self) -> None:
        messages = {one.name: one for file in self.files for one in file.messages}
        enums = {one.name: one for file in self.files for one in file.enums}
        object.__setattr__(self, "messages", messages)
        object.__setattr__(self, "enums", enums)

    @property
    def methods(self) -> Iterator[Method]:
        """Every rpc."""
        for file in self.files:
            for service in file.services:
                yield from service.methods


def read_contract(root: Path) -> Contract:
    """Builds the contracts of a tree and reads them.

    Parameters:
        root: the folder with `buf.yaml` and `protos/`.

    Raises:
        subprocess.CalledProcessError: they do not build; buf's words are on standard error.
    """
    with tempfile.TemporaryDirectory() as scratch:
        image = Path(scratch) / "image.binpb"
        buf = Path(sys.executable).with_name("buf")
        subprocess.run([buf, "build", "protos", "--output", image], cwd=root, check=True)
        return Contract(tuple(_files(image.read_bytes())))


def _files(image: bytes) -> Iterator[File]:
    """The files of an image, in the order of their paths, parsed with the options set in them."""
    files = descriptor_pb2.FileDescriptorSet.FromString(image).file
    pool = descriptor_pool.DescriptorPool()
    for file in files:
        pool.AddSerializedFile(file.SerializeToString())
    message_factory.GetMessageClassesForFiles([file.name for file in files], pool)
    file_type = pool.FindMessageTypeByName("google.protobuf.FileDescriptorProto")
    file_class: Any = message_factory.GetMessageClass(file_type)
    for file in sorted(files, key=lambda one: one.name):
        if file.name.startswith("gridlane/"):
            yield _Reader(file_class.FromString(file.SerializeToString())).file()


class _Reader:
    """Reads one FileDescriptorProto."""

    def __init__(self, proto: Any) -> None:
        self._proto = proto
        self._locations = {tuple(one.path): one for one in proto.source_code_info.location}

    def file(self) -> File:
        proto = self._proto
        messages: list[Message] = []
        enums: list[Enum] = []
        for index, message in enumerate(proto.message_type):
            self._add_message(proto.package, message, (_FILE_MESSAGE, index), messages, enums)
        for index, enum in enumerate(proto.enum_type):
            enums.append(self._enum(proto.package, enum, (_FILE_ENUM, index)))
        services = tuple(
            self._service(service, (_FILE_SERVICE, index))
            for index, service in enumerate(proto.service)
        )
        return File(proto.name, proto.package, services, tuple(messages), tuple(enums))

    def _symbol(self, name: str, path: tuple[int, ...], options: Any) -> dict[str, Any]:
        location = self._locations.get(path)
        lines = location.leading_comments.splitlines() if location else []
        return {
            "name": name,
            "comment": "\n".join(line.removeprefix(" ").rstrip() for line in lines).strip(),
            "file": self._proto.name,
            "line": location.span[0] + 1 if location else 1,
            "deprecated": options.deprecated,
        }

    def _add_message(
        self,
        scope: str,
        proto: Any,
        path: tuple[int, ...],
        messages: list[Message],
        enums: list[Enum],
    ) -> None:
        name = f"{scope}.{proto.name}"
        entries = {
            f".{name}.{nested.name}": nested
            for nested in proto.nested_type
            if nested.options.map_entry
        }
        fields = tuple(
            self._field(name, one, proto, entries, (*path, _MESSAGE_FIELD, index))
            for index, one in enumerate(proto.field)
        )
        required = frozenset(
            oneof.name for oneof in proto.oneof_decl if _rules(oneof.options).get("required")
        )
        messages.append(
            Message(
                **self._symbol(name, path, proto.options),
                fields=fields,
                rules=_rules(proto.options),
                required_oneofs=required,
            )
        )
        for index, nested in enumerate(proto.nested_type):
            if not nested.options.map_entry:
                self._add_message(name, nested, (*path, _MESSAGE_NESTED, index), messages, enums)
        for index, enum in enumerate(proto.enum_type):
            enums.append(self._enum(name, enum, (*path, _MESSAGE_ENUM, index)))

    def _field(
        self, scope: str, proto: Any, message: Any, entries: Mapping[str, Any], path: Any
    ) -> Field:
        entry = entries.get(proto.type_name)
        value = entry.field[1] if entry else proto
        is_message = value.type == _FIELD.TYPE_MESSAGE
        is_enum = value.type == _FIELD.TYPE_ENUM
        in_oneof = proto.HasField("oneof_index") and not proto.proto3_optional
        return Field(
            **self._symbol(f"{scope}.{proto.name}", path, proto.options),
            number=proto.number,
            type=value.type_name[1:] if is_message or is_enum else _SCALARS[value.type],
            is_message=is_message,
            is_enum=is_enum,
            repeated=proto.label == _FIELD.LABEL_REPEATED and entry is None,
            key=_SCALARS[entry.field[0].type] if entry else "",
            oneof=message.oneof_decl[proto.oneof_index].name if in_oneof else "",
            presence=proto.proto3_optional,
            behavior=_behavior(proto.options),
            rules=_rules(proto.options),
        )

    def _enum(self, scope: str, proto: Any, path: tuple[int, ...]) -> Enum:
        values = []
        prefix = _upper_snake(proto.name) + "_"
        for index, value in enumerate(proto.value):
            symbol = self._symbol(
                f"{scope}.{value.name}", (*path, _ENUM_VALUE, index), value.options
            )
            values.append(
                EnumValue(**symbol, number=value.number, word=value.name.removeprefix(prefix))
            )
        symbol = self._symbol(f"{scope}.{proto.name}", path, proto.options)
        return Enum(**symbol, values=tuple(values))

    def _service(self, proto: Any, path: tuple[int, ...]) -> Service:
        name = f"{self._proto.package}.{proto.name}"
        methods = []
        for index, method in enumerate(proto.method):
            rule = _extension(method.options, "rule") or {}
            methods.append(
                Method(
                    **self._symbol(
                        f"{name}.{method.name}", (*path, _SERVICE_METHOD, index), method.options
                    ),
                    service=name,
                    takes=method.input_type[1:],
                    gives=method.output_type[1:],
                    takes_stream=method.client_streaming,
                    gives_stream=method.server_streaming,
                    permission=rule.get("permission", ""),
                    resource=rule.get("resource", ""),
                    admission=rule.get("admission", "").removeprefix("ADMISSION_"),
                )
            )
        return Service(**self._symbol(name, path, proto.options), methods=tuple(methods))


def _upper_snake(camel: str) -> str:
    return "".join(
        f"_{letter}" if letter.isupper() and index else letter for index, letter in enumerate(camel)
    ).upper()


def _extension(options: ProtoMessage, name: str) -> Any:
    """The plain value of the extension with this last name part; None when it is not set."""
    for descriptor, value in options.ListFields():
        if descriptor.is_extension and descriptor.name == name:
            return _plain(descriptor, value)
    return None


def _behavior(options: ProtoMessage) -> frozenset[str]:
    return frozenset(_extension(options, "field_behavior") or ())


def _rules(options: ProtoMessage) -> Rules:
    """The rules of `buf.validate`, whose extensions are named after what they are set on."""
    for name in ("field", "message", "oneof"):
        rules: Rules | None = _extension(options, name)
        if rules is not None:
            return rules
    return {}


def _plain(descriptor: Any, value: Any) -> Any:
    if descriptor.is_repeated:
        return [_plain_one(descriptor, one) for one in value]
    return _plain_one(descriptor, value)


def _plain_one(descriptor: Any, value: Any) -> Any:
    if descriptor.enum_type is not None:
        return descriptor.enum_type.values_by_number[value].name
    if descriptor.message_type is None:
        return value
    if descriptor.message_type.full_name == "google.protobuf.Duration":
        return value.seconds + value.nanos / 1_000_000_000
    return {inner.name: _plain(inner, one) for inner, one in value.ListFields()}
