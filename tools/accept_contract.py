"""Makes the present contracts the baseline that `buf breaking` compares with.

Writes the image protos/baseline.binpb and appends what changed, in words, to protos/CHANGES.md
under a heading with the image's SHA-256, so that neither can change without the other
(tests/contract/test_baseline.py). A committed baseline, because a comparison with the main branch
can never fail in a clone of main. Called by `make accept-contract`.
"""

import hashlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

ROOT = Path(__file__).resolve().parent.parent
BASELINE = ROOT / "protos" / "baseline.binpb"
CHANGES = ROOT / "protos" / "CHANGES.md"
HEADING = "## Baseline "
INTRODUCTION = """\
# Changes of the contract

One section for each accepted baseline (`make accept-contract`), newest last. Of a message or enum
that is new or gone as a whole only the name is listed.
"""


def buf(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [Path(sys.executable).with_name("buf"), *arguments]
    return subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)


def present_image() -> bytes:
    """The contracts as they are now, without comments, which break nobody."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "image.binpb"
        if buf("build", "protos", "--exclude-source-info", "--output", path).returncode != 0:
            sys.exit("The contracts do not build; nothing was accepted.")
        return path.read_bytes()


def breaking_changes() -> list[str]:
    """What buf finds breaking against the old baseline, a line each."""
    return buf("breaking", "protos", "--against", BASELINE).stdout.splitlines()


@dataclass(frozen=True)
class Symbol:
    """One named thing of a contract, as text."""

    name: str
    text: str
    whole: str | None = None
    """The message or enum it is a part of."""


def read_files(image: bytes) -> Iterator[Any]:
    """The image's contract files, as FileDescriptorProtos that know the options set in them."""
    files = descriptor_pb2.FileDescriptorSet.FromString(image).file
    pool = descriptor_pool.DescriptorPool()
    for file in files:
        pool.AddSerializedFile(file.SerializeToString())
    message_factory.GetMessageClassesForFiles([file.name for file in files], pool)
    file_type = pool.FindMessageTypeByName("google.protobuf.FileDescriptorProto")
    file_class = message_factory.GetMessageClass(file_type)
    for file in files:
        if file.name.startswith("gridlane/"):
            yield file_class.FromString(file.SerializeToString())


def symbol(scope: str, proto: Any, kind: str, *, whole: bool = False) -> Symbol:
    """The symbol that `proto` describes, less its name and less what it contains."""
    own = type(proto)()
    own.CopyFrom(proto)
    for field in ("name", "json_name", "field", "nested_type", "enum_type", "value", "method"):
        if field in own.DESCRIPTOR.fields_by_name:
            own.ClearField(field)
    text = f"{kind} {scope}.{proto.name} {text_format.MessageToString(own, as_one_line=True)}"
    return Symbol(f"{scope}.{proto.name}", text.strip(), scope if whole else None)


def message_symbols(scope: str, message: Any) -> Iterator[Symbol]:
    yield symbol(scope, message, "message")
    name = f"{scope}.{message.name}"
    for field in message.field:
        yield symbol(name, field, "field", whole=True)
    for nested in message.nested_type:
        yield from message_symbols(name, nested)
    for enum in message.enum_type:
        yield from enum_symbols(name, enum)


def enum_symbols(scope: str, enum: Any) -> Iterator[Symbol]:
    yield symbol(scope, enum, "enum")
    for value in enum.value:
        yield symbol(f"{scope}.{enum.name}", value, "value", whole=True)


def symbols(image: bytes) -> dict[str, Symbol]:
    """Every symbol of the contracts in an image, by its full name."""
    found: list[Symbol] = []
    for file in read_files(image):
        for message in file.message_type:
            found += message_symbols(file.package, message)
        for enum in file.enum_type:
            found += enum_symbols(file.package, enum)
        for extension in file.extension:
            found.append(symbol(file.package, extension, "option"))
        for service in file.service:
            found.append(symbol(file.package, service, "service"))
            scope = f"{file.package}.{service.name}"
            found += [symbol(scope, method, "rpc") for method in service.method]
    return {item.name: item for item in found}


def differences(old: dict[str, Symbol], new: dict[str, Symbol]) -> Iterator[str]:
    """The textual difference of two contracts in the manner of a diff."""
    for name in sorted(old.keys() | new.keys()):
        before, after = old.get(name), new.get(name)
        if before == after:
            continue
        if before and not (after is None and before.whole and before.whole not in new):
            yield f"- {before.text}"
        if after and not (before is None and after.whole and after.whole not in old):
            yield f"+ {after.text}"


def section(image: bytes, changed: list[str], breaking: list[str]) -> str:
    """The text that goes to CHANGES.md for one accepted baseline."""
    lines = ["", HEADING + hashlib.sha256(image).hexdigest(), ""]
    if breaking:
        lines += ["Breaking:", "", *(f"* {line}" for line in breaking), ""]
    return "\n".join([*lines, "```diff", *changed, "```", ""])


def main() -> None:
    image = present_image()
    before = BASELINE.read_bytes() if BASELINE.exists() else None
    if image == before:
        print("the contracts are the baseline already")
        return
    changed = list(differences(symbols(before) if before else {}, symbols(image)))
    breaking = breaking_changes() if before else []
    text = CHANGES.read_text(encoding="utf-8") if CHANGES.exists() else INTRODUCTION
    CHANGES.write_text(text + section(image, changed, breaking), encoding="utf-8")
    BASELINE.write_bytes(image)
    print(f"accepted: {len(changed)} changed lines, {len(breaking)} of buf's breaking findings")


if __name__ == "__main__":
    main()
