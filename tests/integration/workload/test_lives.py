"""Jobs' lives from submission to end, with real payloads and real transfers."""

import asyncio
import time
import zlib
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from gridlane.type.v1.checksum_pb2 import Checksum, ChecksumType
from gridlane.type.v1.failure_pb2 import FailureClass
from gridlane.workload.v1.job_pb2 import Job, JobInput, JobOutput, JobPhase, Resources
from gridlane_kit.policy import Policy
from gridlane_workload import states

from .conftest import POLICY, Grid, MakeGrid, User, words

COPY = "cat data/in.txt data/in.txt > out.txt; echo done"


def put(grid: Grid, name: str, content: str) -> str:
    """Lays a file into the store; its URL."""
    path = grid.stored(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path.as_uri()


def class_of(job: Job) -> str:
    return FailureClass.Name(job.failure.failure_class).removeprefix("FAILURE_CLASS_")


async def test_a_job_without_files_goes_through_its_states(grid: Grid, ada: User) -> None:
    job = await ada.submit("sh", "-c", "echo hello; echo oops >&2")
    assert job.state == states.RECEIVED
    assert job.minor_status == "Job accepted"
    assert job.number > 0
    ended = await ada.ended(job.name)
    history = await ada.history(job.name)
    assert words(history) == [
        "RECEIVED",
        "CHECKING",
        "WAITING",
        "MATCHED",
        "RUNNING",
        "COMPLETING",
        "DONE",
    ]
    assert ended.minor_status == "Execution Complete"
    assert (ended.exit_code, ended.attempt, ended.backend) == (0, 1, "embedded")
    assert ended.create_time.ToNanoseconds() < ended.start_time.ToNanoseconds()
    assert ended.start_time.ToNanoseconds() < ended.end_time.ToNanoseconds()
    assert ended.resource_use.wall_time.ToMilliseconds() > 0
    assert not ended.HasField("failure")
    assert history[0].job.name == job.name
    assert history[-1].job == ended
    assert ended.revision == len(history)


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
async def test_inputs_are_brought_and_outputs_moved_and_counted(grid: Grid, ada: User) -> None:
    source = put(grid, "in.txt", "abc\n")
    checksum = Checksum(
        type=ChecksumType.CHECKSUM_TYPE_ADLER32, value=f"{zlib.adler32(b'abc' + bytes([10])):08x}"
    )
    job = await ada.submit(
        "sh",
        "-c",
        COPY,
        inputs=[JobInput(path="data/in.txt", source=source, checksum=checksum)],
        outputs=[
            JobOutput(path="out.txt", target="LFN:/local/out.txt"),
            JobOutput(path="maybe.txt", target="LFN:/local/maybe.txt", optional=True),
        ],
    )
    ended = await ada.ended(job.name)
    assert words(await ada.history(job.name)) == [
        "RECEIVED",
        "CHECKING",
        "STAGING",
        "WAITING",
        "MATCHED",
        "RUNNING",
        "COMPLETING",
        "DONE",
    ]
    assert grid.stored("out.txt").read_text() == "abc\nabc\n"
    used = ended.resource_use
    assert (used.input_files, used.input_bytes) == (1, 4)
    assert (used.output_files, used.output_bytes) == (1, 8)
    assert ended.stage_in_transfer.startswith("transfers/")
    assert ended.stage_out_transfer.startswith("transfers/")
    assert ended.stage_in_transfer != ended.stage_out_transfer


@pytest.mark.parametrize(
    ("command", "resources", "failure_class", "minor", "exit_code"),
    [
        (["sh", "-c", "exit 9"], {}, "PAYLOAD_EXIT", "Application Finished With Errors", 9),
        (["sh", "-c", "kill -9 $$"], {}, "PAYLOAD_SIGNAL", "Application Finished With Errors", 137),
        (["no-such-command"], {}, "COMMAND_NOT_FOUND", "Application not found", None),
        (
            ["sleep", "60"],
            {"walltime": Duration(nanos=300_000_000)},
            "WALLTIME_EXCEEDED",
            "Job has exceeded maximum wall clock time",
            None,
        ),
    ],
)
async def test_a_bad_end_is_told_in_class_words_and_exit_code(
    grid: Grid,
    ada: User,
    command: list[str],
    resources: dict[str, Any],
    failure_class: str,
    minor: str,
    exit_code: int | None,
) -> None:
    job = await ada.submit(
        *command,
        resources=Resources(**resources),
        outputs=[JobOutput(path="out", target="LFN:/local/never.txt", optional=True)],
    )
    ended = await ada.ended(job.name)
    assert ended.state == states.FAILED
    assert class_of(ended) == failure_class
    assert ended.minor_status == minor
    assert (ended.exit_code if ended.HasField("exit_code") else None) == exit_code
    assert command[0] in ended.failure.message
    assert ended.failure.cure
    assert not ended.stage_out_transfer, "outputs move only when the payload ended well"


async def test_an_input_that_is_not_there_fails_the_stage_in(grid: Grid, ada: User) -> None:
    missing = grid.stored("missing.txt").as_uri()
    job = await ada.submit("true", inputs=[JobInput(path="a", source=missing)])
    ended = await ada.ended(job.name)
    assert (ended.state, class_of(ended)) == (states.FAILED, "STAGE_IN")
    assert "missing.txt" in ended.failure.message
    assert ended.minor_status == "Failed Downloading InputSandbox"


async def test_a_wrong_checksum_fails_the_stage_in(grid: Grid, ada: User) -> None:
    wrong = Checksum(type=ChecksumType.CHECKSUM_TYPE_ADLER32, value="00000001")
    source = put(grid, "x.txt", "x")
    job = await ada.submit("true", inputs=[JobInput(path="a", source=source, checksum=wrong)])
    ended = await ada.ended(job.name)
    assert class_of(ended) == "STAGE_IN"
    assert "00000001" in ended.failure.message


async def test_a_source_that_nothing_serves_fails_the_stage_in(grid: Grid, ada: User) -> None:
    job = await ada.submit("true", inputs=[JobInput(path="a", source="srm://nowhere/x")])
    ended = await ada.ended(job.name)
    assert class_of(ended) == "STAGE_IN"
    assert "srm://nowhere/x" in ended.failure.message


async def test_a_promised_output_that_was_not_written_fails_the_job(grid: Grid, ada: User) -> None:
    job = await ada.submit("true", outputs=[JobOutput(path="out", target="LFN:/local/o")])
    ended = await ada.ended(job.name)
    assert (class_of(ended), ended.exit_code) == ("OUTPUT_MISSING", 0)
    assert "out" in ended.failure.message


async def test_a_target_that_is_there_already_fails_the_stage_out(grid: Grid, ada: User) -> None:
    put(grid, "taken.txt", "before")
    out = JobOutput(path="o", target="LFN:/local/taken.txt")
    job = await ada.submit("sh", "-c", "echo new > o", outputs=[out])
    ended = await ada.ended(job.name)
    assert class_of(ended) == "STAGE_OUT"
    assert grid.stored("taken.txt").read_text() == "before"
    out.overwrite = True
    job = await ada.submit("sh", "-c", "echo new > o", outputs=[out])
    assert (await ada.ended(job.name)).state == states.DONE
    assert grid.stored("taken.txt").read_text() == "new\n"


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
async def test_the_better_priority_goes_first_then_the_older(make_grid: MakeGrid) -> None:
    grid = await make_grid(max_running=1)
    ada = await grid.user("ada")
    running = await ada.submit("sleep", "1")
    await ada.reached(running.name, states.RUNNING)
    order = []
    for priority in (0, 5, None, 5):
        given: dict[str, Any] = {} if priority is None else {"priority": priority}
        order.append((await ada.submit("true", **given)).name)
    ended = [await ada.ended(name) for name in order]
    started = sorted(range(4), key=lambda i: ended[i].start_time.ToNanoseconds())
    assert started == [1, 3, 2, 0]


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
async def test_no_more_payloads_run_than_there_are_places(make_grid: MakeGrid) -> None:
    grid = await make_grid(max_running=2)
    ada = await grid.user("ada")
    names = [(await ada.submit("sleep", "0.3")).name for _ in range(5)]
    jobs = [await ada.ended(name) for name in names]
    spans = [(job.start_time.ToNanoseconds(), job.end_time.ToNanoseconds()) for job in jobs]
    for start, _ in spans:
        assert sum(a <= start < b for a, b in spans) <= 2


async def test_a_job_waits_while_it_is_not_known_who_may_do_what(make_grid: MakeGrid) -> None:
    """A stale policy is no verdict: nothing is started, and nothing is failed."""
    grid = await make_grid(max_running=1)
    ada, bob = await grid.user("ada"), await grid.user("bob")
    short = await ada.submit("sleep", "1")
    await ada.reached(short.name, states.RUNNING)
    waiting = await bob.submit("true")
    await bob.reached(waiting.name, states.WAITING)
    grid.policy.replace(Policy(1, closed=True))
    await asyncio.sleep(2)
    known_ns = time.time_ns()
    grid.policy.replace(POLICY)
    ended = await bob.ended(waiting.name)
    assert ended.state == states.DONE
    assert ended.start_time.ToNanoseconds() > known_ns


async def test_steps_are_spans_linked_to_the_submission(grid: Grid, ada: User) -> None:
    job = await ada.submit("true", inputs=[JobInput(path="a", source=put(grid, "s", "s"))])
    ended = await ada.ended(job.name)
    uid = job.name.removeprefix("jobs/")
    steps = {
        span.name: span for span in grid.spans if span.attributes.get("gridlane.job.id") == uid
    }
    assert {"workload.stage_in", "workload.run"} <= steps.keys()
    submitted = int(ended.trace_id, 16)
    assert steps["workload.run"].links[0][0] == submitted
    assert steps["gridlane.workload.v1.JobService/SubmitJob"].trace_id == submitted


async def test_the_phase_is_killing_while_the_payload_is_being_ended(
    make_grid: MakeGrid, tmp_path: Path
) -> None:
    grid = await make_grid(grace_s=1.0)
    ada = await grid.user("ada")
    ready = tmp_path / "ready"
    script = f"trap '' TERM; touch {ready}; while :; do sleep 0.1; done"
    job = await ada.submit("sh", "-c", script)
    await ada.reached(job.name, states.RUNNING)
    killing = await ada.kill(job.name)
    assert killing.state == states.RUNNING
    assert killing.phase == JobPhase.JOB_PHASE_KILLING
    assert killing.minor_status == "Marked for termination"
    ended = await ada.ended(job.name)
    assert (ended.state, class_of(ended)) == (states.KILLED, "CANCELED")
    assert ended.resource_use.wall_time.ToMilliseconds() > 0
