"""Transfer jobs and files in the words of gLite, FTS3 and DIRAC, row by row.

The tables here are written by hand and say which words go with which states; a word with a * is
the one that is read as the row's state. Nothing in them is made from the code.
"""

from __future__ import annotations

from typing import NamedTuple, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridlane.states import FINAL_TRANSFER_STATES
from gridlane.transfer.v1.transfer_job_pb2 import FileTransferState, TransferJobState
from gridlane.vocabularies import transfers
from gridlane_transfer.states import FILE_FINAL, JOB_FINAL

# state, kind (- both) | gLite | FTS3
JOBS = """
SUBMITTED            -         | Submitted *     | SUBMITTED *
READY                -         | Pending *       | READY *
STAGING              -         | Pending         | STAGING *
ACTIVE               -         | Active *        | ACTIVE *
ARCHIVING            -         | Active          | ARCHIVING *
REGISTERING          placement | Done            | ACTIVE
HELD                 -         | Hold *          | ACTIVE
CANCELING            -         | Canceling *     | ACTIVE
FINISHED             plain     | Done *          | FINISHED *
FINISHED             placement | Finished *      | FINISHED
REGISTRATION_FAILED  placement | FinishedDirty * | FINISHED
PARTIALLY_FINISHED   -         | Failed          | FINISHEDDIRTY *
FAILED               -         | Failed *        | FAILED *
CANCELED             -         | Canceled *      | CANCELED *
"""

# state, kind (- both), bytes at the target (- yes or no) | gLite | FTS3
FILES = """
SUBMITTED        -         no  | Submitted *     | SUBMITTED *
READY            -         no  | Pending *       | READY *
NOT_USED         -         no  | Pending         | NOT_USED *
TOKEN_PREPARING  -         no  | Pending         | TOKEN_PREP *
STAGING          -         no  | Pending         | STAGING *
STAGING_STARTED  -         no  | Pending         | STARTED *
BLOCKED          -         no  | Waiting         | ON_HOLD *
ACTIVE           -         no  | Active *        | ACTIVE *
RETRYING         -         no  | Waiting *       | SUBMITTED
ARCHIVING        -         yes | Active          | ARCHIVING *
REGISTERING      placement yes | Done            | FINISHED
HELD             -         -   | Hold *          | FAILED
CANCELING        -         -   | Canceling *     | ACTIVE
FINISHED         plain     yes | Done *          | FINISHED *
FINISHED         placement yes | Finished *      | FINISHED *
CATALOG_FAILED   placement no  | CatalogFailed * | FAILED
CATALOG_FAILED   placement yes | CatalogFailed * | FINISHED
FAILED           -         no  | Failed *        | FAILED *
CANCELED         -         no  | Canceled *      | CANCELED *
"""

# FTS3's other words about files | read as
ALSO_READ = """
FORCE_START     | SUBMITTED
ON_HOLD_STAGING | BLOCKED
"""

# Words that no row has.
UNMAPPED = ("DELETE", "QOS_TRANSITION", "QOS_REQUEST_SUBMITTED", "FROM_THE_FUTURE", "active", "")

# state | FTS3Job | FTS3Operation
DIRAC_JOBS = """
SUBMITTED           | Submitted     | Active
READY               | Ready         | Active
STAGING             | Staging       | Active
ACTIVE              | Active        | Active *
ARCHIVING           | Archiving     | Active
REGISTERING         | Active        | Processed *
HELD                | Active        | Active
CANCELING           | Active        | Active
FINISHED            | Finished      | Finished *
REGISTRATION_FAILED | Finished      | Failed
PARTIALLY_FINISHED  | Finisheddirty | Finished
FAILED              | Failed        | Failed *
CANCELED            | Canceled      | Canceled *
"""

# state, bytes at the target, recoverable (- yes or no) | FTS3File
DIRAC_FILES = """
SUBMITTED       -   -   | Submitted *
READY           -   -   | Ready *
NOT_USED        -   -   | Not_used *
TOKEN_PREPARING -   -   | Token_prep *
STAGING         -   -   | Staging *
STAGING_STARTED -   -   | Started *
BLOCKED         -   -   | Submitted
ACTIVE          -   -   | Active *
RETRYING        -   -   | Submitted
ARCHIVING       -   -   | Archiving *
REGISTERING     -   -   | Finished
HELD            no  yes | Failed
HELD            no  no  | Defunct
CANCELING       -   -   | Active
FINISHED        -   -   | Finished *
CATALOG_FAILED  no  yes | Failed
CATALOG_FAILED  no  no  | Defunct
CATALOG_FAILED  yes -   | Finished
FAILED          no  yes | Failed *
FAILED          no  no  | Defunct *
CANCELED        -   -   | Canceled *
"""

# The words of DIRAC 9.1: ALL_STATES of FTS3Job, FTS3File and FTS3Operation.
DIRAC_JOB_WORDS = """
Submitted Ready Active Finished Canceled Failed Finisheddirty Staging Archiving
"""
DIRAC_FILE_WORDS = """
New Submitted Ready Active Finished Canceled Staging Failed Defunct Started Not_used Archiving
Token_prep
"""
DIRAC_OPERATION_WORDS = """
Active Processed Finished Canceled Failed
"""

EITHER = {"-": (False, True), "no": (False,), "yes": (True,)}
KINDS = {"-": (False, True), "plain": (False,), "placement": (True,)}


class Row(NamedTuple):
    """A row of a table: what it is about, and the words with whether each is read as that."""

    about: tuple[str, ...]
    words: tuple[tuple[str, bool], ...]


def rows(table: str) -> list[Row]:
    lines = (line.split("|") for line in table.strip().splitlines())
    return [
        Row(
            tuple(about.split()),
            tuple((word.rstrip(" *").strip(), word.rstrip().endswith("*")) for word in words),
        )
        for about, *words in lines
    ]


def name(row: Row) -> str:
    return " ".join(row.about)


def job(word: str) -> transfers.JobState:
    return TransferJobState.Value(f"TRANSFER_JOB_STATE_{word}")


def file(word: str) -> transfers.FileState:
    return FileTransferState.Value(f"FILE_TRANSFER_STATE_{word}")


@pytest.mark.parametrize("row", rows(JOBS), ids=name)
def test_a_transfer_job_is_called_what_the_table_says(row: Row) -> None:
    word, kind = row.about
    (glite, glite_read), (fts3, fts3_read) = row.words
    for placement in KINDS[kind]:
        assert transfers.glite_job_state(job(word), placement=placement) == glite
        if glite_read:
            assert transfers.job_from_glite(glite, placement=placement) == (job(word), glite)
    assert transfers.fts3_job_state(job(word)) == fts3
    if fts3_read:
        assert transfers.job_from_fts3(fts3) == (job(word), fts3)


@pytest.mark.parametrize("row", rows(FILES), ids=name)
def test_a_file_is_called_what_the_table_says(row: Row) -> None:
    word, kind, bytes_there = row.about
    (glite, glite_read), (fts3, fts3_read) = row.words
    for placement in KINDS[kind]:
        assert transfers.glite_file_state(file(word), placement=placement) == glite
        if glite_read:
            assert transfers.file_from_glite(glite, placement=placement) == (file(word), glite)
    for moved in EITHER[bytes_there]:
        assert transfers.fts3_file_state(file(word), moved=moved) == fts3
    if fts3_read:
        assert transfers.file_from_fts3(fts3) == (file(word), fts3)


@pytest.mark.parametrize("row", rows(ALSO_READ), ids=name)
def test_words_that_gridlane_never_says_are_read_too(row: Row) -> None:
    ((state, _),) = row.words
    assert transfers.file_from_fts3(row.about[0]) == (file(state), row.about[0])


@pytest.mark.parametrize("table", [JOBS, FILES], ids=["jobs", "files"])
@pytest.mark.parametrize("column", [0, 1], ids=["gLite", "FTS3"])
def test_each_word_is_read_as_one_state(table: str, column: int) -> None:
    read: dict[str, set[str]] = {}
    for row in rows(table):
        word, star = row.words[column]
        read.setdefault(word, set())
        if star:
            read[word].add(row.about[0])
    assert {word for word, states in read.items() if len(states) != 1} == set()


def test_done_of_a_placement_job_means_that_the_catalogue_is_owed() -> None:
    assert transfers.job_from_glite("Done", placement=True).state == job("REGISTERING")
    assert transfers.file_from_glite("Done", placement=True).state == file("REGISTERING")


@pytest.mark.parametrize("row", rows(DIRAC_JOBS), ids=name)
def test_a_transfer_job_has_the_status_of_diracs_objects(row: Row) -> None:
    (word,) = row.about
    (status, _), (operation, operation_read) = row.words
    assert transfers.dirac_job_status(job(word)) == status
    # DIRAC capitalises what FTS3 says, outward and inward.
    assert transfers.fts3_job_state(job(word)).capitalize() == status
    assert transfers.dirac_operation_status(job(word)) == operation
    if operation_read:
        assert transfers.job_from_dirac_operation(operation) == (job(word), operation)


@pytest.mark.parametrize("row", rows(DIRAC_FILES), ids=name)
def test_a_file_has_the_status_of_diracs_file(row: Row) -> None:
    word, bytes_there, can_recover = row.about
    ((status, read),) = row.words
    for moved in EITHER[bytes_there]:
        for recoverable in EITHER[can_recover]:
            said = transfers.dirac_file_status(file(word), moved=moved, recoverable=recoverable)
            assert said == status
    if read:
        assert transfers.file_from_dirac(status) == (file(word), status)


def test_every_word_of_dirac_is_read() -> None:
    for word in DIRAC_JOB_WORDS.split():
        assert transfers.job_from_dirac(word).state == transfers.job_from_fts3(word.upper()).state
    unknown_file, unknown_job = file("UNKNOWN"), job("UNKNOWN")
    assert unknown_job not in [
        transfers.job_from_dirac(word).state for word in DIRAC_JOB_WORDS.split()
    ]
    assert unknown_file not in [
        transfers.file_from_dirac(word).state for word in DIRAC_FILE_WORDS.split()
    ]
    for word in DIRAC_OPERATION_WORDS.split():
        state = transfers.job_from_dirac_operation(word).state
        assert transfers.dirac_operation_status(state) == word


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (transfers.DiracJobStatus, DIRAC_JOB_WORDS),
        (transfers.DiracFileStatus, DIRAC_FILE_WORDS),
        (transfers.DiracOperationStatus, DIRAC_OPERATION_WORDS),
    ],
    ids=["FTS3Job", "FTS3File", "FTS3Operation"],
)
def test_the_types_have_diracs_words(said: object, words: str) -> None:
    assert sorted(get_args(said)) == sorted(words.split())


def test_the_tables_have_every_state_of_the_contract() -> None:
    every_job, every_file = set(TransferJobState.values()) - {0}, set(FileTransferState.values())
    assert set(transfers.JOB_WORDS) == every_job
    assert set(transfers.FILE_WORDS) == every_file - {0}
    for table in (JOBS, DIRAC_JOBS):
        assert {job(row.about[0]) for row in rows(table)} == every_job - {job("UNKNOWN")}
    for table in (FILES, DIRAC_FILES):
        assert {file(row.about[0]) for row in rows(table)} == every_file - {0, file("UNKNOWN")}


# Of the contract; and numbers of a later version.
UNKNOWN_NUMBERS = (0, 9999, -1)


@pytest.mark.parametrize("state", [job("UNKNOWN"), *UNKNOWN_NUMBERS])
def test_an_unknown_state_of_a_transfer_job_is_said_to_go_on(state: transfers.JobState) -> None:
    for placement in (False, True):
        assert transfers.glite_job_state(state, placement=placement) == "Active"
    assert transfers.fts3_job_state(state) == "ACTIVE"
    assert transfers.dirac_job_status(state) == "Active"
    assert transfers.dirac_operation_status(state) == "Active"


@pytest.mark.parametrize("state", [file("UNKNOWN"), *UNKNOWN_NUMBERS])
def test_an_unknown_state_of_a_file_is_said_to_go_on(state: transfers.FileState) -> None:
    for flag in (False, True):
        assert transfers.glite_file_state(state, placement=flag) == "Active"
        assert transfers.fts3_file_state(state, moved=flag) == "ACTIVE"
        assert transfers.dirac_file_status(state, moved=flag, recoverable=flag) == "Active"


def readings(word: str) -> list[tuple[int, str]]:
    """Every reading of a word, as a number beside a word."""
    return [
        *(transfers.job_from_glite(word, placement=kind) for kind in (False, True)),
        *(transfers.file_from_glite(word, placement=kind) for kind in (False, True)),
        transfers.job_from_fts3(word),
        transfers.file_from_fts3(word),
        transfers.job_from_dirac(word),
        transfers.file_from_dirac(word),
        transfers.job_from_dirac_operation(word),
    ]


MAPPED = {word for table in (JOBS, FILES) for row in rows(table) for word, _ in row.words} | {
    *(row.about[0] for row in rows(ALSO_READ)),
    *DIRAC_JOB_WORDS.split(),
    *DIRAC_FILE_WORDS.split(),
    *DIRAC_OPERATION_WORDS.split(),
}


@pytest.mark.parametrize("word", UNMAPPED)
def test_a_word_that_no_row_has_is_unknown_and_kept(word: str) -> None:
    assert set(readings(word)) == {(job("UNKNOWN"), word), (file("UNKNOWN"), word)}


@given(st.one_of(st.text(), st.sampled_from(sorted(MAPPED)).map(str.swapcase)))
def test_any_other_text_is_unknown_and_kept(word: str) -> None:
    if word not in MAPPED:
        assert set(readings(word)) == {(job("UNKNOWN"), word), (file("UNKNOWN"), word)}


def test_unknown_is_never_final() -> None:
    assert job("UNKNOWN") not in FINAL_TRANSFER_STATES
    assert job("UNKNOWN") not in map(int, JOB_FINAL)
    assert file("UNKNOWN") not in map(int, FILE_FINAL)


def test_no_state_that_goes_on_is_called_by_a_final_word_of_fts3_job() -> None:
    final = {"FINISHED", "FINISHEDDIRTY", "FAILED", "CANCELED"}
    for state in transfers.JOB_WORDS:
        assert (transfers.fts3_job_state(state) in final) == (state in FINAL_TRANSFER_STATES)
