"""Listings as one sequence."""

from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gridlane
from gridlane.modes import iterate
from gridlane.nouns import jobs
from gridlane.pages import all_items
from gridlane.workload.v1 import job_service_pb2 as rpc
from gridlane.workload.v1.job_pb2 import Job

Server = Any


class Listing:
    """A listing of numbers in pages, as a server has it."""

    def __init__(self, pages: list[list[int]]) -> None:
        self.pages = pages
        self.asked: list[str] = []

    async def fetch(self, token: str) -> Any:
        self.asked.append(token)
        at = int(token or 0)
        more = str(at + 1) if at + 1 < len(self.pages) else ""
        jobs_of_page = [Job(number=number) for number in self.pages[at]]
        return rpc.ListJobsResponse(jobs=jobs_of_page, next_page_token=more)

    def numbers(self, limit: int | None = None) -> list[int]:
        found = iterate(all_items(self.fetch, lambda page: page.jobs, limit))
        return [job.number for job in found]


pages = st.lists(st.lists(st.integers(0, 99), max_size=5), min_size=1, max_size=6)


@given(pages)
def test_all_items_come_once_and_in_order(given_pages: list[list[int]]) -> None:
    assert Listing(given_pages).numbers() == [n for page in given_pages for n in page]


@given(pages, st.integers(0, 30))
def test_a_limit_is_kept_and_no_page_too_many_is_asked_for(
    given_pages: list[list[int]], limit: int
) -> None:
    listing = Listing(given_pages)
    everything = [n for page in given_pages for n in page]
    assert listing.numbers(limit) == everything[:limit]
    before_last = sum(len(page) for page in given_pages[: max(0, len(listing.asked) - 1)])
    assert len(listing.asked) == 0 if limit == 0 else before_last < limit


def test_a_server_that_repeats_a_token_does_not_hold_us_for_ever() -> None:
    async def fetch(_: str) -> Any:
        return rpc.ListJobsResponse(jobs=[Job(number=1)], next_page_token="same")

    with pytest.raises(gridlane.Internal, match="twice"):
        list(iterate(all_items(fetch, lambda page: page.jobs)))


def test_pages_are_asked_for_as_they_are_needed(scripted: Server, client: gridlane.Client) -> None:
    asked: list[Any] = []

    def answer(request: Any, _: grpc.ServicerContext) -> Any:
        asked.append((request.page_token, request.page_size, request.filter))
        return rpc.ListJobsResponse(jobs=[Job(number=len(asked))], next_page_token=str(len(asked)))

    scripted.unary(jobs.LIST, answer)
    listing = client.jobs.list(state="running", vo="local", limit=5)
    assert asked == []
    assert next(listing).number == 1
    assert next(listing).number == 2
    assert asked == [
        ("", 5, 'vo = "local" AND state = "RUNNING"'),
        ("1", 5, 'vo = "local" AND state = "RUNNING"'),
    ]


def test_a_filters_value_cannot_say_more_than_a_value(client: gridlane.Client) -> None:
    with pytest.raises(ValueError, match="quotes"):
        list(client.jobs.list(vo='x" OR vo = "y'))
