"""The reference page of the vocabularies: Gridlane's states and priorities in others' words.

Responsible for the page's form; every word on it is from `gridlane.vocabularies`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from gridlane.transfer.v1.transfer_job_pb2 import FileTransferState, TransferJobState
from gridlane.type.v1.failure_pb2 import FailureClass
from gridlane.vocabularies import jobs, priorities, transfers, workflows
from gridlane.workload.v1.job_pb2 import JobPhase, JobState
from gridlane.workload.v1.workflow_pb2 import WorkflowState
from gridlane.workload.v1.workflow_report_pb2 import WorkflowNodeState

_INTRODUCTION: Final = """\
# Vocabularies

What Gridlane's states and priorities are called elsewhere. The tables are data in the client
package, `gridlane.vocabularies`, for services, doors and plugins alike. Each is total: every state
has a word. A foreign word that no table has becomes UNKNOWN, which is never final, and stands
beside it as it was said (`backend_state`).
"""
_TRANSFERS: Final = """
## Transfer jobs

A word with a \\* is read as the state of its row; the others are said and never read. The last two
columns are the statuses of DIRAC's FTS3Job and of the FTS3Operation that the job carries out: it is
Processed while the catalogue is owed, and Finished when no file can change any more, whatever
became of single files.

| Gridlane | gLite | FTS3 | FTS3Job | FTS3Operation |
|---|---|---|---|---|"""
_FILES: Final = """
## File transfers

The same for files; the last column is the status of DIRAC's FTS3File. DIRAC hands a Failed file in
again, so one that trying again cannot help is Defunct.

| Gridlane | gLite | FTS3 | FTS3File |
|---|---|---|---|"""
_JOBS: Final = """
## Jobs

The first row that fits a job says what it is called. DIRAC's word is the state's own in every row;
the minor status of a held job begins with "On Hold: ". What has ended is neither held nor unknown.

| | states | only when | BPS | bartender | TES | Slurm |
|---|---|---|---|---|---|---|"""
_SLURM: Final = """
## Slurm's words read

COMPLETED says that the payload ended well; outputs may still have to be moved. Other words are
UNKNOWN: the last known state stays.

| Slurm | Gridlane | phase | held | failure class |
|---|---|---|---|---|"""
_WORKFLOWS: Final = """
## Workflows

What BPS calls a run, and the jobs of its report. A state of a later version is a MISFIT.

| workflow | BPS | held |
|---|---|---|"""
_NODES: Final = """
| node | BPS |
|---|---|"""
_PRIORITIES: Final = """
## Priorities

DIRAC's are those of Gridlane's jobs, FTS3's those of its transfers; in all three more is sooner.
An unset priority stays unset. The defaults ({0}, {1}, {2}) are taken to each other, both ends are
kept, and no order is turned round. FTS3's priority comes back as the one with a \\*, its 2 as 0.
BPS's integers beyond the ends count as the ends.

| DIRAC | FTS3 | BPS |
|---|---|---|"""


class _Said(NamedTuple):
    """A word, and whether it is read as the state that says it."""

    word: str
    read: bool

    def __str__(self) -> str:
        return f"{self.word} \\*" if self.read else self.word


def vocabularies_page() -> Iterator[str]:
    """The tables of `gridlane.vocabularies`."""
    yield _INTRODUCTION.rstrip()
    yield _TRANSFERS
    yield from map(_row, _transfer_jobs())
    yield _FILES
    yield from map(_row, _files())
    yield _JOBS
    yield from map(_row, map(_job, jobs.ROWS))
    yield _SLURM
    yield from map(_row, _slurm())
    yield _WORKFLOWS
    yield from map(_row, _workflows())
    yield _NODES
    yield from map(_row, _nodes())
    yield _PRIORITIES.format(
        priorities.DIRAC_DEFAULT, priorities.FTS3_DEFAULT, priorities.BPS_DEFAULT
    )
    yield from map(_row, _priorities())


def _transfer_jobs() -> Iterator[list[str]]:
    for state, words in transfers.JOB_WORDS.items():
        yield [
            TransferJobState.Name(state).removeprefix("TRANSFER_JOB_STATE_"),
            _by_kind(
                _Said(words.glite, transfers.JOB_OF_GLITE[words.glite] == state),
                transfers.GLITE_PLACEMENT_JOB.get(state),
                transfers.PLACEMENT_JOB_OF_GLITE.get(words.glite) == state,
            ),
            str(_Said(words.fts3, transfers.JOB_OF_FTS3[words.fts3] == state)),
            str(_Said(words.dirac, transfers.JOB_OF_DIRAC[words.dirac] == state)),
            str(_Said(words.operation, transfers.JOB_OF_DIRAC_OPERATION[words.operation] == state)),
        ]


def _files() -> Iterator[list[str]]:
    for state, words in transfers.FILE_WORDS.items():
        yield [
            FileTransferState.Name(state).removeprefix("FILE_TRANSFER_STATE_"),
            _by_kind(
                _Said(words.glite, transfers.FILE_OF_GLITE[words.glite] == state),
                transfers.GLITE_PLACEMENT_FILE.get(state),
                transfers.PLACEMENT_FILE_OF_GLITE.get(words.glite) == state,
            ),
            _with_others(state, words.fts3, transfers.FILE_OF_FTS3)
            + _once_moved(transfers.FTS3_MOVED_FILE.get(state)),
            _with_others(state, words.dirac, transfers.FILE_OF_DIRAC)
            + _once_moved(transfers.DIRAC_MOVED_FILE.get(state)),
        ]


def _by_kind(plain: _Said, placement: str | None, read_of_placement: bool) -> str:
    """gLite's word of a plain job, and what differs for placement."""
    if placement:
        return f"plain {plain}, placement {_Said(placement, True)}"
    return f"{plain}, of placement \\*" if read_of_placement else str(plain)


def _with_others(state: int, word: str, table: Mapping[str, int]) -> str:
    """A word, and the others that are read as the same state."""
    said = str(_Said(word, table[word] == state))
    others = [other for other, read in table.items() if read == state and other != word]
    return f"{said} (read also: {', '.join(others)})" if others else said


def _once_moved(word: str | None) -> str:
    return f", once moved {word}" if word else ""


def _job(row: jobs.Row) -> list[str]:
    conditions = [f"phase {_phase(row.phase)}"] if row.phase else []
    conditions += ["held"] if row.held else []
    conditions += ["the backend's word is unmapped"] if row.misfit else []
    if row.failures:
        conditions.append(f"class {_names(map(_failure, sorted(row.failures)))}")
    states = sorted(row.states)
    return [
        row.meaning,
        _names(jobs.DIRAC[state] for state in states),
        ", ".join(conditions),
        row.bps,
        row.bartender,
        row.tes,
        ", ".join(row.slurm),
    ]


def _slurm() -> Iterator[list[str]]:
    for word, meaning in jobs.SLURM.items():
        yield [word, *_meaning(meaning)]
    for reason, meaning in jobs.SLURM_PENDING.items():
        yield [f"PENDING ({reason})", *_meaning(meaning)]


def _meaning(meaning: jobs.Meaning) -> list[str]:
    return [
        JobState.Name(meaning.state).removeprefix("JOB_STATE_"),
        _phase(meaning.phase) if meaning.phase else "",
        "held" if meaning.held else "",
        _failure(meaning.failure_class) if meaning.failure_class else "",
    ]


def _workflows() -> Iterator[list[str]]:
    for state, word in workflows.BPS.items():
        name = WorkflowState.Name(state).removeprefix("WORKFLOW_STATE_")
        yield [name, word, workflows.bps_state(state, held=True)]


def _nodes() -> Iterator[list[str]]:
    for state, word in workflows.NODE_BPS.items():
        yield [WorkflowNodeState.Name(state).removeprefix("WORKFLOW_NODE_STATE_"), word]


def _priorities() -> Iterator[list[str]]:
    for dirac, fts3 in priorities.FTS3_OF_DIRAC.items():
        yield [
            str(_Said(str(dirac), priorities.DIRAC_OF_FTS3[fts3] == dirac)),
            str(fts3),
            str(priorities.bps_from_dirac(dirac)),
        ]


def _phase(phase: jobs.Phase) -> str:
    return JobPhase.Name(phase).removeprefix("JOB_PHASE_")


def _failure(failure_class: jobs.Failure) -> str:
    return FailureClass.Name(failure_class).removeprefix("FAILURE_CLASS_")


def _names(words: Iterable[str]) -> str:
    return ", ".join(words)


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
