"""What the command shows: tables and lines for people, JSON for programs, errors for both.

Responsible for the two streams and their form. Data goes to standard output, all else to standard
error. Colour and movement only on a terminal; NO_COLOR is honoured.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer

from gridlane.cli.exit_codes import ExitCode

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from rich.console import Console
    from rich.text import Text

    from gridlane.errors import GridlaneError, Violation

Format = Literal["text", "json"]
_Message = TypeVar("_Message", bound="Message")

# Wide enough for any row where nothing has to fit a screen.
_PIPE_WIDTH = 1_000
# Between two columns of a table.
_GAP = 2


class _Mode:
    """Whether this run of the command shows JSON."""

    json = False


def _choose(value: Format) -> Format:
    if value == "json":
        _Mode.json = True
    return value


#: The option of every command that prints data.
Output = Annotated[
    Format,
    typer.Option(
        "--output",
        "-o",
        help="text for people, json for programs.",
        callback=_choose,
        is_eager=True,  # what is wrong with the other options is told in this form
    ),
]


#: The option of every command that lists what can be much.
Limit = Annotated[int, typer.Option(min=1, help="At most this many.")]
#: The option of every command that changes the policy.
Reason = Annotated[str, typer.Option(help="Why; kept in the audit.")]
#: The option of every command that ends work.
ReasonShown = Annotated[str, typer.Option(help="Why; shown with what it ends.")]


def use_json(wanted: bool) -> None:
    """Show JSON, or not."""
    _Mode.json = wanted


def is_json() -> bool:
    """Whether JSON is to be shown."""
    return _Mode.json


@lru_cache(maxsize=1)
def out() -> Console:
    """Standard output."""
    from rich.console import Console

    return Console(soft_wrap=False, highlight=False, width=_width(sys.stdout.isatty()))


@lru_cache(maxsize=1)
def err() -> Console:
    """Standard error."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, width=_width(sys.stderr.isatty()))


def _width(terminal: bool) -> int | None:
    return None if terminal else _PIPE_WIDTH


def table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], empty: str, *, names: bool = True
) -> None:
    """Print rows for people.

    Parameters:
        columns: the headings, with marks before them. ">": stands to the right. On a terminal alone
            are left out: "?" when it says the same in every row, "-" when it says nothing in any,
            "~" when the terminal is too narrow for all, the last one first.
        rows: what to print; texts may carry rich's markup only when they were escaped with `plain`.
        empty: what to say, on standard error, when there are none.
        names: whether the first column has resource names, which are never broken.
    """
    from rich.table import Table

    terminal, found = sys.stdout.isatty(), list(rows)
    if not found:
        note(empty)
        return
    shown = list(range(len(columns)))
    left_out: list[str] = []
    if terminal:
        shown = [n for n in shown if not _says_nothing(columns[n], [row[n] for row in found])]
        shown, left_out = _that_fit(columns, found, shown)
    grid = Table(box=None, pad_edge=False, header_style="bold" if terminal else "")
    for number in shown:
        marks, heading = _marked(columns[number])
        grid.add_column(
            heading,
            justify="right" if ">" in marks else "left",
            overflow="fold",
            no_wrap=names and number == 0,
        )
    for row in found:
        grid.add_row(*(row[number] for number in shown))
    out().print(grid)
    if left_out:
        note(f"not shown, the terminal is too narrow: {', '.join(left_out)}")


def _marked(column: str) -> tuple[str, str]:
    """The marks before a heading, and the heading."""
    heading = column.lstrip(">?-~")
    return column.removesuffix(heading), heading


def _says_nothing(column: str, cells: Sequence[str]) -> bool:
    marks, _ = _marked(column)
    return ("?" in marks and len(set(cells)) == 1) or ("-" in marks and not any(cells))


def _that_fit(
    columns: Sequence[str], rows: Sequence[Sequence[str]], shown: Sequence[int]
) -> tuple[list[int], list[str]]:
    """Those of the columns that are shown that have room, and the headings of the others."""
    from rich.cells import cell_len
    from rich.text import Text

    def width(number: int) -> int:
        texts = (_marked(columns[number])[1], *(row[number] for row in rows))
        return max(cell_len(line) for text in texts for line in _lines(Text.from_markup(text)))

    room = out().width
    kept = list(shown)
    left_out: list[str] = []
    for number in reversed(shown):
        if sum(map(width, kept)) + _GAP * (len(kept) - 1) <= room:
            break
        marks, heading = _marked(columns[number])
        if "~" in marks:
            kept.remove(number)
            left_out.insert(0, heading)
    return kept, left_out


def _lines(text: Text) -> Sequence[str]:
    return text.plain.split("\n")


def details(pairs: Iterable[tuple[str, Any]]) -> None:
    """Print names and values for people, one a line; empty values are left out."""
    from rich.table import Table

    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold" if sys.stdout.isatty() else "")
    grid.add_column(overflow="fold")
    for name, value in pairs:
        if value:
            grid.add_row(name, value)
    out().print(grid)


def plain(text: str) -> str:
    """A text from outside, in which rich is to find no markup and a terminal no control
    characters.
    """
    from rich.markup import escape

    return escape("".join(c if c.isprintable() or c == "\n" else "�" for c in text))


def note(text: str) -> None:
    """Tell something beside the data."""
    err().print(plain(text), soft_wrap=True)


def line(text: str) -> None:
    """Print one line of data."""
    out().print(text, soft_wrap=True)


def show_json(value: Any) -> None:
    """Print one JSON value."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def show_json_line(value: Any) -> None:
    """Print one JSON value on one line, at once: for streams of them."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def as_dict(message: Message) -> dict[str, Any]:
    """A message in protobuf's JSON form, with the contracts' field names."""
    from google.protobuf.json_format import MessageToDict
    from google.rpc import error_details_pb2  # noqa: F401 - a status within it holds some of them

    converted: dict[str, Any] = MessageToDict(message, preserving_proto_field_name=True)
    return converted


def show_message(message: Message, pairs: Iterable[tuple[str, str]], output: Format) -> None:
    """Print one message: its JSON, or what people read of it, as `details` takes it."""
    if output == "json":
        show_json(as_dict(message))
    else:
        details(pairs)


def show_list(
    found: Sequence[_Message],
    columns: Sequence[str],
    row: Callable[[_Message], Sequence[str]],
    empty: str,
    output: Format,
    *,
    names: bool = True,
) -> None:
    """Print what a listing found: a JSON list, or a table, as `table` takes it.

    Parameters:
        row: makes a row of what was found.
    """
    if output == "json":
        show_messages(found)
    else:
        table(columns, map(row, found), empty, names=names)


def show_revision(done: str, revision: int, output: Format) -> None:
    """Print the revision of the policy that something led to.

    Parameters:
        done: what was done, "deleted".
    """
    if output == "json":
        show_json({"policy_revision": str(revision)})
    else:
        line(f"{done} with revision {revision} of the policy")


def show_done(what: str, output: Format) -> None:
    """Print what was done by a verb that answers nothing: its JSON is {}."""
    if output == "json":
        show_json({})
    else:
        line(plain(what))


def show_messages(messages: Iterable[Message]) -> None:
    """Print messages as a JSON list."""
    show_json([as_dict(message) for message in messages])


def fail(
    message: str,
    code: int,
    *,
    reason: str = "",
    problems: Sequence[str] = (),
    cure: str = "",
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Tell what went wrong: once, with the cure and the exit code.

    Parameters:
        message: what happened.
        code: the exit code that the command will end with.
        reason: the word for it.
        problems: what is wrong in detail.
        cure: what to do about it.
        extra: further fields of the JSON form.
    """
    if is_json():
        error = {"reason": reason, "message": message, "problems": list(problems), "cure": cure}
        show_json({"exit_code": code, "exit_code_of": "client", "error": error, **(extra or {})})
        return
    head = f"[bold red]error[/]{f' {plain(reason)}' if reason else ''}: {plain(message)}"
    err().print(head, soft_wrap=True)
    for problem in problems:
        err().print(f"  - {plain(problem)}", soft_wrap=True)
    if cure:
        err().print(f"[bold]cure:[/] {plain(cure)}", soft_wrap=True)
    err().print(f"[dim]exit code {code}[/]", soft_wrap=True)


_CURES: Mapping[str, str] = {
    "TOKEN_MISSING": "name a token: BEARER_TOKEN, BEARER_TOKEN_FILE, or the server's token file"
    " through GRIDLANE_DATA_DIR",
    "TOKEN_INVALID": "use a token of an issuer that this server trusts; `gridlane whoami` tries it",
    "TOKEN_EXPIRED": "get a new token",
    "PERMISSION_DENIED": "ask a manager of the VO, or an administrator, for a role that allows it;"
    " `gridlane whoami` lists yours, `gridlane can` says which is missing",
    "CALLER_VETOED": "ask an administrator why; nothing else helps",
    "REVISION_CONFLICT": "somebody else changed it: look at it again, then try again",
    "LAST_ADMIN": "make somebody else an administrator first: `gridlane role grant admin`",
    "IN_USE": "delete first what names it",
    "SCOPE_TOO_NARROW": "use a token with more scopes",
    "NO_STORAGE_ELEMENT": "`gridlane storage list` says what is served; a local path needs"
    " `gridlane put` first",
    "NOT_FOUND": "check the name; what another user owns looks as if it were not there",
    "ALREADY_EXISTS": "choose another name, or replace it with --overwrite where there is such an"
    " option",
    "OVERLOADED": "try again in a moment",
    "NO_SPACE": "make room, or use another storage element",
    "NOT_IMPLEMENTED": "use a newer server",
    "PEER_UNAVAILABLE": "`gridlane ping` says which service is away; try again when it is back",
    "UNAVAILABLE": "see whether the server runs (`gridlane-server all`) and whether"
    " GRIDLANE_ADDRESS names it",
    "DEADLINE_EXCEEDED": "try again; `gridlane ping` says which service is slow",
}


def fail_call(error: GridlaneError, extra: Mapping[str, Any] | None = None) -> int:
    """Tell why a call failed.

    Returns:
        The exit code.
    """
    from gridlane.cli.exit_codes import exit_code_of_status

    code = exit_code_of_status(error.code.name)
    reason = error.reason or error.code.name
    listed = _listed(error.violations, error.message, reason)
    message = "the request is wrong" if listed else error.message
    problems = [
        _problem(violation)
        for violation in error.violations
        if listed or is_json() or violation.description not in message
    ]
    if code is ExitCode.INTERNAL and error.trace_id:
        problems.append(f"the servers' logs have more under the trace id {error.trace_id}")
    if error.help_url:
        problems.append(f"more: {error.help_url}")
    cure = _CURES.get(reason) or _CURES.get(error.code.name, "")
    fail(message, code, reason=reason, problems=problems, cure=cure, extra=extra)
    return code


def fail_calls(errors: Sequence[GridlaneError], done: Sequence[Message] = ()) -> int:
    """Tell why some of many items were refused.

    Parameters:
        errors: at least one; of several the JSON form has each in `errors`, the first as `error`.
        done: the others, for the JSON form.

    Returns:
        The exit code, that of the first.
    """
    if not is_json():
        codes = [fail_call(error) for error in errors]
        return codes[0]
    extra: dict[str, Any] = {}
    if done:
        extra["done"] = list(map(as_dict, done))
    if len(errors) > 1:
        extra["errors"] = [{"reason": one.reason, "message": one.message} for one in errors]
    return fail_call(errors[0], extra)


def _problem(violation: Violation) -> str:
    # A server that leaves some out says in the last one how many.
    joint = " " if violation.field == "…" else ": "
    return f"{violation.field}{joint}{violation.description}"


def _listed(violations: Sequence[Violation], message: str, reason: str) -> bool:
    """Whether a message only begins to say what its violations do, each with its field."""
    return bool(violations) and (
        reason == "INVALID_FIELDS" or message.startswith(_problem(violations[0]))
    )
