"""Jobs parted into transactions."""

from hypothesis import given
from hypothesis import strategies as st

from gridlane_transfer.jobs.transactions import MOST_FILES, parted


@given(st.lists(st.integers(0, MOST_FILES * 2), max_size=40), st.integers(1, 10))
def test_every_job_is_in_one_transaction_that_has_no_more_than_it_may(
    sizes: list[int], most_jobs: int
) -> None:
    files = dict(enumerate(sizes))
    parts = list(parted(files, most_jobs=most_jobs))
    assert [key for some in parts for key in some] == list(files)
    for some in parts:
        assert 0 < len(some) <= most_jobs
        assert len(some) == 1 or sum(files[key] for key in some) <= MOST_FILES
