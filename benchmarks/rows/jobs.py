"""What accepting and answering jobs costs Workload, against the reference.

Workload stands alone in its process, its reconciler at rest (`room_server`): the rows are about the
calls, not about running what was submitted.
"""

from collections.abc import Callable
from functools import partial
from itertools import cycle, islice
from typing import Final

from benchmarks.load import CALLERS, PAYLOAD_BYTES, Method
from benchmarks.row import Bound, Engine, Row, Target
from benchmarks.service import Prepare, Service, against_echo
from gridlane.ids import uuid7
from gridlane.workload.v1 import job_pb2, job_service_pb2

_SERVICE: Final = "/gridlane.workload.v1.JobService"
_BATCH_SUBMIT: Final = f"{_SERVICE}/BatchSubmitJobs"
_STORED: Final = 1_000
_SUBMITTED_AT_ONCE: Final = 1_000
_ASKED_AT_ONCE: Final = 100
_BATCH_CALLERS: Final = 8
"""As many as the group commit's queue (10 000 entries) holds without refusing any."""


async def _submit(service: Service) -> Method:
    job = job_service_pb2.SubmitJobRequest(job=_job()).SerializeToString()

    def request() -> bytes:
        # Messages that follow each other are one message (protobuf's merging).
        return job + job_service_pb2.SubmitJobRequest(request_id=uuid7()).SerializeToString()

    return service.method(f"{_SERVICE}/SubmitJob", request)


async def _batch_submit(service: Service) -> Method:
    return service.method(_BATCH_SUBMIT, _batches(_SUBMITTED_AT_ONCE), _BATCH_CALLERS)


async def _get(service: Service) -> Method:
    names = cycle(await _stored(service))

    def request() -> bytes:
        return job_service_pb2.GetJobRequest(name=next(names)).SerializeToString()

    return service.method(f"{_SERVICE}/GetJob", request)


async def _batch_get(service: Service) -> Method:
    names = cycle(await _stored(service))

    def request() -> bytes:
        asked = islice(names, _ASKED_AT_ONCE)
        return job_service_pb2.BatchGetJobsRequest(names=asked).SerializeToString()

    return service.method(f"{_SERVICE}/BatchGetJobs", request)


async def _stored(service: Service) -> list[str]:
    """Stores jobs and returns their names."""
    answer = await service.method(_BATCH_SUBMIT, _batches(_STORED)).call()
    results = job_service_pb2.BatchSubmitJobsResponse.FromString(answer).results
    return [result.job.name for result in results if result.job.name]


def _batches(size: int) -> Callable[[], bytes]:
    one = job_service_pb2.SubmitJobRequest(job=_job())
    batch = job_service_pb2.BatchSubmitJobsRequest(requests=[one] * size)

    def request() -> bytes:
        for submission in batch.requests:
            submission.request_id = uuid7()
        return batch.SerializeToString()

    return request


def _job() -> job_pb2.Job:
    """A job as users submit them: a command, an input, an output, variables and a tag."""
    job = job_pb2.Job(
        vo="local",
        description=job_pb2.JobDescription(
            display_name="fit of the calibration constants",
            inputs=[job_pb2.JobInput(path="hits.csv", source="LFN:/local/raw/run-7/hits.csv")],
            outputs=[job_pb2.JobOutput(path="fit.json", target="LFN:/local/fits/run-7.json")],
            executors=[
                job_pb2.Executor(
                    command=["python3", "fit.py", "--iterations", "100", "hits.csv"],
                    environment={"OMP_NUM_THREADS": "1", "DETECTOR": "barrel"},
                )
            ],
            resources=job_pb2.Resources(cpu_cores=1, memory_bytes=2 << 30),
            tags={"campaign": "reprocessing-7"},
        ),
    )
    request = job_service_pb2.SubmitJobRequest(job=job, request_id=uuid7())
    job.description.executors[0].command.append("x" * (PAYLOAD_BYTES - request.ByteSize()))
    return job


def _row(
    engine: Engine,
    name: str,
    title: str,
    limit: float,
    prepare: Prepare,
    *,
    items: int = 1,
    callers: int = CALLERS,
) -> Row:
    per = "a job" if items > 1 else "a call"
    return Row(
        name=engine.row(name),
        title=title,
        unit="× echo",
        measure=partial(against_echo, name="workload", engine=engine, prepare=prepare, items=items),
        target=Target(Bound.AT_MOST, limit, "× echo"),
        conditions=f"server CPU {per}, {callers} callers, a job of 1 KiB, {engine.words},"
        " unsampled",
        engine=engine,
    )


def _rows(engine: Engine) -> tuple[Row, ...]:
    row = partial(_row, engine)
    return (
        row("submit-job", "SubmitJob", 1.4, _submit),
        row(
            "batch-submit-jobs",
            f"BatchSubmitJobs of {_SUBMITTED_AT_ONCE}, per job",
            0.2,
            _batch_submit,
            items=_SUBMITTED_AT_ONCE,
            callers=_BATCH_CALLERS,
        ),
        row("get-job", "GetJob", 1.3, _get),
        row(
            "batch-get-jobs",
            f"BatchGetJobs of {_ASKED_AT_ONCE}, per job",
            0.06,
            _batch_get,
            items=_ASKED_AT_ONCE,
        ),
    )


ROWS = tuple(row for engine in Engine for row in _rows(engine))
