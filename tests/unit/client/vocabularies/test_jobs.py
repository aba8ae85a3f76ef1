"""Jobs in the words of DIRAC, BPS, bartender, TES and Slurm, row by row.

The tables here are written by hand: nothing in them is made from the code. A job of a row is
written as its state (DIRAC's word), then as far as they matter its phase, `held`, and the class of
its failure; a row may be about several.
"""

from __future__ import annotations

import re
from itertools import product
from typing import NamedTuple, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridlane.states import FINAL_JOB_STATES
from gridlane.type.v1.failure_pb2 import FailureClass
from gridlane.vocabularies import jobs
from gridlane.workload.v1.job_pb2 import JobPhase, JobState
from gridlane_workload import states

# jobs | BPS | bartender | TES | Slurm
TABLE = """
Checking BLOCKED                                  | UNREADY   | queued  | QUEUED         | PENDING (Dependency)
Submitting, Received, Checking, Scouting, Rescheduled | READY | queued  | QUEUED         |
Waiting QUEUED, Matched QUEUED, Waiting, Matched  | PENDING   | queued  | QUEUED         | PENDING; CONFIGURING; REQUEUED
Staging                                           | PENDING   | queued  | INITIALIZING   |
Submitting held, Received held, Checking held, Checking BLOCKED held, Scouting held, Rescheduled held, Waiting held, Waiting QUEUED held, Matched held, Matched QUEUED held, Staging held | HELD | queued | PAUSED | PENDING (JobHeldUser); PENDING (JobHeldAdmin)
Running, Stalled                                  | RUNNING   | running | RUNNING        | RUNNING; COMPLETING
Completing, Completed                             | RUNNING   | running | RUNNING        |
Done                                              | SUCCEEDED | ok      | COMPLETE       | COMPLETED
Failed PAYLOAD_EXIT                               | FAILED    | error   | EXECUTOR_ERROR | FAILED
Failed RESOURCE_LIMIT, Failed WALLTIME_EXCEEDED, Failed TIMED_OUT, Failed BACKEND_LOST | FAILED | error | SYSTEM_ERROR | OUT_OF_MEMORY; TIMEOUT; DEADLINE; NODE_FAIL; BOOT_FAIL; PREEMPTED
Killed, Deleted                                   | DELETED   | error   | CANCELED       | CANCELLED
Killed PRUNED                                     | PRUNED    | error   | CANCELED       | PENDING (DependencyNeverSatisfied)
Waiting UNKNOWN, Matched UNKNOWN, Running UNKNOWN, Stalled UNKNOWN | UNKNOWN | running | UNKNOWN | purged
"""  # noqa: E501

# The same for what that table leaves open. Slurm suspends payloads that have started.
OPEN = """
Running held, Stalled held, Completing held, Completed held | HELD | running | PAUSED | SUSPENDED
Waiting KILLING, Matched KILLING, Waiting KILLING held      | DELETED | queued | CANCELING |
Running KILLING, Stalled KILLING, Completing KILLING        | DELETED | running | CANCELING |
Failed PAYLOAD_SIGNAL, Failed COMMAND_NOT_FOUND             | FAILED | error | EXECUTOR_ERROR |
Failed, Failed STAGE_IN, Failed STAGE_OUT, Failed OUTPUT_MISSING, Failed CREDENTIAL, Failed INTERNAL, Failed PARENT_FAILED, Failed CANCELED | FAILED | error | SYSTEM_ERROR |
Done held, Done UNKNOWN                                     | SUCCEEDED | ok | COMPLETE |
Failed UNKNOWN BACKEND_LOST, Failed held BACKEND_LOST       | FAILED | error | SYSTEM_ERROR |
Killed held, Killed UNKNOWN, Killed CANCELED, Deleted PRUNED | DELETED | error | CANCELED |
"""  # noqa: E501

# Slurm's word, its reason in parentheses | state, phase, held, class
SLURM = """
PENDING                            | WAITING QUEUED
PENDING (Resources)                | WAITING QUEUED
PENDING (Dependency)               | CHECKING BLOCKED
PENDING (DependencyNeverSatisfied) | KILLED PRUNED PARENT_FAILED
PENDING (JobHeldUser)              | WAITING QUEUED held
PENDING (JobHeldAdmin)             | WAITING QUEUED held
PENDING (JobHoldMaxRequeue)        | WAITING QUEUED held
REQUEUED                           | WAITING QUEUED
REQUEUE_FED                        | WAITING QUEUED
REQUEUE_HOLD                       | WAITING QUEUED held
RESV_DEL_HOLD                      | WAITING QUEUED held
SPECIAL_EXIT                       | WAITING QUEUED held
CONFIGURING                        | MATCHED QUEUED
POWER_UP_NODE                      | MATCHED QUEUED
RUNNING                            | RUNNING
RUNNING (JobHeldUser)              | RUNNING
COMPLETING                         | RUNNING
RESIZING                           | RUNNING
SIGNALING                          | RUNNING
STAGE_OUT                          | RUNNING
SUSPENDED                          | RUNNING held
STOPPED                            | RUNNING held
COMPLETED                          | DONE
FAILED                             | FAILED PAYLOAD_EXIT
OUT_OF_MEMORY                      | FAILED RESOURCE_LIMIT
TIMEOUT                            | FAILED WALLTIME_EXCEEDED
DEADLINE                           | FAILED TIMED_OUT
NODE_FAIL                          | FAILED BACKEND_LOST
BOOT_FAIL                          | FAILED BACKEND_LOST
PREEMPTED                          | FAILED BACKEND_LOST
CANCELLED                          | KILLED CANCELED
CANCELLED by 1000                  | KILLED CANCELED
CANCELLED+                         | KILLED CANCELED
"""
UNMAPPED = ("REVOKED", "LAUNCH_FAILED", "RECONFIG_FAIL", "FROM_THE_FUTURE", "pending", "")

BPS = """
UNKNOWN MISFIT UNREADY READY PENDING RUNNING DELETED HELD SUCCEEDED FAILED PRUNED
"""
TES = """
UNKNOWN QUEUED INITIALIZING RUNNING PAUSED COMPLETE EXECUTOR_ERROR SYSTEM_ERROR CANCELED CANCELING
PREEMPTED
"""

STATES = {name.removeprefix("JOB_STATE_"): number for name, number in JobState.items() if number}
PHASES = {name.removeprefix("JOB_PHASE_"): number for name, number in JobPhase.items() if number}
CLASSES = {
    name.removeprefix("FAILURE_CLASS_"): number for name, number in FailureClass.items() if number
}


class Standing(NamedTuple):
    """Where a job of a row stands."""

    state: jobs.State
    phase: jobs.Phase
    held: bool
    failure_class: jobs.Failure

    @classmethod
    def read(cls, text: str) -> Standing:
        """Reads "Failed UNKNOWN held BACKEND_LOST"."""
        state, *rest = text.split()
        phases = [PHASES[word] for word in rest if word in PHASES]
        classes = [CLASSES[word] for word in rest if word in CLASSES]
        assert len(phases) + len(classes) + rest.count("held") == len(rest), text
        return cls(
            STATES[state.upper()],
            phases[0] if phases else JobPhase.JOB_PHASE_UNSPECIFIED,
            "held" in rest,
            classes[0] if classes else FailureClass.FAILURE_CLASS_UNSPECIFIED,
        )

    def row(self, backend_state: str = "") -> jobs.Row:
        return jobs.row(
            self.state,
            self.phase,
            held=self.held,
            failure_class=self.failure_class,
            backend_state=backend_state,
        )


class Expected(NamedTuple):
    """What the systems say."""

    bps: str
    bartender: str
    tes: str
    slurm: tuple[str, ...]


def rows(table: str) -> list[tuple[list[str], Expected]]:
    lines = ([cell.strip() for cell in line.split("|")] for line in table.strip().splitlines())
    return [
        (
            [one.strip() for one in about.split(",")],
            Expected(bps, bartender, tes, tuple(filter(None, re.split(r"; *", slurm)))),
        )
        for about, bps, bartender, tes, slurm in lines
    ]


def cases(table: str) -> list[tuple[str, Expected]]:
    return [(text, expected) for about, expected in rows(table) for text in about]


@pytest.mark.parametrize(("text", "expected"), cases(TABLE))
def test_a_job_is_called_what_the_table_says(text: str, expected: Expected) -> None:
    row = Standing.read(text).row()
    assert Expected(row.bps, row.bartender, row.tes, row.slurm) == expected


@pytest.mark.parametrize(("text", "expected"), cases(OPEN))
def test_a_job_is_called_what_follows_from_the_table(text: str, expected: Expected) -> None:
    row = Standing.read(text).row()
    assert (row.bps, row.bartender, row.tes) == expected[:3]
    if expected.slurm:
        assert row.slurm == expected.slurm


def test_a_word_that_nobody_maps_is_a_misfit() -> None:
    for text in ("Waiting UNKNOWN", "Running UNKNOWN", "Running UNKNOWN held"):
        row = Standing.read(text).row(backend_state="REVOKED")
        assert (row.bps, row.bartender, row.tes) == ("MISFIT", "running", "UNKNOWN")
    # One that somebody maps says nothing new.
    assert Standing.read("Running").row(backend_state="RUNNING").bps == "RUNNING"
    assert Standing.read("Done UNKNOWN").row(backend_state="REVOKED").bps == "SUCCEEDED"


def test_every_job_has_words_and_dirac_has_all_sixteen() -> None:
    assert set(jobs.DIRAC) == set(states.TRANSITIONS) == set(STATES.values())
    assert {word.upper() for word in jobs.DIRAC.values()} == set(STATES)
    cases = product(
        STATES.values(), JobPhase.values(), (False, True), FailureClass.values(), ("", "REVOKED")
    )
    for state, phase, held, failure_class, word in cases:
        row = jobs.row(state, phase, held=held, failure_class=failure_class, backend_state=word)
        assert state in row.states
        # Only what has ended is said to have, and unknown is said of nothing else.
        ended = row.bartender in ("ok", "error")
        assert ended == (state in FINAL_JOB_STATES)
        lost = phase == JobPhase.JOB_PHASE_UNKNOWN and not ended
        assert (row.tes == "UNKNOWN") == lost
        assert (row.bps in ("UNKNOWN", "MISFIT")) == lost


@pytest.mark.parametrize(
    ("state", "bps"), [(0, "UNKNOWN"), (17, "MISFIT"), (9999, "MISFIT"), (-1, "MISFIT")]
)
def test_a_state_of_a_later_version_is_a_misfit_and_none_is_unknown(
    state: jobs.State, bps: str
) -> None:
    for phase, held in product(JobPhase.values(), (False, True)):
        row = jobs.row(state, phase, held=held)
        assert (row.bps, row.bartender, row.tes) == (bps, "running", "UNKNOWN")


def test_every_row_is_reached() -> None:
    reached = {
        id(jobs.row(state, phase, held=held, failure_class=failure_class, backend_state=word))
        for state, phase, held, failure_class, word in product(
            STATES.values(),
            JobPhase.values(),
            (False, True),
            FailureClass.values(),
            ("", "REVOKED"),
        )
    }
    assert [row.meaning for row in jobs.ROWS if id(row) not in reached] == []


def test_the_words_are_those_of_the_systems() -> None:
    assert sorted(get_args(jobs.BpsState)) == sorted(BPS.split())
    assert set(get_args(jobs.TesState)) == set(TES.split()) - {"PREEMPTED"}
    assert set(get_args(jobs.BartenderState)) == {"queued", "running", "ok", "error"}


def test_the_minor_status_of_a_held_job_says_so() -> None:
    assert jobs.dirac_minor_status("Job accepted") == "Job accepted"
    assert jobs.dirac_minor_status("Job accepted", "too many") == "On Hold: too many"
    assert jobs.dirac_minor_status("Job accepted", "") == "On Hold: "


def slurm_cases() -> list[tuple[str, str]]:
    lines = (line.partition("|") for line in SLURM.strip().splitlines())
    return [(said.strip(), meant.strip()) for said, _, meant in lines]


def read_slurm(said: str) -> jobs.Reading:
    word, _, reason = said.partition(" (")
    return jobs.from_slurm(word, reason.rstrip(")"))


@pytest.mark.parametrize(("said", "meant"), slurm_cases())
def test_slurms_words_are_read(said: str, meant: str) -> None:
    reading = read_slurm(said)
    assert reading.word == said.partition(" (")[0]
    assert (reading.state, reading.phase, reading.held, reading.failure_class) == (
        Standing.read(meant)
    )


@pytest.mark.parametrize(
    ("said", "expected"),
    [(said, row) for _, row in rows(TABLE) + rows(OPEN) for said in row.slurm if said != "purged"],
)
def test_what_slurm_says_is_read_into_the_row_that_has_the_word(
    said: str, expected: Expected
) -> None:
    reading = read_slurm(said)
    row = jobs.row(
        reading.state,
        reading.phase,
        held=reading.held,
        failure_class=reading.failure_class,
        backend_state=reading.word,
    )
    assert (row.bps, row.bartender, row.tes) == expected[:3]
    assert said in row.slurm


def assert_unknown(reading: jobs.Reading, word: str) -> None:
    assert reading == jobs.Reading(
        JobState.JOB_STATE_UNSPECIFIED, word, phase=JobPhase.JOB_PHASE_UNKNOWN
    )


@pytest.mark.parametrize("word", UNMAPPED)
def test_a_word_of_slurm_that_nobody_maps_is_unknown_and_kept(word: str) -> None:
    assert_unknown(jobs.from_slurm(word), word)
    assert_unknown(jobs.from_slurm(word, "Dependency"), word)


@given(st.text(), st.text())
def test_any_other_text_is_unknown_and_kept(word: str, minor: str) -> None:
    if word.split(" ")[0].rstrip("+") not in jobs.SLURM:
        assert_unknown(jobs.from_slurm(word, minor), word)
    if word not in jobs.DIRAC.values():
        assert_unknown(jobs.from_dirac(word, minor), word)


@pytest.mark.parametrize("state", STATES.values(), ids=STATES)
def test_diracs_words_come_back_as_they_were(state: jobs.State) -> None:
    word = jobs.DIRAC[state]
    assert jobs.from_dirac(word, "Job accepted") == jobs.Reading(state, word)
    held = jobs.from_dirac(word, jobs.dirac_minor_status("Job accepted", "after rescheduling 2"))
    assert held == jobs.Reading(state, word, held=True)
