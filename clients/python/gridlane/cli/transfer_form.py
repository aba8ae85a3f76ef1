"""What several commands of `gridlane transfer` are given: a job's name, single files, a state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

Name = Annotated[str, typer.Argument(metavar="TRANSFER", help="transfers/<uuid>, or the bare id.")]
Names = Annotated[
    list[str], typer.Argument(metavar="TRANSFER", help="transfers/<uuid>, or the bare id.")
]
SingleFiles = Annotated[
    list[int] | None,
    typer.Option(
        min=1, help="Only this file, by its number in the one job; several times for several."
    ),
]
Wait = Annotated[bool, typer.Option("--wait", help="Stay until it has ended.")]
Vo = Annotated[str | None, typer.Option(help="Only of this VO.")]
Job = Annotated[str | None, typer.Option(help="Only those of this job.")]


def _job_states() -> list[str]:
    from gridlane.states import enum_words
    from gridlane.transfer.v1.transfer_job_pb2 import TransferJobState

    return enum_words(TransferJobState, "TRANSFER_JOB_STATE_")


def _file_states() -> list[str]:
    from gridlane.states import enum_words
    from gridlane.transfer.v1.transfer_job_pb2 import FileTransferState

    return enum_words(FileTransferState, "FILE_TRANSFER_STATE_")


def _complete(words: Callable[[], list[str]]) -> Callable[[str], list[str]]:
    def complete(incomplete: str) -> list[str]:
        found = [word for word in words() if word.startswith(incomplete.upper())]
        return [word.lower() for word in found] if incomplete.islower() else found

    return complete


def _one_of(words: Callable[[], list[str]]) -> Callable[[str | None], str | None]:
    def check(given: str | None) -> str | None:
        if given is not None and given.upper() not in words():
            raise typer.BadParameter(f"{given!r} is no state: expected {', '.join(words())}")
        return given

    return check


JobState = Annotated[
    str | None,
    typer.Option(
        help="Only in this state, as ACTIVE.",
        callback=_one_of(_job_states),
        autocompletion=_complete(_job_states),
    ),
]
FileState = Annotated[
    str | None,
    typer.Option(
        help="Only files in this state, as FAILED.",
        callback=_one_of(_file_states),
        autocompletion=_complete(_file_states),
    ),
]
