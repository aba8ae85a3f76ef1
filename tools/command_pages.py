"""The reference pages of the commands: `gridlane-server`, and `gridlane` with all it has below.

Responsible for the pages' form; every word about a command is its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import typer

from gridlane.cli.main import app as client_app
from gridlane_server.cli import app as server_app

_MARKUP = re.compile(r"\[/?(?:bold|dim|red|green)\]")


def server_commands_page() -> Iterator[str]:
    """The commands of `gridlane-server` and their options."""
    yield "# Commands of `gridlane-server`\n"
    yield "Those of `gridlane`, for users, are on [a page of their own](client-commands.md)."
    group: Any = typer.main.get_command(server_app)
    for name, command in group.commands.items():
        if not command.hidden:
            yield from _command(f"gridlane-server {name}", command)


def client_commands_page() -> Iterator[str]:
    """The commands of `gridlane`, with their arguments and options."""
    yield "# Commands of `gridlane`\n"
    yield (
        "Data goes to standard output, all else to standard error. `--output json` gives the"
        " messages of [the contract](contract/README.md) in\nprotobuf's JSON form, with the"
        " contract's names of fields; 64-bit numbers are texts there. What a command ends with is"
        " its\n[exit code](exit-codes.md). `gridlane --install-completion` makes bash, zsh or fish"
        " complete commands, options and states."
    )
    group: Any = typer.main.get_command(client_app)
    yield from _group("gridlane", group)


def _group(path: str, group: Any) -> Iterator[str]:
    for name, command in group.commands.items():
        if command.hidden:
            continue
        if hasattr(command, "commands"):
            yield from _group(f"{path} {name}", command)
        else:
            yield from _command(f"{path} {name}", command)


def _command(path: str, command: Any) -> Iterator[str]:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    yield f"\n## {' '.join((path, *map(_argument, arguments)))}\n"
    yield " ".join((command.help or "").split()) + "\n"
    told = [(p, _argument(p)) for p in arguments if p.help]
    options = [p for p in command.params if p.param_type_name == "option"]
    if not (told or options):
        return
    with_variables = any(p.envvar for p in options)
    headings = ("", "variable", "meaning") if with_variables else ("", "meaning")
    yield _row(*headings)
    yield "|" + "---|" * len(headings)
    for parameter, name in told:
        yield _entry(f"`{name}`", parameter, with_variables)
    for parameter in options:
        names = ", ".join(f"`{text}`" for text in parameter.opts + parameter.secondary_opts)
        yield _entry(names, parameter, with_variables)


def _argument(parameter: Any) -> str:
    name = (parameter.metavar or parameter.name.upper()).strip("[]{}")
    return name if parameter.required else f"[{name}]"


def _entry(names: str, parameter: Any, with_variables: bool) -> str:
    variable = (f"`{parameter.envvar}`" if parameter.envvar else "",) if with_variables else ()
    meaning = " ".join(_MARKUP.sub("", parameter.help or "").split())
    if parameter.required and parameter.param_type_name == "option":
        meaning += " Required."
    return _row(names, *variable, meaning)


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
