"""Submissions: idempotent, durable, per item in batches, refused in the caller's words."""

import asyncio
import time

import grpc
import pytest
from google.rpc import code_pb2

from gridlane.ids import uuid7, uuid7_floor
from gridlane.workload.v1.job_pb2 import (
    Executor,
    Job,
    JobDescription,
    JobInput,
    Resources,
)
from gridlane.workload.v1.job_service_pb2 import (
    BatchSubmitJobsRequest,
    BatchSubmitJobsResponse,
    ListJobsRequest,
    SubmitJobRequest,
)
from gridlane_workload import states

from .conftest import Grid, MakeGrid, User, refused

BOTH_ENGINES = pytest.mark.parametrize("engine", ["sqlite", "postgresql"])


def request(
    *command: str, vo: str = "", request_id: str = "", validate_only: bool = False
) -> SubmitJobRequest:
    description = JobDescription(executors=[Executor(command=command)])
    return SubmitJobRequest(
        job=Job(vo=vo, description=description),
        request_id=request_id,
        validate_only=validate_only,
    )


async def submit(user: User, asked: SubmitJobRequest) -> Job:
    answer: Job = await user.jobs.SubmitJob(asked, timeout=10, metadata=user.metadata)
    return answer


async def batch(user: User, *asked: SubmitJobRequest) -> BatchSubmitJobsResponse:
    answer: BatchSubmitJobsResponse = await user.jobs.BatchSubmitJobs(
        BatchSubmitJobsRequest(requests=asked), timeout=20, metadata=user.metadata
    )
    return answer


async def count(user: User) -> int:
    answer = await user.jobs.ListJobs(ListJobsRequest(page_size=1000), metadata=user.metadata)
    return len(answer.jobs)


@BOTH_ENGINES
async def test_the_same_request_is_executed_once_and_answered_as_the_job_is_now(ada: User) -> None:
    asked = request("true", request_id=uuid7())
    first = await submit(ada, asked)
    await ada.ended(first.name)
    again = await submit(ada, asked)
    assert again.name == first.name
    assert again.state == states.DONE
    assert await count(ada) == 1


@BOTH_ENGINES
async def test_a_request_sent_many_times_at_once_is_executed_once(ada: User) -> None:
    asked = request("true", request_id=uuid7())
    answers = await asyncio.gather(*(submit(ada, asked) for _ in range(20)))
    assert len({answer.name for answer in answers}) == 1
    assert await count(ada) == 1


async def test_an_id_with_another_content_is_refused(ada: User) -> None:
    request_id = uuid7()
    await submit(ada, request("true", request_id=request_id))
    code, reason = await refused(submit(ada, request("false", request_id=request_id)))
    assert (code, reason) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")


async def test_another_users_id_is_another_id(grid: Grid, ada: User) -> None:
    bob = await grid.user("bob")
    asked = request("true", request_id=uuid7())
    assert (await submit(ada, asked)).name != (await submit(bob, asked)).name


async def test_an_old_id_is_refused_never_executed_again(ada: User) -> None:
    month_ago_ms = int((time.time() - 31 * 86_400) * 1000)
    code, reason = await refused(submit(ada, request("true", request_id=uuid7_floor(month_ago_ms))))
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_ID_TOO_OLD")
    assert await count(ada) == 0


@BOTH_ENGINES
async def test_only_checking_stores_nothing_but_finds_what_the_request_made(ada: User) -> None:
    request_id = uuid7()
    checked = await submit(ada, request("true", request_id=request_id, validate_only=True))
    assert checked.name == ""
    assert checked.vo == "local"
    assert await count(ada) == 0
    made = await submit(ada, request("true", request_id=request_id))
    checked = await submit(ada, request("true", request_id=request_id, validate_only=True))
    assert checked.name == made.name
    _, reason = await refused(
        submit(ada, request("false", request_id=request_id, validate_only=True))
    )
    assert reason == "REQUEST_ID_REUSED"


async def test_a_caller_of_several_vos_says_for_which(grid: Grid) -> None:
    ada = await grid.user("ada", vos=["local", "other"])
    assert (await refused(submit(ada, request("true"))))[1] == "VO_AMBIGUOUS"
    assert (await submit(ada, request("true", vo="local"))).vo == "local"
    code, reason = await refused(submit(ada, request("true", vo="other")))
    assert (code, reason) == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")


async def test_a_caller_without_the_role_or_the_scope_submits_nothing(grid: Grid) -> None:
    zoe = await grid.user("zoe")
    assert (await refused(submit(zoe, request("true"))))[1] == "PERMISSION_DENIED"
    narrow = await grid.user("ada", scopes=["compute.read"])
    assert (await refused(submit(narrow, request("true"))))[1] == "SCOPE_TOO_NARROW"


async def test_violations_are_named(ada: User) -> None:
    asked = request("true")
    asked.job.description.inputs.extend([JobInput(path="a", source="LFN:/l/a")] * 2)
    asked.job.description.resources.CopyFrom(Resources(cpu_cores=4096))
    code, reason = await refused(submit(ada, asked))
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS")


@BOTH_ENGINES
async def test_a_batch_answers_each_item_in_its_place(ada: User) -> None:
    request_id = uuid7()
    before = await submit(ada, request("true", request_id=request_id))
    twice = uuid7()
    bad = request("true")
    bad.job.description.inputs.extend([JobInput(path="a", source="LFN:/l/a")] * 2)
    answer = await batch(
        ada,
        request("true"),
        request("true", vo="other"),
        bad,
        request("true", request_id=request_id),
        request("false", request_id=request_id),
        request("true", request_id=twice),
        request("true", request_id=twice),
        request("true", validate_only=True),
    )
    results = answer.results
    assert [result.WhichOneof("result") for result in results] == [
        "job",
        "status",
        "status",
        "job",
        "status",
        "job",
        "job",
        "job",
    ]
    assert [results[i].status.code for i in (1, 2, 4)] == [
        code_pb2.PERMISSION_DENIED,
        code_pb2.INVALID_ARGUMENT,
        code_pb2.ALREADY_EXISTS,
    ]
    assert results[3].job.name == before.name
    assert results[5].job.name == results[6].job.name
    assert results[7].job.name == ""
    assert await count(ada) == 3


async def test_an_item_that_breaks_a_rule_of_the_contract_refuses_itself_alone(ada: User) -> None:
    answer = await batch(ada, request("true"), SubmitJobRequest(), request(), request("true"))
    codes = [result.status.code for result in answer.results]
    assert codes == [0, code_pb2.INVALID_ARGUMENT, code_pb2.INVALID_ARGUMENT, 0]
    assert await count(ada) == 2


@BOTH_ENGINES
async def test_a_thousand_jobs_are_accepted_in_one_call_with_numbers_of_their_own(
    make_grid: MakeGrid,
) -> None:
    grid = await make_grid(max_running=1)
    ada = await grid.user("ada")
    answer = await batch(ada, *(request("true", request_id=uuid7()) for _ in range(1000)))
    numbers = [result.job.number for result in answer.results]
    assert len(set(numbers)) == 1000
    assert len({result.job.name for result in answer.results}) == 1000
    more = await submit(ada, request("true"))
    assert more.number > max(numbers)


@BOTH_ENGINES
@pytest.mark.parametrize("scopes", [None, ["compute.create", "compute.read"]])
async def test_what_was_answered_is_there_after_a_restart(
    make_grid: MakeGrid, scopes: list[str] | None
) -> None:
    grid = await make_grid()
    ada = await grid.user("ada", scopes=scopes)
    job = await ada.submit("sh", "-c", "sleep 1; echo through")
    await grid.stack.aclose()
    grid = await make_grid()
    ada = await grid.user("ada")
    ended = await ada.ended(job.name)
    assert ended.state == states.DONE
    assert await ada.log(job.name) == b"through\n"
