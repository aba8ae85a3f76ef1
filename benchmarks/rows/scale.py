"""What calls cost among a million jobs, against the same calls among a thousand.

Two servers of one service, one on a large store and one on a small one (`stores`), are called in
turn; the answers are alike, since the user's own jobs are the same few in both, the oldest.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from itertools import cycle
from typing import Final

from benchmarks.identity import VO
from benchmarks.load import CALLERS, Method, in_pairs, middle
from benchmarks.processes import cpu_seconds, succeed
from benchmarks.row import Bound, Engine, Measured, Row, Target
from benchmarks.run import Run
from benchmarks.service import Prepare, Service, service
from benchmarks.stores import OLDEST_OWN
from gridlane.transfer.v1 import transfer_job_pb2
from gridlane.transfer.v1 import transfer_service_pb2 as transfer
from gridlane.type.v1 import time_window_pb2
from gridlane.workload.v1 import job_service_pb2 as workload
from gridlane_kit.clock import from_timestamp, to_timestamp

_JOBS: Final = "/gridlane.workload.v1.JobService"
_TRANSFERS: Final = "/gridlane.transfer.v1.TransferService"
_SMALL: Final = 1_000
_PAGE: Final = 20
_LOOK_S: Final = 2.0
_AT_REST: Final = 0.1
"""Of a processor: who takes less has nothing to look through."""
_LONGEST_S: Final = 900.0


def _listing(path: str, request: bytes) -> Prepare:
    async def prepare(service: Service) -> Method:
        return service.method(path, lambda: request)

    return prepare


async def _get_job(service: Service) -> Method:
    names = cycle(await _job_names(service))

    def request() -> bytes:
        return workload.GetJobRequest(name=next(names)).SerializeToString()

    return service.method(f"{_JOBS}/GetJob", request)


async def _get_transfer(service: Service) -> Method:
    names = cycle(await _transfer_names(service))

    def request() -> bytes:
        return transfer.GetTransferJobRequest(name=next(names)).SerializeToString()

    return service.method(f"{_TRANSFERS}/GetTransferJob", request)


async def _list_transfers_of_job(service: Service) -> Method:
    jobs = cycle([job.tags["gridlane.job"] for job in await _own_transfers(service)])

    def request() -> bytes:
        asked = f'tags.gridlane.job = "{next(jobs)}"'
        return transfer.ListTransferJobsRequest(filter=asked).SerializeToString()

    return service.method(f"{_TRANSFERS}/ListTransferJobs", request)


async def _summarize_transfer(service: Service) -> Method:
    names = cycle(await _transfer_names(service))

    def request() -> bytes:
        asked = f'name = "{next(names)}"'
        return transfer.SummarizeTransferJobsRequest(filter=asked).SerializeToString()

    return service.method(f"{_TRANSFERS}/SummarizeTransferJobs", request)


async def _summarize_first_transfers(service: Service) -> Method:
    """The user's oldest hundred, which are the same in both stores: by the time of their
    acceptance.
    """
    oldest = (await _own_transfers(service))[-OLDEST_OWN:]
    window = time_window_pb2.TimeWindow(
        start_time=oldest[-1].create_time,
        end_time=to_timestamp(from_timestamp(oldest[0].create_time) + 1),
    )
    request = transfer.SummarizeTransferJobsRequest(window=window).SerializeToString()
    return service.method(f"{_TRANSFERS}/SummarizeTransferJobs", lambda: request)


async def _job_names(service: Service) -> list[str]:
    """The user's jobs, from all over the store: the newest thousand."""
    request = workload.ListJobsRequest(page_size=1000).SerializeToString()
    answer = await service.method(f"{_JOBS}/ListJobs", lambda: request).call()
    return [job.name for job in workload.ListJobsResponse.FromString(answer).jobs]


async def _transfer_names(service: Service) -> list[str]:
    return [job.name for job in await _own_transfers(service)]


async def _own_transfers(service: Service) -> list[transfer_job_pb2.TransferJob]:
    """The user's transfers, from all over the store, the newest first."""
    found: list[transfer_job_pb2.TransferJob] = []
    token = ""
    while not found or token:
        asked = transfer.ListTransferJobsRequest(page_size=1000, page_token=token)
        page = await _page_of_transfers(service, asked.SerializeToString())
        found += page.transfer_jobs
        token = page.next_page_token
    return found


async def _page_of_transfers(service: Service, request: bytes) -> transfer.ListTransferJobsResponse:
    answer = await service.method(f"{_TRANSFERS}/ListTransferJobs", lambda: request).call()
    return transfer.ListTransferJobsResponse.FromString(answer)


@asynccontextmanager
async def _on_store(run: Run, name: str, engine: Engine, stored: int) -> AsyncIterator[Service]:
    """A service on a store with so many jobs."""

    async def fill(url: str) -> None:
        await succeed(sys.executable, "-m", "benchmarks.stores", name, url, str(stored))

    async with service(run, name, engine, fill) as filled:
        await _rests(filled.pid)
        yield filled


async def _rests(pid: int) -> None:
    """Waits until a server has looked through what it found: whether all of it may go on."""
    async with asyncio.timeout(_LONGEST_S):
        busy = True
        while busy:
            before_s = cpu_seconds(pid)
            await asyncio.sleep(_LOOK_S)
            busy = cpu_seconds(pid) - before_s > _AT_REST * _LOOK_S


async def _measure(run: Run, *, name: str, engine: Engine, prepare: Prepare) -> Measured:
    small = await run.shared(_on_store, run, name, engine, _SMALL)
    large = await run.shared(_on_store, run, name, engine, run.effort.stored)
    pairs = await in_pairs(await prepare(small), await prepare(large), run.effort)
    return Measured.of(
        [among_many.whole_microseconds / few.whole_microseconds for few, among_many in pairs],
        stored=run.effort.stored,
        small_us=middle(few.microseconds for few, _ in pairs),
        small_database_us=middle(few.database_microseconds for few, _ in pairs),
        large_us=middle(many.microseconds for _, many in pairs),
        large_database_us=middle(many.database_microseconds for _, many in pairs),
    )


def _row(engine: Engine, name: str, title: str, service: str, prepare: Prepare) -> Row:
    return Row(
        name=engine.row(f"scale-{name}"),
        title=f"{title} among very many jobs",
        unit="× among a thousand",
        measure=partial(_measure, name=service, engine=engine, prepare=prepare),
        target=Target(Bound.AT_MOST, 1.2, "× among a thousand"),
        conditions=f"CPU of server and database, {CALLERS} callers, pages of {_PAGE},"
        f" {engine.words}",
        engine=engine,
    )


def _rows(engine: Engine) -> tuple[Row, ...]:
    row = partial(_row, engine)
    jobs = partial(workload.ListJobsRequest, page_size=_PAGE)
    transfers = partial(transfer.ListTransferJobsRequest, page_size=_PAGE)
    list_jobs = partial(_listing, f"{_JOBS}/ListJobs")
    list_transfers = partial(_listing, f"{_TRANSFERS}/ListTransferJobs")
    return (
        row("get-job", "GetJob", "workload", _get_job),
        row("list-jobs", "ListJobs", "workload", list_jobs(jobs().SerializeToString())),
        row(
            "list-jobs-filtered",
            "ListJobs in a state",
            "workload",
            list_jobs(jobs(filter='state = "DONE"').SerializeToString()),
        ),
        row("get-transfer", "GetTransferJob", "transfer", _get_transfer),
        row(
            "list-transfers",
            "ListTransferJobs",
            "transfer",
            list_transfers(transfers().SerializeToString()),
        ),
        row(
            "list-transfers-filtered",
            "ListTransferJobs in a state",
            "transfer",
            list_transfers(transfers(filter='state = "FINISHED"').SerializeToString()),
        ),
        row(
            "list-transfers-of-vo",
            "ListTransferJobs of a VO",
            "transfer",
            list_transfers(transfers(filter=f'vo = "{VO}"').SerializeToString()),
        ),
        row(
            "list-transfers-of-job",
            "ListTransferJobs for a job",
            "transfer",
            _list_transfers_of_job,
        ),
        row(
            "summarize-transfer",
            "SummarizeTransferJobs of one",
            "transfer",
            _summarize_transfer,
        ),
        row(
            "summarize-transfers",
            f"SummarizeTransferJobs of the user's oldest {OLDEST_OWN}",
            "transfer",
            _summarize_first_transfers,
        ),
    )


ROWS = tuple(row for engine in Engine for row in _rows(engine))
