"""What accepting transfer jobs costs Transfer, against the reference.

Transfer stands alone in its process, its movers at rest (`room_server`): the rows are about the
calls, not about moving what was submitted.
"""

from functools import partial
from typing import Final

from benchmarks.load import CALLERS, PAYLOAD_BYTES, Method
from benchmarks.row import Bound, Engine, Row, Target
from benchmarks.service import Prepare, Service, against_echo
from gridlane.ids import uuid7
from gridlane.transfer.v1 import transfer_job_pb2, transfer_service_pb2

_SUBMIT: Final = "/gridlane.transfer.v1.TransferService/SubmitTransferJob"
_MANY: Final = 1_000
_MANY_CALLERS: Final = 8
"""As with batches of jobs: what the group commit's queue holds without refusing any."""


async def _submit_one(service: Service) -> Method:
    return _submit(service, _transfer(service, 1), CALLERS)


async def _submit_many(service: Service) -> Method:
    return _submit(service, _transfer(service, _MANY), _MANY_CALLERS)


def _submit(service: Service, job: transfer_job_pb2.TransferJob, callers: int) -> Method:
    described = transfer_service_pb2.SubmitTransferJobRequest(transfer_job=job).SerializeToString()

    def request() -> bytes:
        # Messages that follow each other are one message (protobuf's merging).
        own = transfer_service_pb2.SubmitTransferJobRequest(request_id=uuid7())
        return described + own.SerializeToString()

    return service.method(_SUBMIT, request, callers)


def _transfer(service: Service, files: int) -> transfer_job_pb2.TransferJob:
    """A transfer job within the store; a small one is filled up to the usual payload with tags."""
    store = (service.directory / "storage" / "local").as_uri()
    job = transfer_job_pb2.TransferJob(
        vo="local",
        files=[
            transfer_job_pb2.FileTransfer(
                source=f"{store}/raw/run-7/hits-{number}.csv",
                target=f"{store}/copies/run-7/hits-{number}.csv",
                size_bytes=1 << 20,
            )
            for number in range(files)
        ],
    )
    for number in range(4):
        missing = PAYLOAD_BYTES - job.ByteSize()
        if missing > 0:
            job.tags[f"filling-{number}"] = "x" * min(255, missing)
    return job


def _row(
    engine: Engine,
    name: str,
    title: str,
    limit: float,
    prepare: Prepare,
    *,
    files: int,
    callers: int,
) -> Row:
    per = "a file" if files > 1 else "a call"
    return Row(
        name=engine.row(name),
        title=title,
        unit="× echo",
        measure=partial(against_echo, name="transfer", engine=engine, prepare=prepare, items=files),
        target=Target(Bound.AT_MOST, limit, "× echo"),
        conditions=f"server CPU {per}, {callers} callers, {engine.words}, unsampled",
        engine=engine,
    )


def _rows(engine: Engine) -> tuple[Row, ...]:
    row = partial(_row, engine)
    return (
        row(
            "submit-transfer",
            "SubmitTransferJob of 1 file",
            1.4,
            _submit_one,
            files=1,
            callers=CALLERS,
        ),
        row(
            "submit-transfer-1000",
            f"SubmitTransferJob of {_MANY} files, per file",
            0.12,
            _submit_many,
            files=_MANY,
            callers=_MANY_CALLERS,
        ),
    )


ROWS = tuple(row for engine in Engine for row in _rows(engine))
