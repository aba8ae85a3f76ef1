"""Work on many jobs, parted into transactions that stay short however many files they have."""

from collections.abc import Iterator, Mapping
from typing import Final, TypeVar

K = TypeVar("K")

MOST_FILES: Final = 1000
"""So many files change in one transaction, unless a single job has more."""


def parted(files: Mapping[K, int], *, most_jobs: int = MOST_FILES) -> Iterator[list[K]]:
    """The jobs in order, as many at a time as one transaction takes.

    Parameters:
        files: by the jobs' keys, how many of its files change.
    """
    some: list[K] = []
    count = 0
    for key, its in files.items():
        if some and (count + its > MOST_FILES or len(some) == most_jobs):
            yield some
            some, count = [], 0
        some.append(key)
        count += its
    if some:
        yield some
