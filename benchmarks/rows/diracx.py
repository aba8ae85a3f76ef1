"""What accepting and answering jobs costs Gridlane's server, against a released DiracX's.

Both are real servers in one process each, with real tokens of a user who may submit; the two get
the same small job, in their own language, from as many callers. The figure is how many times less
processor time Gridlane spends, its database's included; what server and database spend stands
beside it.
"""

import json
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from functools import partial
from itertools import cycle
from typing import Final

from google.protobuf import duration_pb2

from benchmarks.diracx import DiracX, diracx
from benchmarks.http_load import HttpMethod
from benchmarks.load import CALLERS, Method, in_pairs, middle
from benchmarks.row import Bound, Engine, Measured, Row, Target
from benchmarks.run import Run
from benchmarks.service import ALL, Service, service
from gridlane.ids import uuid7
from gridlane.workload.v1 import job_pb2, job_service_pb2

_SERVICE: Final = "/gridlane.workload.v1.JobService"
_BULK: Final = 20
"""What DiracX takes at most in one submission (`MAX_PARAMETRIC_JOBS`)."""
_SQLITE_CALLERS: Final = 4
"""DiracX answers 16 writers on SQLite with "database is locked"."""

_JDL: Final = """\
Executable = "python3";
Arguments = "fit.py --iterations 100 hits.csv";
JobName = "fit of the calibration constants";
JobGroup = "reprocessing-7";
JobType = "User";
StdOutput = "std.out";
StdError = "std.err";
OutputSandbox = {"std.out", "std.err"};
CPUTime = 3600;
NumberOfProcessors = 1;
Priority = 5;
Site = "ANY";
"""
_JOB: Final = job_pb2.Job(
    vo="local",
    description=job_pb2.JobDescription(
        display_name="fit of the calibration constants",
        executors=[
            job_pb2.Executor(command=["python3", "fit.py", "--iterations", "100", "hits.csv"])
        ],
        resources=job_pb2.Resources(cpu_cores=1, walltime=duration_pb2.Duration(seconds=3600)),
        tags={"campaign": "reprocessing-7"},
    ),
)


_NOTE: Final = (
    "**What each side does for its figure against DiracX 0.7.0.** Both: one server process "
    f"with all services, plain text on loopback, a token of a user who may submit, {CALLERS} "
    f"callers ({_SQLITE_CALLERS} where both are on SQLite: DiracX answers 16 with "
    '"database is locked"), '
    "every accepted job committed and synced before its answer (MariaDB with "
    "innodb_flush_log_at_trx_commit=1, PostgreSQL with fsync, SQLite with FULL; DiracX's "
    "SQLite has its rollback journal, Gridlane's a WAL). On neither side is a job scheduled "
    "or run. DiracX verifies the token's signature in every call, parses the JDL and "
    "completes it, stores the job, its JDL twice and one logging record; no tracing, no "
    "access log, warnings only, with uvloop and httptools, which it does not ask for; it is "
    "its test application, in which SQLite stands for OpenSearch, not used by these calls. "
    "Gridlane knows a token that it has verified, validates every field, decides under its "
    "policy, claims a request id (a repetition is answered, not executed), stores the job "
    "and an event, which Reporting, in the same process, follows; calls are traced but "
    "unsampled. Gridlane commits the writes of callers that wait together in one "
    "transaction: the fewer they are, the more each call pays for its commit. Status is "
    "DiracX's `jobs/search` for id and status of one job, its only way to ask, against "
    "`GetJob`, the whole job. The figure counts server and database; `of_servers_alone` "
    "leaves the database out."
)

Prepare = Callable[[DiracX, Service, int], Awaitable[tuple[HttpMethod, Method]]]
"""Stores what is needed on both sides, and returns the operations for so many callers."""


async def _submit_one(theirs: DiracX, ours: Service, callers: int) -> tuple[HttpMethod, Method]:
    return _their_submit(theirs, 1, callers), _our_submit_one(ours, callers)


async def _submit_bulk(theirs: DiracX, ours: Service, callers: int) -> tuple[HttpMethod, Method]:
    return _their_submit(theirs, _BULK, callers), _our_submit_bulk(ours, callers)


async def _status(theirs: DiracX, ours: Service, callers: int) -> tuple[HttpMethod, Method]:
    submit = _their_submit(theirs, _BULK, 1)
    async with aclosing(submit):
        inserted = json.loads(await submit.call())
    wanted = cycle([_search(job["JobID"]) for job in inserted])
    stored = await _our_submit_bulk(ours, 1).call()
    results = job_service_pb2.BatchSubmitJobsResponse.FromString(stored).results
    names = cycle([result.job.name for result in results])

    def request() -> bytes:
        return job_service_pb2.GetJobRequest(name=next(names)).SerializeToString()

    return (
        theirs.method("/api/jobs/search", lambda: next(wanted), callers),
        ours.method(f"{_SERVICE}/GetJob", request, callers),
    )


def _their_submit(theirs: DiracX, jobs: int, callers: int) -> HttpMethod:
    body = json.dumps([_JDL] * jobs).encode()
    return theirs.method("/api/jobs/jdl", lambda: body, callers)


def _our_submit_one(ours: Service, callers: int) -> Method:
    job = job_service_pb2.SubmitJobRequest(job=_JOB).SerializeToString()

    def request() -> bytes:
        # Messages that follow each other are one message (protobuf's merging).
        return job + job_service_pb2.SubmitJobRequest(request_id=uuid7()).SerializeToString()

    return ours.method(f"{_SERVICE}/SubmitJob", request, callers)


def _our_submit_bulk(ours: Service, callers: int) -> Method:
    one = job_service_pb2.SubmitJobRequest(job=_JOB)
    batch = job_service_pb2.BatchSubmitJobsRequest(requests=[one] * _BULK)

    def request() -> bytes:
        for submission in batch.requests:
            submission.request_id = uuid7()
        return batch.SerializeToString()

    return ours.method(f"{_SERVICE}/BatchSubmitJobs", request, callers)


def _search(job: int) -> bytes:
    asked = {
        "parameters": ["JobID", "Status"],
        "search": [{"parameter": "JobID", "operator": "eq", "value": str(job)}],
    }
    return json.dumps(asked).encode()


async def _measure(run: Run, *, engine: Engine, prepare: Prepare, jobs: int) -> Measured:
    theirs = await run.shared(diracx, run, with_mariadb=engine is Engine.POSTGRESQL)
    ours = await run.shared(service, run, ALL, engine)
    their, our = await prepare(theirs, ours, _callers(engine))
    async with aclosing(their):
        pairs = await in_pairs(their, our, run.effort)
    their_windows, our_windows = zip(*pairs, strict=True)
    return Measured.of(
        [a.whole_microseconds / b.whole_microseconds for a, b in pairs],
        of_servers_alone=middle(a.microseconds / b.microseconds for a, b in pairs),
        diracx_us=middle(w.microseconds / jobs for w in their_windows),
        diracx_database_us=middle(w.database_microseconds / jobs for w in their_windows),
        diracx_per_s=middle(w.calls * jobs / w.wall_s for w in their_windows),
        gridlane_us=middle(w.microseconds / jobs for w in our_windows),
        gridlane_database_us=middle(w.database_microseconds / jobs for w in our_windows),
        gridlane_per_s=middle(w.calls * jobs / w.wall_s for w in our_windows),
    )


def _callers(engine: Engine) -> int:
    return _SQLITE_CALLERS if engine is Engine.SQLITE else CALLERS


def _row(
    engine: Engine, name: str, title: str, limit: float, prepare: Prepare, jobs: int = 1
) -> Row:
    where = "both on SQLite" if engine is Engine.SQLITE else "PostgreSQL against MariaDB"
    callers = _callers(engine)
    return Row(
        name=engine.row(name),
        title=f"Against DiracX 0.7.0: {title}",
        unit="× less",
        measure=partial(_measure, engine=engine, prepare=prepare, jobs=jobs),
        target=Target(Bound.AT_LEAST, limit, "× less"),
        conditions=f"CPU a job of server and database, {callers} callers, {where}",
        engine=engine,
        note=_NOTE,
    )


def _rows(engine: Engine) -> tuple[Row, ...]:
    row = partial(_row, engine)
    return (
        row("diracx-submit", "submit 1", 25.0, _submit_one),
        row("diracx-submit-20", f"submit {_BULK}, per job", 20.0, _submit_bulk, jobs=_BULK),
        row("diracx-status", "status", 25.0, _status),
    )


ROWS = tuple(row for engine in Engine for row in _rows(engine))
