"""What the options of `gridlane transfer submit` ask of a transfer job and of its one file.

Responsible for the words of these options, for the fields that they set, and for telling what a job
was asked for. What is acceptable, and what a backend can do of it, is the server's to say.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gridlane.cli import units
from gridlane.cli.files import remote
from gridlane.cli.terminal import plain

if TYPE_CHECKING:
    from google.protobuf.duration_pb2 import Duration

    from gridlane.transfer.v1.transfer_job_pb2 import FileTransfer, TransferJob

#: The tag by which a job's transfers name it.
JOB_TAG = "gridlane.job"

_ONE_FILE = "Of the one file"
_TIME = "Retries and limits of time"


def _words(kind: str) -> list[str]:
    """What an option that takes a value of an enum may say: "on-retry"."""
    from gridlane.states import enum_words

    enum, prefix = _enum(kind)
    return [word.lower().replace("_", "-") for word in enum_words(enum, prefix)]


def _enum(kind: str) -> tuple[Any, str]:
    from gridlane.transfer.v1 import selection_strategy_pb2, transfer_job_pb2

    return {
        "overwrite": (transfer_job_pb2.OverwriteMode, "OVERWRITE_MODE_"),
        "verify": (transfer_job_pb2.VerifyMode, "VERIFY_MODE_"),
        "selection_strategy": (
            selection_strategy_pb2.SelectionStrategy,
            "SELECTION_STRATEGY_",
        ),
    }[kind]


def _complete(kind: str) -> Callable[[str], list[str]]:
    return lambda incomplete: [word for word in _words(kind) if word.startswith(incomplete)]


def _one_of(kind: str) -> Callable[[str | None], str | None]:
    def check(given: str | None) -> str | None:
        if given is not None and given not in _words(kind):
            raise typer.BadParameter(f"{given!r}: expected one of {', '.join(_words(kind))}")
        return given

    return check


Checksum = Annotated[
    str | None,
    typer.Option(
        metavar="ALGORITHM:VALUE", help="That the file must have.", rich_help_panel=_ONE_FILE
    ),
]
Size = Annotated[
    str | None,
    typer.Option(
        metavar="BYTES", help="That the file must have, as 512M or 1024.", rich_help_panel=_ONE_FILE
    ),
]
Alternatives = Annotated[
    list[str] | None,
    typer.Option(
        "--alternative",
        metavar="SOURCE",
        help="Where the same bytes may be had; several times for several.",
        rich_help_panel=_ONE_FILE,
    ),
]
Via = Annotated[
    list[str] | None,
    typer.Option(
        metavar="STOP",
        help="Where it stops on the way: storageElements/<name>, or a URL; in order.",
        rich_help_panel=_ONE_FILE,
    ),
]
Placement = Annotated[
    bool | None,
    typer.Option(
        help="Register targets that are logical file names.",
        show_default="--placement",
    ),
]
OverwriteWhen = Annotated[
    str | None,
    typer.Option(
        metavar="MODE",
        help="When to replace what is at a target: never, always, on-retry, when-different, ...",
        callback=_one_of("overwrite"),
        autocompletion=_complete("overwrite"),
    ),
]
Verify = Annotated[
    str | None,
    typer.Option(
        metavar="ENDS",
        help="Which checksums are compared: both, source, target, none.",
        callback=_one_of("verify"),
        autocompletion=_complete("verify"),
    ),
]
Strategy = Annotated[
    str | None,
    typer.Option(
        metavar="STRATEGY",
        help="Which source comes first: orderly, auto, success, ...",
        callback=_one_of("selection_strategy"),
        autocompletion=_complete("selection_strategy"),
    ),
]
MaxRetries = Annotated[
    int | None,
    typer.Option(min=0, max=256, help="How often a file is tried again.", rich_help_panel=_TIME),
]
RetryDelay = Annotated[
    str | None,
    typer.Option(
        metavar="DURATION",
        help="How long a file waits before it is tried again, as 30s.",
        rich_help_panel=_TIME,
    ),
]
MaxTimeInQueue = Annotated[
    str | None,
    typer.Option(
        metavar="DURATION",
        help="A file that has not started after it fails, as 2d.",
        rich_help_panel=_TIME,
    ),
]
Timeout = Annotated[
    str | None,
    typer.Option(
        metavar="DURATION", help="For one attempt of one file, as 1h.", rich_help_panel=_TIME
    ),
]
ExpireIn = Annotated[
    str | None,
    typer.Option(
        metavar="DURATION",
        help="What has not ended after it is cancelled, as 7d.",
        rich_help_panel=_TIME,
    ),
]
Streams = Annotated[int | None, typer.Option(min=1, max=64, help="For one file, at most.")]
Protocols = Annotated[
    list[str] | None,
    typer.Option(
        "--protocol", metavar="SCHEME", help="That may be used, as https; the preferred one first."
    ),
]
StrictCopy = Annotated[
    bool | None,
    typer.Option(
        "--strict-copy/--no-strict-copy",
        help="Copy, and do nothing else: no check, no directory made.",
    ),
]
DisableCleanup = Annotated[
    bool | None,
    typer.Option("--disable-cleanup", help="Leave what a failed attempt wrote."),
]
ReportTarget = Annotated[
    bool | None,
    typer.Option("--report-target-file", help="Tell what lies at a target that exists."),
]
Metadata = Annotated[
    str | None, typer.Option(metavar="JSON", help="Your own data about the job, kept as it is.")
]
Backend = Annotated[str | None, typer.Option(metavar="NAME", help="The backend that moves it.")]
Params = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        dir_okay=False,
        help="JSON with the fields of a TransferJob, but for its files; options win.",
    ),
]


def set_options(job: TransferJob, options: Mapping[str, Any]) -> None:
    """Set what the options ask of a job; the fields of --params first, so that options win.

    Parameters:
        options: the command's, by name; None or empty: not given.

    Raises:
        typer.BadParameter: one has not its form.
        ValueError: the file of --params is no such JSON.
        OSError: it cannot be read.
    """
    if options["overwrite"] and options["overwrite_mode"] not in (None, "always"):
        raise typer.BadParameter("--overwrite is --overwrite-mode always: give one of them")
    if options["params"] is not None:
        _merge(job, options["params"])
    for option, (field, put) in _FIELDS.items():
        if options[option] not in (None, "", []):
            put(job, field, option, options[option])


def asked(job: TransferJob) -> Iterator[tuple[str, str]]:
    """What a job was asked for, as names and values for people; empty where nothing was."""
    yield "overwrite", _word("overwrite", job.overwrite).replace("never", "")
    yield "verify", _word("verify", job.verify).replace("both", "")
    yield "retries", str(job.max_retries) if job.HasField("max_retries") else ""
    yield "retry delay", _lasting(job.retry_delay)
    yield "time in queue", _lasting(job.max_time_in_queue)
    yield "attempt time", _lasting(job.timeout)
    yield "expires", units.local_time(job.expire_time)
    yield "strategy", _word("selection_strategy", job.selection_strategy)
    yield "protocols", plain(", ".join(job.protocols))
    yield "streams", str(job.streams or "")
    yield "strict copy", ("yes" if job.strict_copy else "no") if job.HasField("strict_copy") else ""
    yield "backend", plain(job.backend.rpartition("/")[2])
    yield "metadata", plain(job.metadata)
    tags = (f"{key}={value}" for key, value in sorted(job.tags.items()) if key != JOB_TAG)
    yield "tags", plain(", ".join(tags))


def new_listed_file(source: str, target: str, options: Mapping[str, Any]) -> FileTransfer:
    """The one file of a command line.

    Raises:
        typer.BadParameter: an end, or the checksum or size, has not its form.
    """
    from gridlane.checksums import parse_checksum
    from gridlane.transfer.v1.transfer_job_pb2 import FileTransfer

    file = FileTransfer(
        source=remote(source),
        target=remote(target),
        alternative_sources=[remote(one) for one in options["alternative"] or ()],
        via=[one if _is_element(one) else remote(one) for one in options["via"] or ()],
    )
    checksum = units.parse_option("--checksum", options["checksum"], parse_checksum)
    if checksum is not None:
        file.checksum.CopyFrom(checksum)
    size = units.parse_option("--size", options["size"], units.parse_size)
    if size is not None:
        file.size_bytes = size
    return file


def refuse_single(options: Mapping[str, Any]) -> None:
    """Refuse options that belong to one file beside a list.

    Raises:
        typer.BadParameter: one is given.
    """
    for option in ("checksum", "size", "alternative", "via"):
        if options[option]:
            raise typer.BadParameter(f"--{option} is of one file: a list says it for each of its")


def _word(kind: str, number: int) -> str:
    from gridlane.states import enum_word

    enum, prefix = _enum(kind)
    return enum_word(enum, number, prefix).lower().replace("_", "-") if number else ""


def _lasting(time: Duration) -> str:
    seconds = units.seconds_of(time)
    return units.duration(seconds) if seconds else ""


def _is_element(stop: str) -> bool:
    return stop.startswith("storageElements/")


def _merge(job: TransferJob, path: Path) -> None:
    from google.protobuf.json_format import ParseDict, ParseError

    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: no JSON: {error}") from error
    if not isinstance(fields, dict):
        raise ValueError(f"{path}: no JSON object")
    if "files" in fields:
        raise ValueError(f"{path}: files are no parameters: list them with --from")
    try:
        ParseDict(fields, job)
    except ParseError as error:
        # Behind its first line protobuf lists every field, in a spelling of its own.
        raise ValueError(f"{path}: {str(error).partition(chr(10))[0].rstrip('.')}") from error


def _plain(job: TransferJob, field: str, option: str, value: Any) -> None:
    setattr(job, field, value)


def _several(job: TransferJob, field: str, option: str, value: list[str]) -> None:
    del getattr(job, field)[:]
    getattr(job, field).extend(value)


def _enumerated(job: TransferJob, field: str, option: str, value: str) -> None:
    enum, prefix = _enum(field)
    setattr(job, field, enum.Value(prefix + value.upper().replace("-", "_")))


def _duration(job: TransferJob, field: str, option: str, value: str) -> None:
    name = f"--{option.replace('_', '-')}"
    getattr(job, field).FromTimedelta(units.parse_option(name, value, units.parse_duration))


def _from_now(job: TransferJob, field: str, option: str, value: str) -> None:
    name = f"--{option.replace('_', '-')}"
    passed = units.parse_option(name, value, units.parse_duration)
    getattr(job, field).FromDatetime(datetime.now(UTC) + passed)


def _pairs(job: TransferJob, field: str, option: str, value: list[str]) -> None:
    for pair in value:
        key, equals, text = pair.partition("=")
        if not equals:
            raise typer.BadParameter(f"--{option} {pair!r}: expected KEY=VALUE")
        getattr(job, field)[key] = text


def _always(job: TransferJob, field: str, option: str, value: bool) -> None:
    if value:
        _enumerated(job, field, option, "always")


def _backend(job: TransferJob, field: str, option: str, value: str) -> None:
    setattr(job, field, f"transferBackends/{value.removeprefix('transferBackends/')}")


# The field that each option sets, and how.
_FIELDS: Mapping[str, tuple[str, Callable[[TransferJob, str, str, Any], None]]] = {
    "vo": ("vo", _plain),
    "placement": ("placement", _plain),
    "overwrite": ("overwrite", _always),
    "overwrite_mode": ("overwrite", _enumerated),
    "verify": ("verify", _enumerated),
    "max_retries": ("max_retries", _plain),
    "retry_delay": ("retry_delay", _duration),
    "max_time_in_queue": ("max_time_in_queue", _duration),
    "timeout": ("timeout", _duration),
    "expire_in": ("expire_time", _from_now),
    "priority": ("priority", _plain),
    "activity": ("activity", _plain),
    "strategy": ("selection_strategy", _enumerated),
    "protocol": ("protocols", _several),
    "streams": ("streams", _plain),
    "strict_copy": ("strict_copy", _plain),
    "disable_cleanup": ("disable_cleanup", _plain),
    "report_target_file": ("report_target_file", _plain),
    "tag": ("tags", _pairs),
    "metadata": ("metadata", _plain),
    "backend": ("backend", _backend),
}
