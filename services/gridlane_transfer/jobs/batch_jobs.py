"""Transfer jobs submitted many at once: each is checked and answered by itself.

Responsible for the call. What a description must be is `submission`'s.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from gridlane.transfer.v1 import transfer_job_pb2, transfer_service_pb2
from gridlane_kit import errors
from gridlane_kit.call import Call
from gridlane_kit.errors import GridlaneError
from gridlane_kit.failpoints import failpoint
from gridlane_kit.group_commit import WriteKind
from gridlane_kit.validation import validate
from gridlane_transfer.jobs import transactions
from gridlane_transfer.jobs.earlier_calls import EarlierCalls
from gridlane_transfer.jobs.submission import Submissions
from gridlane_transfer.store.jobs import NewTransferJob, Resubmitted, Submitted

MOST_FILES: Final = 10_000
_CHECKED_TOGETHER: Final = 20

_SUBMITTED = failpoint("transfer.batch.committed")

Result = transfer_job_pb2.TransferJob | GridlaneError
Request = transfer_service_pb2.SubmitTransferJobRequest


class BatchJobs:
    """The call.

    Parameters:
        submit: the write, through the group commit.
        reread: a job that came before, without its files, as its caller may see it now.
        wake: has due files looked for.
    """

    def __init__(
        self,
        submissions: Submissions,
        earlier: EarlierCalls,
        *,
        submit: WriteKind[NewTransferJob, Submitted | Resubmitted],
        reread: Callable[[str, Call], Awaitable[transfer_job_pb2.TransferJob]],
        wake: Callable[[], None],
    ) -> None:
        self._submissions = submissions
        self._earlier = earlier
        self._submit = submit
        self._reread = reread
        self._wake = wake

    async def submit(self, requests: Sequence[Request], call: Call) -> list[Result]:
        """Accept jobs; each without its files, or why it is refused, in the order given.

        Raises:
            GridlaneError: INVALID_FIELDS: more files than one call may bring.
        """
        count = sum(len(request.transfer_job.files) for request in requests)
        if count > MOST_FILES:
            raise errors.invalid(
                [("requests", f"{count} files; at most {MOST_FILES} in all: stream larger jobs")]
            )
        results: dict[int, Result] = {}
        accepted: dict[int, NewTransferJob] = {}
        refused: dict[int, GridlaneError] = {}
        for index, checked in enumerate(await self._all_checked(requests, call)):
            if isinstance(checked, GridlaneError):
                refused[index] = checked
            elif requests[index].validate_only:
                results[index] = _answer(checked, named=False)
            else:
                accepted[index] = checked
        results |= await self._refused(requests, refused, call)
        sizes = {index: len(new.files) for index, new in accepted.items()}
        for some in transactions.parted(sizes):
            results |= await self._stored({index: accepted[index] for index in some}, call)
        return [results[index] for index in range(len(requests))]

    async def _all_checked(
        self, requests: Sequence[Request], call: Call
    ) -> list[NewTransferJob | GridlaneError]:
        """Some at a time, so that the catalogue is asked once for them, and others get their turn
        between them.
        """
        checked: list[NewTransferJob | GridlaneError] = []
        for start in range(0, len(requests), _CHECKED_TOGETHER):
            some = requests[start : start + _CHECKED_TOGETHER]
            checked += await asyncio.gather(*(self._checked(one, call) for one in some))
            await asyncio.sleep(0)
        return checked

    async def _checked(self, request: Request, call: Call) -> NewTransferJob | GridlaneError:
        try:
            validate(request)
            return await self._submissions.accept(request, call)
        except GridlaneError as error:
            return error

    async def _refused(
        self, requests: Sequence[Request], refused: dict[int, GridlaneError], call: Call
    ) -> dict[int, Result]:
        """Why requests are refused; of one that came before, the job that it made."""
        asked = [(requests[index], error) for index, error in refused.items()]
        made = await self._earlier.made_by(asked, call)
        results: dict[int, Result] = {**refused}
        for index, name in zip(refused, made, strict=True):
            if name is not None:
                results[index] = await self._before(name, call)
        return results

    async def _stored(self, some: dict[int, NewTransferJob], call: Call) -> dict[int, Result]:
        outcomes = await self._submit.many(list(some.values()), deadline=call.deadline)
        _SUBMITTED()
        self._wake()
        results: dict[int, Result] = {}
        for (index, new), outcome in zip(some.items(), outcomes, strict=True):
            if isinstance(outcome, Submitted):
                results[index] = _answer(new, named=True)
            elif isinstance(outcome, GridlaneError):
                results[index] = outcome
            elif isinstance(outcome, Exception):
                raise outcome
            else:
                results[index] = await self._before(outcome.name, call)
        return results

    async def _before(self, name: str, call: Call) -> Result:
        try:
            return await self._reread(name, call)
        except GridlaneError as error:
            return error


def _answer(new: NewTransferJob, *, named: bool) -> transfer_job_pb2.TransferJob:
    """A job as it was accepted, without its files."""
    answer = transfer_job_pb2.TransferJob()
    answer.CopyFrom(new.event.job)
    if not named:
        answer.ClearField("name")
    return answer
