"""The state machines: the job's state is a function of its files', and the words are the
contract's.
"""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridlane.transfer.v1 import transfer_job_pb2
from gridlane_transfer.states import (
    FILE_FINAL,
    FILE_TRANSITIONS,
    JOB_FINAL,
    UNSTARTED,
    FileState,
    JobState,
    job_state,
    legal,
)

F, J = FileState, JobState


def state_of(*files: FileState, moved: int = 0, cancel_asked: bool = False) -> JobState:
    return job_state(Counter(files), moved_uncatalogued=moved, cancel_asked=cancel_asked)


def test_the_states_are_those_of_the_contract() -> None:
    for ours, theirs, prefix in (
        (FileState, transfer_job_pb2.FileTransferState, "FILE_TRANSFER_STATE_"),
        (JobState, transfer_job_pb2.TransferJobState, "TRANSFER_JOB_STATE_"),
    ):
        expected = {name.removeprefix(prefix): number for name, number in theirs.items() if number}
        assert {state.name: int(state) for state in ours} == expected


@pytest.mark.parametrize(
    ("files", "moved", "cancel_asked", "expected"),
    [
        # gLite
        ([F.SUBMITTED, F.READY], 0, False, J.SUBMITTED),
        ([F.READY, F.READY], 0, False, J.READY),
        ([F.READY, F.ACTIVE], 0, False, J.ACTIVE),
        ([F.READY, F.FINISHED], 0, False, J.ACTIVE),
        ([F.READY, F.RETRYING], 0, False, J.ACTIVE),
        ([F.HELD, F.ACTIVE], 0, False, J.ACTIVE),
        ([F.HELD, F.FINISHED], 0, False, J.HELD),
        ([F.FINISHED, F.REGISTERING], 0, False, J.REGISTERING),
        ([F.STAGING, F.READY], 0, False, J.STAGING),
        ([F.STAGING_STARTED, F.ACTIVE], 0, False, J.ACTIVE),
        ([F.ARCHIVING, F.FINISHED], 0, False, J.ARCHIVING),
        ([F.CANCELING, F.CANCELED], 0, True, J.CANCELING),
        ([F.FINISHED, F.CANCELED], 0, True, J.CANCELED),
        ([F.FINISHED, F.FAILED, F.CANCELED], 0, True, J.CANCELED),
        ([F.FINISHED, F.FINISHED], 0, True, J.FINISHED),
        ([F.FINISHED, F.CATALOG_FAILED], 1, False, J.REGISTRATION_FAILED),
        ([F.CATALOG_FAILED], 1, False, J.REGISTRATION_FAILED),
        # FTS3
        ([F.BLOCKED, F.BLOCKED], 0, False, J.SUBMITTED),
        ([F.BLOCKED, F.READY], 0, False, J.SUBMITTED),
        ([F.BLOCKED, F.ACTIVE], 0, False, J.ACTIVE),
        ([F.BLOCKED, F.FINISHED], 0, False, J.ACTIVE),
        ([F.BLOCKED, F.CANCELED], 0, False, J.SUBMITTED),
        ([F.READY, F.CANCELED], 0, False, J.READY),
        ([F.READY, F.CATALOG_FAILED], 0, False, J.READY),
        ([F.READY, F.HELD], 0, False, J.SUBMITTED),
        ([F.BLOCKED, F.CANCELED], 0, True, J.CANCELING),
        ([F.FINISHED, F.FINISHED], 0, False, J.FINISHED),
        ([F.FINISHED, F.FAILED], 0, False, J.PARTIALLY_FINISHED),
        ([F.FAILED, F.FAILED], 0, False, J.FAILED),
        ([F.FAILED, F.CANCELED], 0, False, J.FAILED),
        ([F.CANCELED, F.FINISHED], 0, False, J.CANCELED),
        ([F.FINISHED, F.NOT_USED], 0, False, J.FINISHED),
        ([F.CATALOG_FAILED], 0, False, J.FAILED),
        ([F.FINISHED, F.CATALOG_FAILED], 0, False, J.PARTIALLY_FINISHED),
        ([F.FAILED, F.CATALOG_FAILED], 1, False, J.PARTIALLY_FINISHED),
    ],
)
def test_a_job_is_what_its_files_are(
    files: list[FileState], moved: int, cancel_asked: bool, expected: JobState
) -> None:
    assert state_of(*files, moved=moved, cancel_asked=cancel_asked) is expected


def test_a_job_of_which_a_file_was_started_is_active_whatever_became_of_it() -> None:
    for files, started, expected in (
        ([F.READY], False, J.READY),
        ([F.READY], True, J.ACTIVE),  # between two hops
        ([F.READY, F.FAILED], True, J.ACTIVE),
        ([F.BLOCKED, F.CANCELED], True, J.ACTIVE),
        ([F.HELD], True, J.HELD),
        ([F.FAILED], True, J.FAILED),
    ):
        state = job_state(Counter(files), moved_uncatalogued=0, cancel_asked=False, started=started)
        assert state is expected, files


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (F.READY, F.FAILED),  # it waited too long for its start
        (F.BLOCKED, F.FAILED),
        (F.HELD, F.FAILED),
        (F.ACTIVE, F.READY),  # the next hop
    ],
)
def test_what_submissions_ask_for_has_its_transitions(before: FileState, after: FileState) -> None:
    assert legal(before, after)


@pytest.mark.parametrize("state", sorted(UNSTARTED))
def test_what_has_not_started_can_be_held_and_cancelled(state: FileState) -> None:
    """Cancels, vetoes and roles that are lost meet files in each of these states."""
    assert state is F.HELD or legal(state, F.HELD)
    assert legal(state, F.CANCELED)


files_lists = st.lists(st.sampled_from(FileState), min_size=1, max_size=8)


@given(files_lists, st.booleans())
def test_a_job_has_ended_exactly_when_all_its_files_have(
    files: list[FileState], cancel_asked: bool
) -> None:
    ended = all(file in FILE_FINAL or file is F.NOT_USED for file in files)
    assert (state_of(*files, cancel_asked=cancel_asked) in JOB_FINAL) == ended


@given(files_lists, st.booleans(), st.randoms())
def test_the_order_of_the_files_does_not_matter(
    files: list[FileState], cancel_asked: bool, random: object
) -> None:
    shuffled = list(files)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    before = state_of(*files, cancel_asked=cancel_asked)
    assert state_of(*shuffled, cancel_asked=cancel_asked) is before


@given(st.lists(st.sampled_from(sorted(FILE_FINAL)), min_size=1), st.booleans())
def test_only_a_job_whose_every_file_is_there_is_finished(
    files: list[FileState], cancel_asked: bool
) -> None:
    finished = state_of(*files, cancel_asked=cancel_asked) is J.FINISHED
    assert finished == (set(files) == {F.FINISHED})


@given(st.sampled_from(FileState), st.sampled_from(FileState))
def test_final_never_changes(before: FileState, after: FileState) -> None:
    if before in FILE_FINAL:
        assert not legal(before, after)


def test_every_state_that_can_be_reached_leads_to_an_end() -> None:
    def reachable(start: FileState) -> set[FileState]:
        seen, todo = set(), [start]
        while todo:
            state = todo.pop()
            if state not in seen:
                seen.add(state)
                todo += FILE_TRANSITIONS.get(state, ())
        return seen

    for state in reachable(F.SUBMITTED):
        assert reachable(state) & FILE_FINAL, state
    assert FILE_TRANSITIONS.keys() == reachable(F.SUBMITTED)
