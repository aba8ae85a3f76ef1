"""The states of a job and the ways between them, as data.

Responsible for DIRAC's sixteen states, its sixty transitions, and which states are final. Not for
who makes a transition, nor when (`jobs`, `steps`). The table is DIRAC's `JobStateMachine` (DIRAC
9.1); `docs/reference/states.md` shows it.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, TypeAlias

from gridlane.workload.v1.job_pb2 import JobState
from gridlane_kit import errors

State: TypeAlias = JobState.ValueType
"""One of the states."""

_TABLE: Final = """
Submitting  > Received Checking Deleted Killed
Received    > Scouting Checking Staging Waiting Failed Deleted Killed
Checking    > Scouting Staging Waiting Rescheduled Failed Deleted Killed
Scouting    > Checking Failed Stalled Killed
Staging     > Checking Waiting Failed Killed
Waiting     > Matched Rescheduled Deleted Killed
Matched     > Running Failed Rescheduled Killed
Rescheduled > Waiting Received Deleted Failed Killed
Running     > Stalled Done Failed Rescheduled Completing Killed Received
Stalled     > Running Failed Killed
Completing  > Done Failed Completed Stalled Killed
Completed   > Done Failed
Done        > Deleted
Failed      > Rescheduled Deleted
Killed      > Deleted
Deleted     >
"""


def _state(word: str) -> State:
    return JobState.Value(f"JOB_STATE_{word.upper()}")


def _read(table: str) -> Mapping[State, frozenset[State]]:
    rows = (line.split(">") for line in table.strip().splitlines())
    return MappingProxyType(
        {_state(origin.strip()): frozenset(map(_state, ends.split())) for origin, ends in rows}
    )


TRANSITIONS: Final = _read(_TABLE)
"""For each state, those that may follow it."""

FINAL: Final = frozenset(map(_state, ("Done", "Completed", "Failed", "Killed", "Deleted")))
"""DIRAC's final states and the really final one. COMPLETED is final there, and not yet success."""

ENDED: Final = FINAL - {_state("Completed")}
"""States in which nothing happens by itself any more."""

BEFORE_START: Final = frozenset(
    map(
        _state,
        ("Submitting", "Received", "Checking", "Staging", "Scouting", "Waiting", "Rescheduled"),
    )
)
"""States in which no backend has the payload: a kill is carried out at once."""

AT_BACKEND: Final = frozenset(map(_state, ("Matched", "Running", "Stalled")))
"""States in which the backend has the payload, which takes up one of its places."""


RECEIVED: Final = _state("Received")
CHECKING: Final = _state("Checking")
STAGING: Final = _state("Staging")
WAITING: Final = _state("Waiting")
MATCHED: Final = _state("Matched")
RESCHEDULED: Final = _state("Rescheduled")
RUNNING: Final = _state("Running")
COMPLETING: Final = _state("Completing")
DONE: Final = _state("Done")
FAILED: Final = _state("Failed")
KILLED: Final = _state("Killed")


def word(state: State) -> str:
    """The state as the API's filters and messages write it: "RUNNING"."""
    return JobState.Name(state).removeprefix("JOB_STATE_")


def parse(text: str) -> State:
    """Read a state as filters write it.

    Raises:
        ValueError: there is no such state.
    """
    known = {word(state): state for state in TRANSITIONS}
    try:
        return known[text]
    except KeyError:
        raise ValueError(f"{text!r} is not one of {', '.join(known)}") from None


def require(name: str, origin: State, target: State) -> None:
    """Refuse a transition that the table does not have.

    Parameters:
        name: the job's, for the message.

    Raises:
        GridlaneError: ILLEGAL_TRANSITION.
    """
    if target not in TRANSITIONS[origin]:
        allowed = [word(state) for state in sorted(TRANSITIONS[origin])]
        raise errors.illegal_transition(name, word(origin), word(target), allowed)


class Minor:
    """Minor statuses: DIRAC's own words (its `JobMinorStatus`), as far as this version says
    them."""

    ACCEPTED: Final = "Job accepted"
    RESOLVING: Final = "Resolving Input Data"
    BRINGING: Final = "Downloading InputSandbox"
    NOT_BROUGHT: Final = "Failed Downloading InputSandbox"
    QUEUED: Final = "Pilot Agent Submission"
    STARTING: Final = "Initializing Job"
    EXECUTING: Final = "Executing Payload"
    FINISHED: Final = "Application Finished Successfully"
    FINISHED_BADLY: Final = "Application Finished With Errors"
    NOT_FOUND: Final = "Application not found"
    WALLTIME: Final = "Job has exceeded maximum wall clock time"
    STALLED: Final = "Watchdog identified this job as stalled"
    EXCEPTION: Final = "Exception During Execution"
    DELIVERING: Final = "Uploading Output Data"
    COMPLETE: Final = "Execution Complete"
    KILLED: Final = "Marked for termination"
    RESCHEDULED: Final = "Job Rescheduled"
