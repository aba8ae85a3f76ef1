"""Transfer jobs: `client.transfers`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence

from gridlane.calls import Timeout, in_seconds
from gridlane.ids import uuid7
from gridlane.modes import Mode, stream, verb
from gridlane.names import job_name, transfer_name
from gridlane.nouns.noun import equals
from gridlane.nouns.transfer_methods import (
    BATCH_GET,
    CANCEL,
    GET,
    LIST,
    LIST_EVENTS,
    LIST_FILES,
    WATCH,
)
from gridlane.nouns.transfer_verbs import TransferResults, TransferVerbs, job_or_error
from gridlane.states import FINAL_TRANSFER_STATES
from gridlane.transfer.v1 import transfer_service_pb2 as rpc
from gridlane.transfer.v1.event_pb2 import TransferEvent
from gridlane.transfer.v1.transfer_job_pb2 import FileTransfer, TransferJob
from gridlane.watch import resumed

_BATCH = 1000


class Transfers(TransferVerbs[Mode]):
    """The transfer service's jobs and their files."""

    @verb
    async def submit(
        self,
        transfer_job: TransferJob,
        *,
        request_id: str | None = None,
        validate_only: bool = False,
        timeout: Timeout = None,
    ) -> TransferJob:
        """Hand in a transfer job; the answer means that it is durable.

        Parameters:
            transfer_job: what `gridlane.new_transfer` makes. One of more than 1000 files is
                streamed, up to 100 000, and answered without its files.
            request_id: a UUIDv7; the same id with the same job answers the same job, for 30 days.
                None: a new one.
            validate_only: check, store nothing.
            timeout: see the package.

        Raises:
            InvalidArgument: `violations` names each field that is wrong; reason NO_STORAGE_ELEMENT:
                nothing serves a source or target.
            AlreadyExists: the request id came with another job before.
        """
        return await self._submit(transfer_job, request_id or uuid7(), validate_only, timeout)

    @verb
    async def get(self, name: str, *, timeout: Timeout = None) -> TransferJob:
        """One transfer job with its files.

        Parameters:
            name: "transfers/<uuid>" or the bare id.
            timeout: see the package.

        Raises:
            NotFound: there is none that the caller may see.
        """
        return await self._get(name, timeout)

    async def _get(self, name: str, timeout: Timeout) -> TransferJob:
        request = rpc.GetTransferJobRequest(name=transfer_name(name))
        return await self._calls.unary(GET, request, timeout)

    @verb
    async def get_many(self, names: Iterable[str], *, timeout: Timeout = None) -> TransferResults:
        """Many transfer jobs without their files, 1000 a call.

        Returns:
            One for each name, in order: the job, or NotFound (returned, not raised).
        """
        asked = [transfer_name(name) for name in names]
        results: TransferResults = []
        for start in range(0, len(asked), _BATCH):
            batch = rpc.BatchGetTransferJobsRequest(names=asked[start : start + _BATCH])
            answer = await self._calls.unary(BATCH_GET, batch, timeout)
            results += map(job_or_error, answer.results)
        return results

    @stream
    def list(
        self,
        *,
        state: str | None = None,
        vo: str | None = None,
        job: str | None = None,
        limit: int | None = None,
        timeout: Timeout = None,
    ) -> AsyncGenerator[TransferJob]:
        """The transfer jobs that the caller may see, newest first, without their files.

        Parameters:
            state, vo: only those in this state ("ACTIVE"), of this VO, or both.
            job: only those that belong to this job ("jobs/<uuid>"); not with the two others.
            limit: at most this many; None for all.
            timeout: for each page of 1000.
        """
        filtered = equals(
            state=state.upper() if state else None,
            vo=vo,
            **{"tags.gridlane.job": job_name(job).rpartition("/")[2] if job else None},
        )
        request = rpc.ListTransferJobsRequest(filter=filtered)
        return self._listed(LIST, request, lambda page: page.transfer_jobs, limit, timeout)

    @stream
    def files(
        self,
        name: str,
        *,
        state: str | None = None,
        limit: int | None = None,
        timeout: Timeout = None,
    ) -> AsyncGenerator[FileTransfer]:
        """The files of a transfer job, in the order of submission.

        Parameters:
            name: "transfers/<uuid>" or the bare id.
            state: only those in this state ("FAILED").
            limit: at most this many; None for all.
            timeout: for each page of 1000.
        """
        request = rpc.ListFileTransfersRequest(
            parent=transfer_name(name), filter=equals(state=state.upper() if state else None)
        )
        return self._listed(LIST_FILES, request, lambda page: page.files, limit, timeout)

    @stream
    def events(
        self, name: str, *, limit: int | None = None, timeout: Timeout = None
    ) -> AsyncGenerator[TransferEvent]:
        """What happened to a transfer job and its files, oldest first, for as long as events are
        kept.
        """
        request = rpc.ListTransferEventsRequest(parent=transfer_name(name))
        return self._listed(LIST_EVENTS, request, lambda page: page.events, limit, timeout)

    @verb
    async def cancel(self, name: str, *, reason: str = "", timeout: Timeout = None) -> TransferJob:
        """Ask for the end of a transfer job: finished files stay, the others are cancelled.

        Parameters:
            reason: why; kept in the failures of what it ends.

        Raises:
            NotFound: there is none that the caller may see.
            PermissionDenied: the caller may see it, not cancel it.
        """
        request = rpc.CancelTransferJobRequest(name=transfer_name(name), reason=reason)
        return await self._calls.unary(CANCEL, request, timeout)

    @stream
    def watch(
        self, names: str | Sequence[str], *, resume_token: str = "", timeout: Timeout = None
    ) -> AsyncGenerator[TransferEvent]:
        """The changes of transfer jobs and their files as they happen, each once and in order.

        Parameters:
            names: one transfer job or up to 1000.
            resume_token: where an earlier watch stopped; empty: from each job's first event.
            timeout: how long to watch; None for as long as the caller takes events.

        Raises:
            NotFound: one of them is not there or may not be seen.
            OutOfRange: the events behind the token are no longer kept.
            DeadlineExceeded: the timeout passed.
        """
        return self._watch(names, resume_token, timeout)

    def _watch(
        self, names: str | Sequence[str], resume_token: str, timeout: Timeout
    ) -> AsyncGenerator[TransferEvent]:
        asked = [transfer_name(name) for name in ([names] if isinstance(names, str) else names)]
        return resumed(
            self._calls,
            WATCH,
            lambda token: rpc.WatchTransferJobsRequest(names=asked, resume_token=token),
            lambda response, token: (response.resume_token or token, response.events),
            resume_token,
            None if timeout is None else in_seconds(timeout, 0),
        )

    @verb
    async def wait(self, name: str, *, timeout: Timeout = None) -> TransferJob:
        """Wait until a transfer job has ended, well or not.

        Parameters:
            name: "transfers/<uuid>" or the bare id.
            timeout: how long to wait; None for ever.

        Returns:
            The transfer job with its files, in a final state.

        Raises:
            DeadlineExceeded: it has not ended in time.
        """
        events = self._watch(name, "", timeout)
        try:
            async for event in events:
                if event.job.state in FINAL_TRANSFER_STATES:
                    break
        finally:
            await events.aclose()
        return await self._get(name, None)
