"""Reading jobs: single ones, listings, histories, and what callers may see of them.

Responsible for the relation between caller and job: what it may not see is absent, what it may see
but not touch is denied. The statements are `store`'s.
"""

from collections.abc import Sequence
from typing import Final

from sqlalchemy import select

from gridlane.workload.v1.event_pb2 import JobEvent
from gridlane.workload.v1.job_service_pb2 import (
    ListJobEventsRequest,
    ListJobEventsResponse,
    ListJobsRequest,
    ListJobsResponse,
)
from gridlane_kit import errors
from gridlane_kit.call import Call
from gridlane_kit.clock import now_us
from gridlane_kit.database import Database
from gridlane_kit.decision import decide
from gridlane_kit.filters import Field, FilterRules
from gridlane_kit.grouped_read import GroupedRead
from gridlane_kit.pages import Keyset, fetch_page, page_request
from gridlane_kit.policy import PolicyHolder
from gridlane_workload import states, store
from gridlane_workload.listings import NEWEST_FIRST, listing
from gridlane_workload.store import FEED_TABLES, StoredJob

FILTER: Final = FilterRules(
    {"state": Field(states.parse), "vo": Field(str)},
    combinations=[{"state"}, {"vo"}, {"vo", "state"}],
)
_EVENT: Final = FEED_TABLES.event
_OLDEST_FIRST: Final = Keyset(_EVENT.c.position)


class Reading:
    """Reads jobs for callers."""

    def __init__(
        self, db: Database, reads: GroupedRead[str, StoredJob], policy: PolicyHolder
    ) -> None:
        self._db = db
        self._reads = reads
        self._policy = policy

    async def one(self, name: str, call: Call) -> StoredJob:
        """A job that the caller may act upon as the call asks.

        Raises:
            GridlaneError: NOT_FOUND, also for one that the caller may not see; PERMISSION_DENIED
                for one that it may see and not touch.
        """
        (stored,) = await self.some([name], call)
        if isinstance(stored, errors.GridlaneError):
            raise stored
        return stored

    async def some(
        self, names: Sequence[str], call: Call
    ) -> list[StoredJob | errors.GridlaneError]:
        """Jobs in the order of their names, or for each why there is none."""
        found = await self._reads.get_many([name.removeprefix("jobs/") for name in names])
        return [self._judged(name, stored, call) for name, stored in zip(names, found, strict=True)]

    def _judged(
        self, name: str, stored: StoredJob | None, call: Call
    ) -> StoredJob | errors.GridlaneError:
        if stored is not None and store.sees(call.visibility, stored):
            return stored
        # Decided for what is absent too, so that it takes as long as what the caller must not see.
        viewing = decide(call.principal, "workload.jobs.view", self._policy.current, now_us())
        if stored is not None and viewing.allowed and store.sees(viewing.visibility, stored):
            return errors.permission_denied(
                call.decision.permission,
                name,
                f"you may see {name}, but only its owner, a manager of its VO or an administrator"
                " may do this",
            )
        return errors.not_found(name)

    async def page(self, request: ListJobsRequest, call: Call) -> ListJobsResponse:
        """A page of the jobs that the caller may see, newest first."""
        asked = FILTER.parse(request.filter)
        page = page_request(
            NEWEST_FIRST,
            page_size=request.page_size,
            page_token=request.page_token,
            binding=("ListJobs", asked.canonical, call.principal.owner),
        )
        statement = listing(
            call.visibility, state=asked.value("state"), vo=asked.value("vo"), page=page
        )
        rows, token = await self._db.read(
            lambda conn: fetch_page(conn, statement, NEWEST_FIRST, page)
        )
        return ListJobsResponse(
            jobs=[StoredJob._make(row).message() for row in rows], next_page_token=token
        )

    async def history(self, request: ListJobEventsRequest) -> ListJobEventsResponse:
        """A page of what happened to a job, oldest first; the caller may see it."""
        page = page_request(
            _OLDEST_FIRST,
            page_size=request.page_size,
            page_token=request.page_token,
            binding=("ListJobEvents", request.parent),
        )
        statement = select(_EVENT.c.position, _EVENT.c.payload).where(
            _EVENT.c.subject == request.parent
        )
        rows, token = await self._db.read(
            lambda conn: fetch_page(conn, statement, _OLDEST_FIRST, page)
        )
        return ListJobEventsResponse(
            events=[JobEvent.FromString(row.payload) for row in rows], next_page_token=token
        )
