"""The command `gridlane`: its tree, and how it ends.

Responsible for putting the commands together, and for turning whatever went wrong into one message
and an exit code.
"""

from __future__ import annotations

import gc
import os
import sys
from typing import TYPE_CHECKING, Final

import typer

from gridlane.cli import (
    accounting,
    audit,
    can,
    channels,
    files,
    groups,
    identity,
    issuers,
    jobs,
    keys,
    logs,
    replicas,
    roles,
    run,
    storage,
    tokens,
    trace,
    transfers,
    vos,
)
from gridlane.cli.exit_codes import ExitCode, exit_code_of_files
from gridlane.cli.terminal import fail, fail_call

if TYPE_CHECKING:
    from collections.abc import Mapping

_NOUNS: Final = {
    "job": jobs.app,
    "transfer": transfers.app,
    "storage": storage.app,
    "channel": channels.app,
    "replica": replicas.app,
    "role": roles.app,
    "vo": vos.app,
    "group": groups.app,
    "token": tokens.app,
    "issuer": issuers.app,
    "key": keys.app,
    "audit": audit.app,
}


def _tree(nouns: Mapping[str, typer.Typer]) -> typer.Typer:
    tree = typer.Typer(
        name="gridlane",
        help="Run jobs and move files through Gridlane. Where and as whom: GRIDLANE_ADDRESS and the"
        " bearer token discovery; without them, the server on this machine.",
        no_args_is_help=True,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
    )
    for name, commands in nouns.items():
        tree.add_typer(commands, name=name)
    return tree


app = _tree(_NOUNS)
for single in (run, files, logs, accounting, trace, identity, can):
    single.add_to(app)


def main() -> None:
    """The entry point of the command."""
    # It makes much and drops little; `session.connect` turns it on again.
    gc.disable()
    sys.exit(end_with(sys.argv[1:]))


def end_with(arguments: list[str]) -> int:
    """Run the command.

    Parameters:
        arguments: those after the command's name.

    Returns:
        The exit code (`exit_codes.py`).
    """
    noun = arguments[0] if arguments else ""
    # The other nouns' commands take longer to make than most calls.
    tree = _tree({noun: _NOUNS[noun]}) if noun in _NOUNS else app
    try:
        result = tree(args=arguments, prog_name="gridlane", standalone_mode=False)
        sys.stdout.flush()
    except typer.TyperException as error:
        return _usage(error)
    except (KeyboardInterrupt, typer.Abort):
        return ExitCode.CANCELLED
    except BrokenPipeError:
        # Whoever read the output has left; nothing more can be said there.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.INPUT_OUTPUT
    except (OSError, ValueError) as error:
        return _local(error)
    except Exception as error:
        return _failed_call(error)
    return result if isinstance(result, int) else ExitCode.OK


def _usage(error: typer.TyperException) -> int:
    """What typer and click raise for wrong options; their own exit code would be 2."""
    if not error.format_message():
        return ExitCode.USAGE  # nothing was asked for, and the help was shown
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "gridlane"
    fail(error.format_message(), ExitCode.USAGE, cure=f"{command} --help")
    return ExitCode.USAGE


def _local(error: OSError | ValueError) -> int:
    from gridlane.configuration import ConfigurationError
    from gridlane.tokens import TokenError

    code = ExitCode.BAD_INPUT
    if isinstance(error, ConfigurationError):
        code = ExitCode.CONFIGURATION
    elif isinstance(error, TokenError):
        code = ExitCode.DENIED
    elif isinstance(error, OSError):
        code = exit_code_of_files(error)
    fail(_said(error), code)
    return code


def _said(error: OSError | ValueError) -> str:
    """What went wrong: of a file its name and the system's word, without the word's number."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


def _failed_call(error: Exception) -> int:
    from gridlane.errors import GridlaneError

    if isinstance(error, GridlaneError):
        return fail_call(error)
    if os.environ.get("GRIDLANE_DEBUG"):
        raise error
    fail(
        f"a defect of this command: {type(error).__name__}: {error}",
        ExitCode.INTERNAL,
        cure="report it with what GRIDLANE_DEBUG=1 shows",
    )
    return ExitCode.INTERNAL
