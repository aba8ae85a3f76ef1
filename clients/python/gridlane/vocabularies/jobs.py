"""The states of jobs in the words of DIRAC, BPS, bartender, TES and Slurm.

Responsible for one table, `ROWS`, that turns what Gridlane knows of a job (state, phase, whether it
is held, the class of its failure, a backend's word that nobody maps) into what each system says,
and for reading the words of DIRAC and Slurm. The table is total: a state of a later version is a
word that nobody maps. Not for transitions (the workload service), nor for what a door makes of a
word.

Sources: `JobStatus` of DIRAC 9.1, whose sixteen states are Gridlane's; `WmsStates` of
lsst.ctrl.bps; the states that bartender's schedulers answer; `State` of GA4GH TES 1.1; Slurm's job
state codes and the reasons why jobs are pending.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal, NamedTuple, TypeAlias

from gridlane.type.v1.failure_pb2 import FailureClass
from gridlane.workload.v1.job_pb2 import JobPhase, JobState

State: TypeAlias = JobState.ValueType
Phase: TypeAlias = JobPhase.ValueType
Failure: TypeAlias = FailureClass.ValueType

BpsState: TypeAlias = Literal[
    "UNKNOWN",
    "MISFIT",
    "UNREADY",
    "READY",
    "PENDING",
    "RUNNING",
    "DELETED",
    "HELD",
    "SUCCEEDED",
    "FAILED",
    "PRUNED",
]
BartenderState: TypeAlias = Literal["queued", "running", "ok", "error"]
TesState: TypeAlias = Literal[
    "UNKNOWN",
    "QUEUED",
    "INITIALIZING",
    "RUNNING",
    "PAUSED",
    "COMPLETE",
    "EXECUTOR_ERROR",
    "SYSTEM_ERROR",
    "CANCELED",
    "CANCELING",
]

_C, _P, _J = FailureClass, JobPhase, JobState

_NO_PHASE: Final = _P.JOB_PHASE_UNSPECIFIED
_NO_FAILURE: Final = _C.FAILURE_CLASS_UNSPECIFIED

PAYLOAD_FAILURES: Final = frozenset(
    {
        _C.FAILURE_CLASS_PAYLOAD_EXIT,
        _C.FAILURE_CLASS_PAYLOAD_SIGNAL,
        _C.FAILURE_CLASS_COMMAND_NOT_FOUND,
    }
)
"""The classes that say how the payload's own command ended; all others are the system's, those of
limits that it went beyond included (Slurm: OUT_OF_MEMORY, TIMEOUT)."""

_BEFORE_START: Final = frozenset(
    {
        _J.JOB_STATE_SUBMITTING,
        _J.JOB_STATE_RECEIVED,
        _J.JOB_STATE_CHECKING,
        _J.JOB_STATE_SCOUTING,
        _J.JOB_STATE_RESCHEDULED,
        _J.JOB_STATE_WAITING,
        _J.JOB_STATE_MATCHED,
        _J.JOB_STATE_STAGING,
    }
)
_STARTED: Final = frozenset(
    {
        _J.JOB_STATE_RUNNING,
        _J.JOB_STATE_STALLED,
        _J.JOB_STATE_COMPLETING,
        _J.JOB_STATE_COMPLETED,
    }
)


@dataclass(frozen=True, slots=True)
class Row:
    """What is said of the jobs that are as the row says. What it leaves at its default may be
    anything."""

    #: For people.
    meaning: str
    states: frozenset[State]
    bps: BpsState
    bartender: BartenderState
    tes: TesState
    #: What Slurm may be saying meanwhile, with the reason in parentheses; empty: it has no part in
    #: this.
    slurm: tuple[str, ...] = ()
    phase: Phase = _NO_PHASE
    #: Only jobs that are held.
    held: bool = False
    #: Only jobs that failed with one of these.
    failures: frozenset[Failure] = frozenset()
    #: Only jobs of which the backend says a word that nobody maps.
    misfit: bool = False


_MISFIT: Final = Row(
    "the backend says a word that nobody maps",
    states=_BEFORE_START | _STARTED,
    phase=_P.JOB_PHASE_UNKNOWN,
    misfit=True,
    bps="MISFIT",
    bartender="running",
    tes="UNKNOWN",
)
_LOST: Final = Row(
    "the backend no longer knows it",
    states=_BEFORE_START | _STARTED,
    phase=_P.JOB_PHASE_UNKNOWN,
    bps="UNKNOWN",
    bartender="running",
    tes="UNKNOWN",
    slurm=("purged",),
)

ROWS: Final[tuple[Row, ...]] = (
    _MISFIT,
    _LOST,
    Row(
        "being killed before the payload started",
        states=_BEFORE_START,
        phase=_P.JOB_PHASE_KILLING,
        bps="DELETED",
        bartender="queued",
        tes="CANCELING",
    ),
    Row(
        "being killed",
        states=_STARTED,
        phase=_P.JOB_PHASE_KILLING,
        bps="DELETED",
        bartender="running",
        tes="CANCELING",
    ),
    Row(
        "held before the payload started",
        states=_BEFORE_START,
        held=True,
        bps="HELD",
        bartender="queued",
        tes="PAUSED",
        slurm=("PENDING (JobHeldUser)", "PENDING (JobHeldAdmin)"),
    ),
    Row(
        "held after the payload started",
        states=_STARTED,
        held=True,
        bps="HELD",
        bartender="running",
        tes="PAUSED",
        slurm=("SUSPENDED",),
    ),
    Row(
        "waits for parents",
        states=frozenset({_J.JOB_STATE_CHECKING}),
        phase=_P.JOB_PHASE_BLOCKED,
        bps="UNREADY",
        bartender="queued",
        tes="QUEUED",
        slurm=("PENDING (Dependency)",),
    ),
    Row(
        "not yet handed to the backend",
        states=frozenset(
            {
                _J.JOB_STATE_SUBMITTING,
                _J.JOB_STATE_RECEIVED,
                _J.JOB_STATE_CHECKING,
                _J.JOB_STATE_SCOUTING,
                _J.JOB_STATE_RESCHEDULED,
            }
        ),
        bps="READY",
        bartender="queued",
        tes="QUEUED",
    ),
    Row(
        "handed to the backend",
        states=frozenset({_J.JOB_STATE_WAITING, _J.JOB_STATE_MATCHED}),
        bps="PENDING",
        bartender="queued",
        tes="QUEUED",
        slurm=("PENDING", "CONFIGURING", "REQUEUED"),
    ),
    Row(
        "inputs being brought",
        states=frozenset({_J.JOB_STATE_STAGING}),
        bps="PENDING",
        bartender="queued",
        tes="INITIALIZING",
    ),
    Row(
        "the payload runs",
        states=frozenset({_J.JOB_STATE_RUNNING, _J.JOB_STATE_STALLED}),
        bps="RUNNING",
        bartender="running",
        tes="RUNNING",
        slurm=("RUNNING", "COMPLETING"),
    ),
    Row(
        "outputs being moved",
        states=frozenset({_J.JOB_STATE_COMPLETING, _J.JOB_STATE_COMPLETED}),
        bps="RUNNING",
        bartender="running",
        tes="RUNNING",
    ),
    Row(
        "success",
        states=frozenset({_J.JOB_STATE_DONE}),
        bps="SUCCEEDED",
        bartender="ok",
        tes="COMPLETE",
        slurm=("COMPLETED",),
    ),
    Row(
        "the payload failed",
        states=frozenset({_J.JOB_STATE_FAILED}),
        failures=PAYLOAD_FAILURES,
        bps="FAILED",
        bartender="error",
        tes="EXECUTOR_ERROR",
        slurm=("FAILED",),
    ),
    Row(
        "the system failed, or a limit was passed",
        states=frozenset({_J.JOB_STATE_FAILED}),
        bps="FAILED",
        bartender="error",
        tes="SYSTEM_ERROR",
        slurm=("OUT_OF_MEMORY", "TIMEOUT", "DEADLINE", "NODE_FAIL", "BOOT_FAIL", "PREEMPTED"),
    ),
    Row(
        "a parent failed",
        states=frozenset({_J.JOB_STATE_KILLED}),
        phase=_P.JOB_PHASE_PRUNED,
        bps="PRUNED",
        bartender="error",
        tes="CANCELED",
        slurm=("PENDING (DependencyNeverSatisfied)",),
    ),
    Row(
        "killed or deleted",
        states=frozenset({_J.JOB_STATE_KILLED, _J.JOB_STATE_DELETED}),
        bps="DELETED",
        bartender="error",
        tes="CANCELED",
        slurm=("CANCELLED",),
    ),
)
"""DIRAC's word is the state's own in every row. The first row that fits a job is the one."""


def row(
    state: State,
    phase: Phase = _NO_PHASE,
    *,
    held: bool = False,
    failure_class: Failure = _NO_FAILURE,
    backend_state: str = "",
) -> Row:
    """What the systems say of a job.

    Parameters:
        state, phase: where it stands.
        held: whether it has a hold. What has ended is not held, nor unknown.
        failure_class: of the failure, when it failed.
        backend_state: the backend's own word, while the phase is UNKNOWN; empty: it says nothing.
    """
    for candidate in ROWS:
        if (
            state in candidate.states
            and candidate.phase in (_NO_PHASE, phase)
            and (held or not candidate.held)
            and (not candidate.failures or failure_class in candidate.failures)
            and (backend_state or not candidate.misfit)
        ):
            return candidate
    return _MISFIT if state else _LOST


DIRAC: Final[Mapping[State, str]] = MappingProxyType(
    {
        _J.JOB_STATE_SUBMITTING: "Submitting",
        _J.JOB_STATE_RECEIVED: "Received",
        _J.JOB_STATE_CHECKING: "Checking",
        _J.JOB_STATE_STAGING: "Staging",
        _J.JOB_STATE_SCOUTING: "Scouting",
        _J.JOB_STATE_WAITING: "Waiting",
        _J.JOB_STATE_MATCHED: "Matched",
        _J.JOB_STATE_RUNNING: "Running",
        _J.JOB_STATE_STALLED: "Stalled",
        _J.JOB_STATE_COMPLETING: "Completing",
        _J.JOB_STATE_COMPLETED: "Completed",
        _J.JOB_STATE_DONE: "Done",
        _J.JOB_STATE_FAILED: "Failed",
        _J.JOB_STATE_RESCHEDULED: "Rescheduled",
        _J.JOB_STATE_KILLED: "Killed",
        _J.JOB_STATE_DELETED: "Deleted",
    }
)
"""DIRAC's word for every state. It has none for a state of a later version."""

ON_HOLD: Final = "On Hold: "
"""How the minor status of a held job begins in DIRAC."""


def dirac_minor_status(minor_status: str, hold_reason: str | None = None) -> str:
    """A job's minor status as DIRAC says it.

    Parameters:
        minor_status: the job's, which is in DIRAC's words already.
        hold_reason: why it is held; None: it is not.
    """
    return minor_status if hold_reason is None else ON_HOLD + hold_reason


# --- inward ---------------------------------------------------------------------------------------


class Reading(NamedTuple):
    """A foreign word about a job, read."""

    #: Unspecified: the word says none; the last one known stays.
    state: State
    #: As it was said.
    word: str
    #: UNKNOWN when nobody maps the word, or there was none.
    phase: Phase = _NO_PHASE
    held: bool = False
    #: Why it ended badly; unspecified otherwise.
    failure_class: Failure = _NO_FAILURE


@dataclass(frozen=True, slots=True)
class Meaning:
    """What one of Slurm's words means."""

    state: State
    phase: Phase = _NO_PHASE
    held: bool = False
    failure_class: Failure = _NO_FAILURE


_QUEUED: Final = Meaning(_J.JOB_STATE_WAITING, _P.JOB_PHASE_QUEUED)
_QUEUED_AND_HELD: Final = Meaning(_J.JOB_STATE_WAITING, _P.JOB_PHASE_QUEUED, held=True)
_ALLOCATED: Final = Meaning(_J.JOB_STATE_MATCHED, _P.JOB_PHASE_QUEUED)
_RUNS: Final = Meaning(_J.JOB_STATE_RUNNING)
_STOPPED: Final = Meaning(_J.JOB_STATE_RUNNING, held=True)


def _failed(failure_class: Failure) -> Meaning:
    return Meaning(_J.JOB_STATE_FAILED, failure_class=failure_class)


SLURM: Final[Mapping[str, Meaning]] = MappingProxyType(
    {
        "PENDING": _QUEUED,
        "REQUEUED": _QUEUED,
        "REQUEUE_FED": _QUEUED,
        "REQUEUE_HOLD": _QUEUED_AND_HELD,
        "RESV_DEL_HOLD": _QUEUED_AND_HELD,
        "SPECIAL_EXIT": _QUEUED_AND_HELD,
        "CONFIGURING": _ALLOCATED,
        "POWER_UP_NODE": _ALLOCATED,
        "RUNNING": _RUNS,
        "COMPLETING": _RUNS,
        "RESIZING": _RUNS,
        "SIGNALING": _RUNS,
        "STAGE_OUT": _RUNS,
        "SUSPENDED": _STOPPED,
        "STOPPED": _STOPPED,
        "COMPLETED": Meaning(_J.JOB_STATE_DONE),
        "FAILED": _failed(_C.FAILURE_CLASS_PAYLOAD_EXIT),
        "OUT_OF_MEMORY": _failed(_C.FAILURE_CLASS_RESOURCE_LIMIT),
        "TIMEOUT": _failed(_C.FAILURE_CLASS_WALLTIME_EXCEEDED),
        "DEADLINE": _failed(_C.FAILURE_CLASS_TIMED_OUT),
        "NODE_FAIL": _failed(_C.FAILURE_CLASS_BACKEND_LOST),
        "BOOT_FAIL": _failed(_C.FAILURE_CLASS_BACKEND_LOST),
        "PREEMPTED": _failed(_C.FAILURE_CLASS_BACKEND_LOST),
        "CANCELLED": Meaning(_J.JOB_STATE_KILLED, failure_class=_C.FAILURE_CLASS_CANCELED),
    }
)
"""Slurm's states. Those that say too little of how a job goes on (LAUNCH_FAILED, RECONFIG_FAIL,
REVOKED, …) are UNKNOWN."""

SLURM_PENDING: Final[Mapping[str, Meaning]] = MappingProxyType(
    {
        "Dependency": Meaning(_J.JOB_STATE_CHECKING, _P.JOB_PHASE_BLOCKED),
        "DependencyNeverSatisfied": Meaning(
            _J.JOB_STATE_KILLED, _P.JOB_PHASE_PRUNED, failure_class=_C.FAILURE_CLASS_PARENT_FAILED
        ),
        "JobHeldAdmin": _QUEUED_AND_HELD,
        "JobHeldUser": _QUEUED_AND_HELD,
        "JobHoldMaxRequeue": _QUEUED_AND_HELD,
    }
)
"""The reasons of Slurm's PENDING that mean something else than PENDING alone."""

_DIRAC_STATES: Final[Mapping[str, State]] = MappingProxyType(
    {word: state for state, word in DIRAC.items()}
)


def from_slurm(word: str, reason: str = "") -> Reading:
    """Read what Slurm says of a job.

    COMPLETED says that the payload ended well; outputs may still have to be moved.

    Parameters:
        word: the state as `squeue` and `sacct` print it ("PENDING", "CANCELLED by 1000",
            "CANCELLED+"); empty when Slurm does not know the job.
        reason: why it is pending, as `squeue` prints it, without parentheses.
    """
    first = word.split(" ", 1)[0].rstrip("+")
    meaning = SLURM.get(first)
    if first == "PENDING":
        meaning = SLURM_PENDING.get(reason, meaning)
    if meaning is None:
        return _unknown(word)
    return Reading(
        meaning.state,
        word,
        phase=meaning.phase,
        held=meaning.held,
        failure_class=meaning.failure_class,
    )


def from_dirac(status: str, minor_status: str = "") -> Reading:
    """Read what DIRAC says of a job.

    Parameters:
        status: its major status.
        minor_status: says whether the job is held.
    """
    state = _DIRAC_STATES.get(status)
    if state is None:
        return _unknown(status)
    return Reading(state, status, held=minor_status.startswith(ON_HOLD))


def _unknown(word: str) -> Reading:
    return Reading(_J.JOB_STATE_UNSPECIFIED, word, phase=_P.JOB_PHASE_UNKNOWN)
