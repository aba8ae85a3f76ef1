"""What `gridlane run` is asked to do, read from its options.

Responsible for the forms `--input SOURCE[=NAME]`, `--output NAME=TARGET` and `--checksum
[NAME=]ALGORITHM:HEX`, and for refusing early what cannot work. Pure but for looking at local paths;
`run_files.py` moves the bytes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import typer

from gridlane.cli.exit_codes import CannotCreateError
from gridlane.cli.files import is_remote, normal


@dataclass(frozen=True)
class Input:
    """A file that the payload reads.

    Attributes:
        name: where the payload finds it, below its working directory.
        source: a URL or logical file name; for a local file where it is put.
        local: the local file; None when it lies somewhere else already.
        checksum: what it must have, as text; empty for what the catalogue says.
    """

    name: str
    source: str
    local: Path | None
    checksum: str = ""


@dataclass(frozen=True)
class Output:
    """A file that the payload writes.

    Attributes:
        name: where the payload leaves it, below its working directory.
        target: a URL or logical file name; for a local file where it lies until it is fetched.
        local: the local file it ends in; None when the target is all.
    """

    name: str
    target: str
    local: Path | None


def read_inputs(texts: Sequence[str], checksums: Sequence[str]) -> list[Input]:
    """The inputs, from the options `--input` and `--checksum`.

    Raises:
        typer.BadParameter: an option has not its form, or two inputs have one name.
        OSError: a local file is not there, or not a file.
    """
    named = [_input(text) for text in texts]
    _all_different("--input", [given.name for given in named])
    sums = dict(_checksum(text, named) for text in checksums)
    return [Input(i.name, i.source, i.local, sums.get(i.name, "")) for i in named]


def read_outputs(texts: Sequence[str]) -> list[Output]:
    """The outputs, from the option `--output`.

    Raises:
        typer.BadParameter: an option has not its form, or two outputs have one name.
        CannotCreateError: the folder of a local target is not there, or may not be written.
    """
    outputs = [_output(text) for text in texts]
    _all_different("--output", [output.name for output in outputs])
    return outputs


def read_environment(texts: Sequence[str]) -> dict[str, str]:
    """Variables, from the option `--env`; "K" alone takes the caller's own.

    Raises:
        typer.BadParameter: "K" alone is not set here.
    """
    variables = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals and name not in os.environ:
            raise typer.BadParameter(f"--env {text}: expected K=V, or a K that is set here")
        variables[name] = value if equals else os.environ[name]
    return variables


def _input(text: str) -> Input:
    source, name = _split_name(text)
    if is_remote(source):
        return Input(name or source.rstrip("/").rpartition("/")[2], normal(source), None)
    path = Path(source)
    if not path.exists():
        raise FileNotFoundError(f"--input {text}: there is no file {source}")
    if not path.is_file():
        raise IsADirectoryError(f"--input {text}: {source} is not a file")
    return Input(name or path.name, "", path)


def _split_name(text: str) -> tuple[str, str]:
    """ "SOURCE=NAME"; a "=" that belongs to a local file's name or a URL's query does not count."""
    source, equals, name = text.rpartition("=")
    if not equals or not source or not name or Path(text).exists() or "?" in source:
        return text, ""
    return source, name


def _checksum(text: str, inputs: Sequence[Input]) -> tuple[str, str]:
    from gridlane.checksums import format_checksum, parse_checksum

    name, equals, value = text.rpartition("=")
    if not equals and len(inputs) != 1:
        raise typer.BadParameter(
            f"--checksum {text}: expected NAME=ALGORITHM:HEX, for there are {len(inputs)} inputs"
        )
    name = name if equals else inputs[0].name
    if name not in {given.name for given in inputs}:
        raise typer.BadParameter(f"--checksum {text}: no input has the name {name!r}")
    try:
        return name, format_checksum(parse_checksum(value))
    except ValueError as error:
        raise typer.BadParameter(f"--checksum: {error}") from error


def _output(text: str) -> Output:
    name, equals, target = text.partition("=")
    if not equals or not name or not target:
        raise typer.BadParameter(f"--output {text}: expected NAME=PATH, NAME=URL or NAME=LFN:…")
    if is_remote(target):
        goal = normal(target)
        return Output(name, goal + Path(name).name if goal.endswith("/") else goal, None)
    path = Path(target)
    if target.endswith("/") or path.is_dir():
        path = path / Path(name).name
    folder = path.parent
    if not folder.is_dir():
        raise CannotCreateError(f"--output {text}: there is no folder {folder}")
    if not os.access(folder, os.W_OK):
        raise CannotCreateError(f"--output {text}: the folder {folder} cannot be written")
    return Output(name, "", path)


def _all_different(option: str, names: Sequence[str]) -> None:
    for name in _repeated(names):
        raise typer.BadParameter(f"{option}: the name {name!r} is given twice")


def _repeated(names: Sequence[str]) -> Iterator[str]:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            yield name
        seen.add(name)
