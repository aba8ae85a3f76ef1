"""Promises of submissions: request ids, dry runs, limits, defaults, the VO of a call."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from integration.contract_promises.stranger import Stranger, submission, task_of, transfer_of

from gridlane.authorization.v1 import authorization_service_pb2
from gridlane.ids import uuid7, uuid7_floor
from gridlane.transfer.v1 import transfer_job_pb2, transfer_service_pb2
from gridlane.workload.v1 import job_pb2, job_service_pb2

Submit = Callable[..., Any]
DAY_MS = 24 * 3600 * 1000


class Verb:
    """One of the verbs that accept: how it is called, and what names the thing it made."""

    def __init__(self, me: Stranger, kind: str, folder: str) -> None:
        self.method = {
            "job": me.jobs.SubmitJob,
            "task": me.tasks.SubmitTask,
            "transfer": me.transfers.SubmitTransferJob,
        }[kind]
        self._me, self._kind, self._folder = me, kind, folder

    def request(self, variant: str = "a", vo: str = "", **fields: Any) -> Any:
        """What to send; the variant "wrong" breaks a rule that only the server can check."""
        if self._kind == "transfer":
            if variant == "wrong":
                return transfer_of(self._folder, "LFN:/nowhere/b", vo=vo, **fields)
            target = f"{self._folder}/copy-{variant}"
            return transfer_of(f"{self._folder}/none", target, vo=vo, **fields)
        outputs = [job_pb2.JobOutput(path="x", target=f"{self._folder}/x")] * 2
        made = submission(
            "true", variant, vo=vo, outputs=outputs if variant == "wrong" else [], **fields
        )
        return made if self._kind == "job" else task_of(made)

    def __call__(self, variant: str = "a", **fields: Any) -> Any:
        return self._me.call(self.method, self.request(variant, **fields))

    def refused(self, variant: str = "a", **fields: Any) -> Any:
        return self._me.refused(self.method, self.request(variant, **fields))

    def count(self) -> int:
        """How many there are."""
        if self._kind == "transfer":
            transfers = transfer_service_pb2.ListTransferJobsRequest(page_size=1000)
            found = self._me.pages(self._me.transfers.ListTransferJobs, transfers, "transfer_jobs")
        else:
            jobs = job_service_pb2.ListJobsRequest(page_size=1000)
            found = self._me.pages(self._me.jobs.ListJobs, jobs, "jobs")
        return len(found)


@pytest.fixture(params=["job", "task", "transfer"])
def verb(request: pytest.FixtureRequest, me: Stranger, folder: str) -> Verb:
    return Verb(me, request.param, folder)


def test_the_same_id_with_the_same_content_answers_the_same_thing(verb: Verb) -> None:
    request_id = uuid7()
    first = verb(request_id=request_id)
    assert first.name
    assert verb(request_id=request_id).name == first.name


def test_the_same_id_with_another_content_is_refused(verb: Verb) -> None:
    request_id = uuid7()
    verb("a", request_id=request_id)
    assert verb.refused("b", request_id=request_id).short == ("ALREADY_EXISTS", "REQUEST_ID_REUSED")


def test_without_an_id_each_call_makes_another(verb: Verb) -> None:
    assert verb().name != verb().name


def test_an_id_older_than_30_days_is_refused_and_a_younger_one_is_taken(verb: Verb) -> None:
    now_ms = time.time_ns() // 1_000_000
    old = uuid7_floor(now_ms - 31 * DAY_MS)
    assert verb.refused(request_id=old).short == ("INVALID_ARGUMENT", "REQUEST_ID_TOO_OLD")
    young = uuid7_floor(now_ms - 29 * DAY_MS)[:-12] + uuid7()[-12:]
    assert verb(request_id=young).name


@pytest.mark.parametrize(
    "request_id",
    [
        "x",
        "0192f0c4-0000-4000-8000-000000000000",
        "0192F0C4-0000-7000-8000-000000000000",
        "0192f0c400007000800000000000000",
        pytest.param(uuid7() + "\n", id="a line"),
    ],
)
def test_an_id_that_is_no_uuidv7_is_refused(verb: Verb, request_id: str) -> None:
    refusal = verb.refused(request_id=request_id)
    assert refusal.short == ("INVALID_ARGUMENT", "INVALID_FIELDS")
    assert refusal.fields == ("request_id",)


def test_an_id_is_the_callers_own(me: Stranger, folder: str, user_of: Any) -> None:
    """Unique per caller and method: the same id serves the verbs of two services."""
    request_id = uuid7()
    job = Verb(me, "job", folder)(request_id=request_id)
    transfer = Verb(me, "transfer", folder)(request_id=request_id)
    assert job.name.startswith("jobs/")
    assert transfer.name.startswith("transfers/")


def test_a_dry_run_checks_everything_and_stores_nothing(verb: Verb) -> None:
    before = verb.count()
    checked = verb(validate_only=True)
    assert checked.name == ""
    assert getattr(checked, "number", 0) == 0
    assert verb.refused("wrong", validate_only=True).code == "INVALID_ARGUMENT"
    assert verb.count() == before


def test_a_dry_run_does_not_use_up_its_id(verb: Verb) -> None:
    request_id = uuid7()
    verb(request_id=request_id, validate_only=True)
    made = verb(request_id=request_id)
    assert made.name
    assert verb(request_id=request_id).name == made.name


def test_the_answer_names_and_numbers_what_was_made(me: Stranger, folder: str) -> None:
    job = me.transfer(f"{folder}/a", f"{folder}/b")
    stored = me.arrived(job.name)
    assert job.number == stored.number > 0
    assert [f.number for f in job.files] == [f.number for f in stored.files]
    assert me.submit("true").number > 0


def test_with_one_vo_it_may_be_empty(verb: Verb) -> None:
    made = verb()
    assert getattr(made, "vo", "") == "local" or made.job.vo == "local"


def test_with_several_vos_an_empty_one_is_refused_with_the_list(
    me: Stranger, folder: str, user_of: Any
) -> None:
    subject = me.call(me.authorization.WhoAmI, authorization_service_pb2.WhoAmIRequest())
    both = user_of(subject.principal.subject, "local", "other")
    for kind in ("job", "task", "transfer"):
        refusal = Verb(both, kind, folder).refused()
        assert refusal.short == ("INVALID_ARGUMENT", "VO_AMBIGUOUS")
        assert refusal.metadata == {"vos": "local,other"}


@pytest.mark.parametrize("dry_run", [False, True])
def test_for_a_vo_that_does_not_exist_not_even_an_admin_submits(verb: Verb, dry_run: bool) -> None:
    before = verb.count()
    refusal = verb.refused(vo="nowhere", validate_only=dry_run)
    assert refusal.short == ("PERMISSION_DENIED", "PERMISSION_DENIED")
    assert refusal.metadata["resource"] == "nowhere"
    assert verb.count() == before


def test_a_vo_that_only_the_token_knows_is_refused_like_one_that_is_not_the_callers(
    folder: str, user_of: Any
) -> None:
    """Whether it exists is told to nobody."""
    stranger = user_of("eve", "nowhere")
    for kind in ("job", "task", "transfer"):
        absent, foreign = (
            Verb(stranger, kind, folder).refused(vo=vo) for vo in ("nowhere", "local")
        )
        assert absent.short == foreign.short == ("PERMISSION_DENIED", "PERMISSION_DENIED")
        assert absent.metadata.keys() == foreign.metadata.keys()
        assert absent.message.replace("nowhere", "local") == foreign.message


def test_a_job_begins_received_with_everything_that_is_promised(me: Stranger) -> None:
    job = me.submit("true", display_name="x" * 255)
    assert job.name.startswith("jobs/")
    assert job.number > 0
    assert job.state == job_pb2.JOB_STATE_RECEIVED
    assert job.attempt == 0
    assert not job.HasField("end_time")
    assert not job.HasField("exit_code")
    assert not job.HasField("failure")
    assert len(job.trace_id) == 32
    assert job.revision > 0
    ended = me.ended(job.name)
    assert (ended.number, ended.attempt, ended.exit_code) == (job.number, 1, 0)
    assert ended.backend == "embedded"
    assert ended.revision > job.revision
    assert ended.HasField("resource_use")


def test_what_only_the_server_says_is_ignored_in_a_request(me: Stranger) -> None:
    request = submission("true")
    request.job.name = f"jobs/{uuid7()}"
    request.job.number = 1
    request.job.state = job_pb2.JOB_STATE_DONE
    request.job.owner.subject = "somebody"
    job = me.call(me.jobs.SubmitJob, request)
    assert job.name != request.job.name
    assert job.number != 1
    assert job.state == job_pb2.JOB_STATE_RECEIVED
    assert job.owner.subject != "somebody"


ENVIRONMENT = {f"V{n}": "" for n in range(257)}
INPUTS = [job_pb2.JobInput(path=f"{n}", source="LFN:/x") for n in range(1001)]
OUTPUTS = [job_pb2.JobOutput(path=f"{n}", target="LFN:/x") for n in range(1001)]
WALLTIME = Duration(seconds=30 * 86400)


def executors(count: int, *command: str, **fields: Any) -> dict[str, Any]:
    return {"executors": [job_pb2.Executor(command=command, **fields)] * count}


def resources(**fields: Any) -> dict[str, Any]:
    return {"resources": job_pb2.Resources(**fields)}


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("display_name", {"display_name": "x" * 256}),
        ("inputs", {"inputs": INPUTS}),
        ("outputs", {"outputs": OUTPUTS}),
        ("executors", {"executors": []}),
        ("executors", executors(17, "true")),
        ("executors[0].command", executors(1)),
        ("executors[0].command", executors(1, *["x"] * 1001)),
        ("executors[0].command[0]", executors(1, "x" * 32769)),
        ("executors[0].command[0]", executors(1, "x\0")),
        ("executors[0].environment", executors(1, "true", environment=ENVIRONMENT)),
        ("executors[0].environment[A B]", executors(1, "true", environment={"A B": ""})),
        ("tags", {"tags": {f"t{n}": "" for n in range(33)}}),
        ("tags[1x]", {"tags": {"1x": ""}}),
        ("tags[x]", {"tags": {"x": "y" * 256}}),
        ("tags[gridlane.job]", {"tags": {"gridlane.job": "x"}}),
        ("priority", {"priority": 11}),
        ("priority", {"priority": -1}),
        ("job_type", {"job_type": "x" * 33}),
        ("job_group", {"job_group": "x" * 33}),
        ("resources.walltime", resources(walltime=Duration(seconds=WALLTIME.seconds + 1))),
        ("resources.walltime", resources(walltime=Duration())),
        ("resources.memory_bytes", resources(memory_bytes=-1)),
        ("resources.disk_bytes", resources(disk_bytes=-1)),
        ("resources.cpu_cores", resources(cpu_cores=4097)),
    ],
)
def test_a_job_beyond_a_limit_is_refused_by_field(me: Stranger, field: str, fields: Any) -> None:
    refusal = me.refused(me.jobs.SubmitJob, submission("true", **fields))
    assert refusal.short == ("INVALID_ARGUMENT", "INVALID_FIELDS")
    assert [f.removeprefix("job.description.") for f in refusal.fields] == [field]


@pytest.mark.parametrize(
    "path",
    ["", "/a", "a/", "a//b", ".", "..", "a/../b", "./a", "a\nb", "a\x00", "a" * 256, "ä" * 128],
)
def test_a_path_that_leaves_the_working_directory_or_is_too_long_is_refused(
    me: Stranger, path: str
) -> None:
    inputs = [job_pb2.JobInput(path=path, source="LFN:/local/x")]
    refusal = me.refused(me.jobs.SubmitJob, submission("true", inputs=inputs))
    assert refusal.short == ("INVALID_ARGUMENT", "INVALID_FIELDS")
    outputs = [job_pb2.JobOutput(path=path, target="LFN:/local/x")]
    refusal = me.refused(me.jobs.SubmitJob, submission("true", outputs=outputs))
    assert refusal.short == ("INVALID_ARGUMENT", "INVALID_FIELDS")


def test_the_largest_job_that_is_promised_is_taken(me: Stranger) -> None:
    me.call(
        me.jobs.SubmitJob,
        submission(
            validate_only=True,
            **executors(16, *["x"] * 1000),
            tags={f"t{n}": "v" * 255 for n in range(32)},
            inputs=[
                job_pb2.JobInput(path=f"{n:04}" + "ä" * 125, source=f"LFN:/local/{n}")
                for n in range(1000)
            ],
            priority=10,
            **resources(walltime=WALLTIME),
        ),
    )


def test_a_refused_task_names_each_violation_and_leaves_nothing(me: Stranger, folder: str) -> None:
    request = submission(
        inputs=[
            job_pb2.JobInput(path="a", source=f"{folder}/unknown"),
            job_pb2.JobInput(path="b", source="srm://elsewhere/b"),
        ],
        outputs=[job_pb2.JobOutput(path="c", target="LFN:/nowhere/c")],
    )
    before = me.pages(me.jobs.ListJobs, job_service_pb2.ListJobsRequest(page_size=1000), "jobs")
    refusal = me.refused(me.tasks.SubmitTask, task_of(request))
    assert refusal.code == "INVALID_ARGUMENT"
    assert set(refusal.fields) == {
        "job.description.inputs[0].source",
        "job.description.inputs[1].source",
        "job.description.outputs[0].target",
    }
    after = me.pages(me.jobs.ListJobs, job_service_pb2.ListJobsRequest(page_size=1000), "jobs")
    assert len(after) == len(before)


def test_a_transfer_job_gets_the_defaults_that_are_promised(me: Stranger, folder: str) -> None:
    me.put(f"{folder}/a", b"a")
    job = me.moved(f"{folder}/a", f"{folder}/b")
    assert not job.HasField("max_retries")  # the channel says
    assert job.priority == 3
    assert job.overwrite == transfer_job_pb2.OVERWRITE_MODE_NEVER
    assert job.verify == transfer_job_pb2.VERIFY_MODE_BOTH
    assert job.files[0].name == f"{job.name}/files/1"
    assert job.number > 0
    assert job.files[0].number > 0
    assert job.files[0].source_storage_element == "storageElements/local"


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("max_retries", {"max_retries": 257}),
        ("max_retries", {"max_retries": -1}),
        ("priority", {"priority": 6}),
        ("priority", {"priority": -1}),
        ("overwrite", {"overwrite": 9}),
        ("verify", {"verify": 9}),
        ("tags", {"tags": {f"t{n}": "" for n in range(33)}}),
        ("tags[_x]", {"tags": {"_x": ""}}),
        ("tags[gridlane.job]", {"tags": {"gridlane.job": "x"}}),
        ("vo", {"vo": "x" * 65}),
    ],
)
def test_a_transfer_job_beyond_a_limit_is_refused_by_field(
    me: Stranger, folder: str, field: str, fields: Any
) -> None:
    request = transfer_of(f"{folder}/a", f"{folder}/b", **fields)
    refusal = me.refused(me.transfers.SubmitTransferJob, request)
    assert refusal.short == ("INVALID_ARGUMENT", "INVALID_FIELDS")
    assert refusal.fields == (f"transfer_job.{field}",)


@pytest.mark.parametrize("count", [0, 1001])
def test_a_transfer_job_has_1_to_1000_files(me: Stranger, folder: str, count: int) -> None:
    files = [
        transfer_job_pb2.FileTransfer(source=f"{folder}/a", target=f"{folder}/{n}")
        for n in range(count)
    ]
    request = transfer_service_pb2.SubmitTransferJobRequest(
        transfer_job=transfer_job_pb2.TransferJob(files=files)
    )
    refusal = me.refused(me.transfers.SubmitTransferJob, request)
    assert refusal.fields[0] == "transfer_job.files"


@pytest.mark.parametrize(
    "end",
    [
        "srm://elsewhere/a",
        "file:///etc/passwd",
        "LFN:/nowhere/a",
        "LFN:/local/../a",
        "LFN:/local/a/../../b",
        "LFN:/local/%2e%2e/%2e%2e/x/./y",
        "LFN:/local//a",
    ],
)
def test_an_end_that_nothing_serves_is_refused_by_name(me: Stranger, folder: str, end: str) -> None:
    for source, target, field in ((end, f"{folder}/b", "source"), (f"{folder}/a", end, "target")):
        refusal = me.refused(me.transfers.SubmitTransferJob, transfer_of(source, target))
        assert refusal.short == ("INVALID_ARGUMENT", "NO_STORAGE_ELEMENT")
        assert refusal.metadata == {"url": end}
        assert refusal.fields == (f"transfer_job.files[0].{field}",)


def test_a_source_that_is_the_target_is_refused(me: Stranger, folder: str) -> None:
    request = transfer_of(f"{folder}/a", f"{folder}/a")
    refusal = me.refused(me.transfers.SubmitTransferJob, request)
    assert refusal.short == ("INVALID_ARGUMENT", "INVALID_FIELDS")
    assert refusal.fields == ("transfer_job.files[0].target",)
