"""The table of states against DIRAC's, written out."""

import pytest

from gridlane.vocabularies.jobs import DIRAC as DIRAC_WORD
from gridlane.workload.v1.job_pb2 import JobState
from gridlane_kit.errors import ErrorReason, GridlaneError
from gridlane_workload import states

# DIRAC 9.1, JobStateMachine: each state with those that may follow it.
DIRAC = {
    "Submitting": {"Received", "Checking", "Deleted", "Killed"},
    "Received": {"Scouting", "Checking", "Staging", "Waiting", "Failed", "Deleted", "Killed"},
    "Checking": {"Scouting", "Staging", "Waiting", "Rescheduled", "Failed", "Deleted", "Killed"},
    "Scouting": {"Checking", "Failed", "Stalled", "Killed"},
    "Staging": {"Checking", "Waiting", "Failed", "Killed"},
    "Waiting": {"Matched", "Rescheduled", "Deleted", "Killed"},
    "Matched": {"Running", "Failed", "Rescheduled", "Killed"},
    "Rescheduled": {"Waiting", "Received", "Deleted", "Failed", "Killed"},
    "Running": {"Stalled", "Done", "Failed", "Rescheduled", "Completing", "Killed", "Received"},
    "Stalled": {"Running", "Failed", "Killed"},
    "Completing": {"Done", "Failed", "Completed", "Stalled", "Killed"},
    "Completed": {"Done", "Failed"},
    "Done": {"Deleted"},
    "Failed": {"Rescheduled", "Deleted"},
    "Killed": {"Deleted"},
    "Deleted": set(),
}


def test_the_states_are_those_of_the_contract() -> None:
    contract = {value for value in JobState.values() if value}
    assert set(states.TRANSITIONS) == contract
    assert {DIRAC_WORD[state] for state in states.TRANSITIONS} == set(DIRAC)


def test_the_sixty_transitions_are_diracs() -> None:
    table = {
        DIRAC_WORD[state]: {DIRAC_WORD[after] for after in followers}
        for state, followers in states.TRANSITIONS.items()
    }
    assert table == DIRAC
    assert sum(map(len, table.values())) == 60


@pytest.mark.parametrize("origin", states.TRANSITIONS)
def test_every_other_transition_is_refused(origin: states.State) -> None:
    for target in states.TRANSITIONS:
        if DIRAC_WORD[target] in DIRAC[DIRAC_WORD[origin]]:
            states.require("jobs/x", origin, target)
            continue
        with pytest.raises(GridlaneError) as refused:
            states.require("jobs/x", origin, target)
        assert refused.value.reason is ErrorReason.ILLEGAL_TRANSITION
        assert refused.value.metadata["from"] == states.word(origin)
        assert refused.value.metadata["to"] == states.word(target)
        allowed = set(filter(None, refused.value.metadata["allowed"].split(",")))
        assert allowed == {states.word(state) for state in states.TRANSITIONS[origin]}


def test_final_states_are_diracs_and_completed_has_not_ended() -> None:
    words = {DIRAC_WORD[state] for state in states.FINAL}
    assert words == {"Done", "Completed", "Failed", "Killed", "Deleted"}
    assert {DIRAC_WORD[state] for state in states.FINAL - states.ENDED} == {"Completed"}


def test_whatever_has_not_started_can_be_killed_at_once() -> None:
    for state in states.BEFORE_START:
        assert states.KILLED in states.TRANSITIONS[state]


def test_a_filter_that_names_no_state_is_told_which_there_are() -> None:
    assert states.parse("RUNNING") == states.RUNNING
    with pytest.raises(ValueError, match="WAITING"):
        states.parse("Running")
