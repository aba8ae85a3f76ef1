"""The command `gridlane`: its tree, and how it ends.

Responsible for putting the commands together, and for turning whatever went wrong into one message
and an exit code.
"""

from __future__ import annotations

import os
import sys

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

app = typer.Typer(
    name="gridlane",
    help="Run jobs and move files through Gridlane. Where and as whom: GRIDLANE_ADDRESS and the"
    " bearer token discovery; without them, the server on this machine.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
run.add_to(app)
files.add_to(app)
app.add_typer(jobs.app, name="job")
logs.add_to(app)
app.add_typer(transfers.app, name="transfer")
accounting.add_to(app)
trace.add_to(app)
identity.add_to(app)
can.add_to(app)
app.add_typer(storage.app, name="storage")
app.add_typer(channels.app, name="channel")
app.add_typer(replicas.app, name="replica")
app.add_typer(roles.app, name="role")
app.add_typer(vos.app, name="vo")
app.add_typer(groups.app, name="group")
app.add_typer(tokens.app, name="token")
app.add_typer(issuers.app, name="issuer")
app.add_typer(keys.app, name="key")
app.add_typer(audit.app, name="audit")


def main() -> None:
    """The entry point of the command."""
    sys.exit(end_with(sys.argv[1:]))


def end_with(arguments: list[str]) -> int:
    """Run the command.

    Parameters:
        arguments: those after the command's name.

    Returns:
        The exit code (`exit_codes.py`).
    """
    try:
        result = app(args=arguments, prog_name="gridlane", standalone_mode=False)
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
