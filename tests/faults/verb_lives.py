"""Lives of the verbs on transfer jobs: many at once, streamed, updated, cancelled file by file, and
files removed.

Responsible for what a client does with them; plain transfers are `file_lives`'.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import pytest
from faults import checks
from faults.lives import CANCELED, FINISHED, PATIENCE_S, Life, until
from support import Deployment

import gridlane
from gridlane.transfer.v1 import (
    transfer_service_pb2,
    transfer_service_pb2_grpc,
)
from gridlane.transfer.v1.channel_pb2 import Channel, ChannelState
from gridlane.transfer.v1.transfer_job_pb2 import TransferJob

_LARGE = 1300
_ORPHANS = (
    "SELECT count(*) FROM file_transfer WHERE job_number NOT IN (SELECT number FROM transfer_job)"
)


class VerbsLife(Life):
    """Each verb once, in order; each is called again after a start, as far as it was not answered,
    with the same request id or for the same job.
    """

    environment: ClassVar[dict[str, str]] = {"GRIDLANE_TRANSFER_RETRY_DELAY_S": "0.1"}

    def __init__(self, server: Deployment, folder: Path) -> None:
        super().__init__(server, folder)
        self._ids = {step: gridlane.uuid7() for step in ("batch", "stream", "wrong", "late")}
        self.names: dict[str, str] = {}
        self._step = 0

    def go_on(self) -> None:
        with self.client() as client:
            for step in self._steps()[self._step :]:
                step(client)
                self._step += 1

    def _steps(self) -> Sequence[Callable[[gridlane.Client], object]]:
        return (
            lambda client: client.storage.put(b"kept\n", f"{self.place}/kept"),
            self._batch,
            self._stream,
            self._break_off,
            lambda client: client.transfers.cancel(self.names["stream"]),
            self._switch_off,
            self._wait_in_line,
            self._update,
            self._release,
            self._cancel_file,
            self._switch_on,
            self._end,
        )

    @property
    def _stub(self) -> transfer_service_pb2_grpc.TransferServiceStub:
        return transfer_service_pb2_grpc.TransferServiceStub(self.server.channel)

    def _batch(self, client: gridlane.Client) -> None:
        job = gridlane.new_transfer({f"{self.place}/kept": f"{self.place}/copy"})
        one = transfer_service_pb2.SubmitTransferJobRequest(
            transfer_job=job, request_id=self._ids["batch"]
        )
        request = transfer_service_pb2.BatchSubmitTransferJobsRequest(requests=[one])
        (result,) = self._stub.BatchSubmitTransferJobs(
            request, metadata=self.server.metadata, timeout=PATIENCE_S
        ).results
        self._named("batch", result.transfer_job)

    def _stream(self, client: gridlane.Client) -> None:
        absent = {f"{self.place}/no{n}": f"{self.place}/out{n}" for n in range(_LARGE)}
        job = gridlane.new_transfer(absent)
        self._named("stream", client.transfers.submit(job, request_id=self._ids["stream"]))

    def _break_off(self, client: gridlane.Client) -> None:
        """A stream that turns out wrong in its second part leaves nothing."""
        absent = {f"{self.place}/no{n}": f"{self.place}/out{n}" for n in range(_LARGE)}
        job = gridlane.new_transfer({**absent, "srm://nowhere/a": f"{self.place}/x"})
        with pytest.raises(gridlane.InvalidArgument):
            client.transfers.submit(job, request_id=self._ids["wrong"])

    def _switch_off(self, client: gridlane.Client) -> None:
        off = Channel(name="default", state=ChannelState.CHANNEL_STATE_INACTIVE)
        client.channels.update(off)

    def _switch_on(self, client: gridlane.Client) -> None:
        on = Channel(name="default", state=ChannelState.CHANNEL_STATE_ACTIVE)
        client.channels.update(on)

    def _wait_in_line(self, client: gridlane.Client) -> None:
        job = gridlane.new_transfer({f"{self.place}/kept": f"{self.place}/late"})
        self._named("late", client.transfers.submit(job, request_id=self._ids["late"]))

    def _update(self, client: gridlane.Client) -> None:
        assert client.transfers.update(self.names["late"], priority=5).priority == 5

    def _release(self, client: gridlane.Client) -> None:
        assert client.transfers.release(self.names["late"]) == 0

    def _cancel_file(self, client: gridlane.Client) -> None:
        (file,) = client.transfers.cancel_files(self.names["late"], [1])
        assert not isinstance(file, Exception)

    def _end(self, client: gridlane.Client) -> None:
        for name in self.names.values():
            client.transfers.wait(name, timeout=PATIENCE_S)
        until(lambda: not any(self._left()), "the end of what was staged and swept")

    def _named(self, step: str, job: TransferJob) -> None:
        assert self.names.setdefault(step, job.name) == job.name, "the same id made another job"

    def check(self) -> None:
        with self.client() as client:
            assert set(self.of_this_life(client.transfers.list())) == set(self.names.values())
            jobs = {step: client.transfers.get(name) for step, name in self.names.items()}
            stream = jobs["stream"]
            assert jobs["batch"].state == FINISHED
            assert (jobs["late"].state, stream.state) == (CANCELED, CANCELED)
            assert stream.file_count == _LARGE
            for job in jobs.values():
                if job is not stream:
                    checks.transfer_history(list(client.transfers.events(job.name)), job)
            there = {f"{self.place}/{name}": b"kept\n" for name in ("kept", "copy")}
            self.check_stored(client, there)

    def _left(self) -> Iterator[int]:
        """How many rows there are of work that is to pass."""
        url = self.server.database_url("transfer")
        for statement in (
            "SELECT count(*) FROM staged_job",
            "SELECT count(*) FROM sweep",
            _ORPHANS,
        ):
            ((count,),) = checks.rows(url, statement)
            yield count


class RemovalLife(Life):
    """Files that are removed in the background; one of them is not there."""

    environment: ClassVar[dict[str, str]] = VerbsLife.environment

    def __init__(self, server: Deployment, folder: Path) -> None:
        super().__init__(server, folder)
        self.request_id = gridlane.uuid7()
        self.name = ""
        self._put = False

    def go_on(self) -> None:
        with self.client() as client:
            if not self._put:
                client.storage.put(b"gone\n", f"{self.place}/gone")
                self._put = True
            gone = [f"{self.place}/{name}" for name in ("gone", "never")]
            job = client.transfers.remove(gone, request_id=self.request_id)
            assert self.name in ("", job.name), "the same id made another job"
            self.name = job.name
            client.transfers.wait(self.name, timeout=PATIENCE_S)

    def check(self) -> None:
        with self.client() as client:
            assert self.of_this_life(client.transfers.list()) == [self.name]
            job = client.transfers.get(self.name)
            checks.all_finished([job], [2])
            checks.transfer_history(list(client.transfers.events(self.name)), job)
            for file in job.files:
                attempts = list(client.transfers.attempts(file.name))
                assert [one.attempt for one in attempts] == list(range(1, file.attempt + 1))
                assert attempts[-1].outcome == file.state
            self.check_stored(client, {})
