"""The committed stubs are what the contracts say, and carry the validation rules to the server."""

import importlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import protovalidate
import pytest
from google.protobuf import descriptor_pb2

from gridlane.transfer.v1 import channel_service_pb2

Run = Callable[..., subprocess.CompletedProcess[str]]
VALIDATION_PROTO = "buf/validate/validate.proto"
# The key of option 1159 (buf.validate.field and .message) with a length-delimited value.
RULES_KEY = bytes([0xBA, 0x48])


def check(run: Run, folder: Path) -> subprocess.CompletedProcess[str]:
    return run(folder, "python", "tools/generate.py", "--check")


@pytest.fixture(scope="module")
def image(root: Path, run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The contracts as buf builds them, with nothing dropped."""
    path = tmp_path_factory.mktemp("image") / "image.binpb"
    result = run(root, "buf", "build", "protos", "--output", path)
    assert result.returncode == 0, result.stdout
    return path


def contract_files(image: Path) -> list[descriptor_pb2.FileDescriptorProto]:
    files = descriptor_pb2.FileDescriptorSet.FromString(image.read_bytes()).file
    return [file for file in files if file.name.startswith("gridlane/")]


def module_of(file: descriptor_pb2.FileDescriptorProto) -> ModuleType:
    return importlib.import_module(file.name.removesuffix(".proto").replace("/", ".") + "_pb2")


def options_with_rules(message: descriptor_pb2.DescriptorProto, scope: str) -> Iterator[str]:
    """The names of the message and those of its parts that carry validation rules."""
    name = f"{scope}.{message.name}"
    if RULES_KEY in message.options.SerializeToString():
        yield name
    for field in message.field:
        if RULES_KEY in field.options.SerializeToString():
            yield f"{name}.{field.name}"
    for oneof in message.oneof_decl:
        if RULES_KEY in oneof.options.SerializeToString():
            yield f"{name}.{oneof.name}"
    for nested in message.nested_type:
        yield from options_with_rules(nested, name)


def rules(file: descriptor_pb2.FileDescriptorProto) -> set[str]:
    return {rule for item in file.message_type for rule in options_with_rules(item, file.package)}


@pytest.mark.usefixtures("tools")
def test_the_generated_code_is_up_to_date(root: Path, run: Run) -> None:
    result = check(run, root)
    assert result.returncode == 0, result.stdout


@pytest.mark.usefixtures("tools")
def test_an_edited_a_missing_and_a_left_over_file_are_found(tree: Path, run: Run) -> None:
    generated = tree / "clients/python/gridlane/transfer/v1"
    edited = generated / "channel_pb2.pyi"
    edited.write_text(edited.read_text() + "# edited by hand\n")
    (generated / "channel_service_pb2_grpc.py").unlink()
    (generated / "gone_pb2.py").write_text("")
    result = check(run, tree)
    assert result.returncode != 0
    assert "differs: transfer/v1/channel_pb2.pyi" in result.stdout
    assert "missing: transfer/v1/channel_service_pb2_grpc.py" in result.stdout
    assert "left over: transfer/v1/gone_pb2.py" in result.stdout


@pytest.mark.usefixtures("tools")
def test_a_changed_rule_is_found_and_generation_brings_it_in(tree: Path, run: Run) -> None:
    contract = tree / "protos/gridlane/transfer/v1/channel_service.proto"
    text = contract.read_text()
    assert "max_len = 1024" in text
    contract.write_text(text.replace("max_len = 1024", "max_len = 1023"))
    result = check(run, tree)
    assert "differs: transfer/v1/channel_service_pb2.py" in result.stdout
    assert run(tree, "python", "tools/generate.py").returncode == 0
    assert check(run, tree).returncode == 0


def test_no_stub_depends_on_the_validation_proto(image: Path) -> None:
    for file in contract_files(image):
        names = [dependency.name for dependency in module_of(file).DESCRIPTOR.dependencies]
        assert VALIDATION_PROTO not in names, file.name


def test_every_rule_of_the_contracts_is_in_the_stubs(image: Path) -> None:
    expected, found = set(), set()
    for file in contract_files(image):
        expected |= rules(file)
        stub = descriptor_pb2.FileDescriptorProto.FromString(
            module_of(file).DESCRIPTOR.serialized_pb
        )
        found |= rules(stub)
    assert expected
    assert found == expected


def test_the_rules_in_the_stubs_are_enforced() -> None:
    protovalidate.validate(channel_service_pb2.GetChannelRequest(name="channels/default"))
    with pytest.raises(protovalidate.ValidationError):
        protovalidate.validate(channel_service_pb2.GetChannelRequest(name=""))
