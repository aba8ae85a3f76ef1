"""Who may do what with another's things, over the wire: one table, every verb, every relation.

Ann owns everything here. Max manages her VO, Bob is a member of it without a role. Eve is of
another VO without a role, Sam submits in that VO, Vera is vetoed, and Nora is of no VO at all. What
each may is gLite's table, joined to DIRAC's: what one may see and not touch is denied, what one may
not see is not found — told exactly as of what does not exist.
"""

import re
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import grpc
import pytest
from google.protobuf.message import Message
from integration.contract_promises.stranger import (
    NOBODYS,
    Refusal,
    Stranger,
    adler32,
    parts,
    refusal,
    submission,
    task_of,
    transfer_of,
)
from support import EmbeddedServer

from gridlane.gateway.v1 import task_service_pb2
from gridlane.reporting.v1 import accounting_service_pb2, span_service_pb2
from gridlane.transfer.v1 import (
    channel_service_pb2,
    replica_service_pb2,
    storage_service_pb2,
    transfer_service_pb2,
)
from gridlane.workload.v1 import job_pb2, job_service_pb2
from gridlane_authorization.settings import AuthorizationSettings
from gridlane_authorization.tokens import open_signer

ROLES: Final = (
    ("ann", "submitter", "local"),
    ("max", "vo_manager", "local"),
    ("sam", "submitter", "other"),
    ("vera", "submitter", "local"),
    ("vera", "vetoed", ""),
)
VOS: Final = {
    "ann": ["local"],
    "bob": ["local"],
    "max": ["local"],
    "eve": ["other"],
    "sam": ["other"],
    "vera": ["local"],
    "nora": [],
}
OK, DENIED, ABSENT, VETOED = "OK", "PERMISSION_DENIED", "NOT_FOUND", "CALLER_VETOED"
SEEN_IN_THE_VO: Final = {"ann": OK, "max": OK, "bob": OK, "eve": ABSENT, "sam": ABSENT}
TOUCHED_BY_ITS_OWN: Final = {"ann": OK, "max": OK, "bob": DENIED, "eve": ABSENT, "sam": ABSENT}


@dataclass(frozen=True)
class Things:
    """What is Ann's, or what is nobody's."""

    uuid: str
    transfer: str
    lfn: str
    url: str

    @property
    def job(self) -> str:
        return f"jobs/{self.uuid}"


@dataclass(frozen=True)
class House:
    server: EmbeddedServer
    anns: Things
    nobodys: Things
    sign: Callable[..., str]

    def user(self, name: str, scopes: list[str] | None = None) -> Stranger:
        return Stranger(self.server, self.sign(name, vos=VOS[name], scopes=scopes, lifetime_s=600))


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    server = EmbeddedServer(tmp_path_factory.mktemp("identities"))
    server.start()
    server.stop()
    issuer = AuthorizationSettings().issuer
    with sqlite3.connect(server.data_dir / "db/authorization.sqlite") as db:
        db.executemany(
            "INSERT INTO role_binding (issuer, subject, role, vo, channel_uid, create_time_us)"
            " VALUES (?, ?, ?, ?, '', 0)",
            [(issuer, *role) for role in ROLES],
        )
        db.execute("INSERT INTO vo (name, create_time_us) VALUES ('other', 0)")
    db.close()
    server.start()
    signer = open_signer(server.data_dir / "keys", issuer, AuthorizationSettings().audience)
    ann = Stranger(server, signer.sign_user("ann", vos=["local"], lifetime_s=600))
    url = ann.put("LFN:/local/ann/secret", b"secret").url
    job = ann.done(
        "cat", "in", inputs=[job_pb2.JobInput(path="in", source="LFN:/local/ann/secret")]
    )
    accounted = accounting_service_pb2.ListAccountingRecordsRequest(filter=f'job = "{job.name}"')
    ann.eventually(lambda: ann.call(ann.accounting.ListAccountingRecords, accounted).records)
    transfer = ann.moved("LFN:/local/ann/secret", "LFN:/local/ann/copy", placement=True)
    anns = Things(job.name[5:], transfer.name, "LFN:/local/ann/secret", url)
    none = Things(NOBODYS, f"transfers/{NOBODYS}", "LFN:/local/ann/none", f"{url}-none")
    yield House(server, anns, none, signer.sign_user)
    server.close()


Verb = Callable[[Stranger, Things], tuple[Any, Any]]
TASKS, JOBS = task_service_pb2, job_service_pb2
TRANSFERS, STORAGE = transfer_service_pb2, storage_service_pb2

VERBS: Final[dict[str, Verb]] = {
    "GetJob": lambda u, t: (u.jobs.GetJob, JOBS.GetJobRequest(name=t.job)),
    "ListJobEvents": lambda u, t: (
        u.jobs.ListJobEvents,
        JOBS.ListJobEventsRequest(parent=t.job),
    ),
    "WatchJobs": lambda u, t: (u.jobs.WatchJobs, JOBS.WatchJobsRequest(names=[t.job])),
    "DescribeTask": lambda u, t: (u.tasks.DescribeTask, TASKS.DescribeTaskRequest(name=t.job)),
    "WatchTask": lambda u, t: (u.tasks.WatchTask, TASKS.WatchTaskRequest(name=t.job)),
    "ListJobSpans": lambda u, t: (
        u.spans.ListJobSpans,
        span_service_pb2.ListJobSpansRequest(job=t.job),
    ),
    "GetTransferJob": lambda u, t: (
        u.transfers.GetTransferJob,
        TRANSFERS.GetTransferJobRequest(name=t.transfer),
    ),
    "ListFileTransfers": lambda u, t: (
        u.transfers.ListFileTransfers,
        TRANSFERS.ListFileTransfersRequest(parent=t.transfer),
    ),
    "ListTransferEvents": lambda u, t: (
        u.transfers.ListTransferEvents,
        TRANSFERS.ListTransferEventsRequest(parent=t.transfer),
    ),
    "WatchTransferJobs": lambda u, t: (
        u.transfers.WatchTransferJobs,
        TRANSFERS.WatchTransferJobsRequest(names=[t.transfer]),
    ),
    "GetContent": lambda u, t: (u.storage.GetContent, STORAGE.GetContentRequest(file=t.lfn)),
    "GetContent of a URL": lambda u, t: (
        u.storage.GetContent,
        STORAGE.GetContentRequest(file=t.url),
    ),
    "KillJob": lambda u, t: (u.jobs.KillJob, JOBS.KillJobRequest(name=t.job)),
    "CancelTask": lambda u, t: (u.tasks.CancelTask, TASKS.CancelTaskRequest(name=t.job)),
    "ReadJobLog": lambda u, t: (u.jobs.ReadJobLog, JOBS.ReadJobLogRequest(name=t.job)),
    "CancelTransferJob": lambda u, t: (
        u.transfers.CancelTransferJob,
        TRANSFERS.CancelTransferJobRequest(name=t.transfer),
    ),
    "DeleteContent": lambda u, t: (
        u.storage.DeleteContent,
        STORAGE.DeleteContentRequest(file=t.lfn),
    ),
    "DeleteContent of a URL": lambda u, t: (
        u.storage.DeleteContent,
        STORAGE.DeleteContentRequest(file=t.url),
    ),
    "GetChannel": lambda u, t: (
        u.channels.GetChannel,
        channel_service_pb2.GetChannelRequest(
            name="channels/none" if t.uuid == NOBODYS else "channels/default"
        ),
    ),
}
SEEING: Final = list(VERBS)[:12]
TOUCHING: Final = ["KillJob", "CancelTask", "ReadJobLog", "CancelTransferJob"]
TABLE: Final[dict[str, dict[str, str]]] = {
    **dict.fromkeys(SEEING, SEEN_IN_THE_VO),
    **dict.fromkeys(TOUCHING, TOUCHED_BY_ITS_OWN),
    # Where the role alone decides, everybody without one is denied, whatever is named.
    "DeleteContent": {"bob": DENIED, "eve": DENIED, "sam": ABSENT},
    "DeleteContent of a URL": {"bob": DENIED, "eve": DENIED, "sam": ABSENT},
    "GetChannel": {"ann": DENIED, "bob": DENIED, "eve": DENIED, "sam": DENIED, "max": OK},
}
CASES: Final = [(verb, user, wanted) for verb, row in TABLE.items() for user, wanted in row.items()]


def tried(user: Stranger, verb: str, things: Things) -> Refusal | None:
    """How a call ends: None when it is answered; of a stream the first message tells."""
    method, request = VERBS[verb](user, things)
    try:
        answer = user.call(method, request)
        if not isinstance(answer, Message):
            next(answer, None)
            answer.cancel()
    except grpc.RpcError as error:
        return refusal(error)
    return None


def test_the_table_has_every_verb() -> None:
    assert set(TABLE) == set(VERBS)


@pytest.mark.parametrize(("verb", "user", "wanted"), CASES)
def test_a_verb_on_what_is_anns(house: House, verb: str, user: str, wanted: str) -> None:
    found = tried(house.user(user), verb, house.anns)
    assert (OK if found is None else found.reason) == wanted


@pytest.mark.parametrize(
    ("verb", "user"), [(verb, user) for verb, user, wanted in CASES if wanted == DENIED]
)
def test_a_denial_names_the_permission_and_only_what_the_caller_sees(
    house: House, verb: str, user: str
) -> None:
    found = tried(house.user(user), verb, house.anns)
    assert found is not None
    assert found.metadata.keys() - {"resource"} == {"permission", "roles"}
    assert re.fullmatch(r"[a-z]+\.[a-z]+\.[a-z]+", found.metadata["permission"])
    sees = user == "bob" and verb in TOUCHING
    thing = house.anns.transfer if "Transfer" in verb else house.anns.job
    assert found.metadata.get("resource", "") == (thing if sees else "")


@pytest.mark.parametrize("vo", ["local", "nobodys"])
def test_a_denial_for_a_vo_has_the_same_keys(house: House, vo: str) -> None:
    bob = house.user("bob")
    transfer = transfer_of("LFN:/local/ann/secret", "LFN:/local/bob/copy", vo=vo)
    for method, request in (
        (bob.jobs.SubmitJob, submission("true", vo=vo)),
        (bob.tasks.SubmitTask, task_of(submission("true", vo=vo))),
        (bob.transfers.SubmitTransferJob, transfer),
    ):
        found = bob.refused(method, request)
        assert found.reason == DENIED
        assert found.metadata.keys() - {"resource"} == {"permission", "roles"}
    ann = house.user("ann")
    found = ann.refused(ann.jobs.SubmitJob, submission("true", vo="other"))
    assert found.metadata == {
        "permission": "workload.jobs.submit",
        "resource": "other",
        "roles": "ADMIN SUBMITTER",
    }


@pytest.mark.parametrize(
    ("verb", "user"), [(verb, user) for verb, user, wanted in CASES if wanted != OK]
)
def test_what_is_anns_and_what_is_not_there_are_answered_alike(
    house: House, verb: str, user: str
) -> None:
    """But for one who may see it: to be denied it says no more than one knew."""
    there = tried(house.user(user), verb, house.anns)
    absent = tried(house.user(user), verb, house.nobodys)
    assert there is not None
    assert absent is not None
    if there.reason == DENIED and TABLE[verb] is TOUCHED_BY_ITS_OWN:
        assert absent.reason == ABSENT
        return
    assert blank(there, verb, house.anns) == blank(absent, verb, house.nobodys)


def blank(found: Refusal, verb: str, things: Things) -> str:
    """An answer without the name that was asked for."""
    if verb.startswith(("GetChannel", "ResolveReplicas")):
        return repr(found).replace(things.lfn, "NAME")
    if "URL" in verb:
        return repr(found).replace(things.url, "NAME")
    if "Content" in verb:
        return repr(found).replace(things.lfn, "NAME")
    return repr(found).replace(things.transfer if "Transfer" in verb else things.job, "NAME")


@pytest.mark.parametrize("user", ["eve", "sam"])
def test_batches_tell_of_foreign_things_as_of_absent_ones(house: House, user: str) -> None:
    foreign = house.user(user)
    for verb, method, request in (
        (
            "BatchGetJobs",
            foreign.jobs.BatchGetJobs,
            JOBS.BatchGetJobsRequest(names=[house.anns.job, house.nobodys.job]),
        ),
        (
            "BatchGetTransferJobs",
            foreign.transfers.BatchGetTransferJobs,
            TRANSFERS.BatchGetTransferJobsRequest(
                names=[house.anns.transfer, house.nobodys.transfer]
            ),
        ),
        (
            "ResolveReplicas",
            foreign.replicas.ResolveReplicas,
            replica_service_pb2.ResolveReplicasRequest(lfns=[house.anns.lfn, house.nobodys.lfn]),
        ),
    ):
        there, absent = (Refusal.of(r.status) for r in foreign.call(method, request).results)
        assert there.short == (ABSENT, ABSENT)
        assert blank(there, verb, house.anns) == blank(absent, verb, house.nobodys)


def listed(user: Stranger, job: str) -> dict[str, bool]:
    """Which listings show something."""
    accounted = accounting_service_pb2.ListAccountingRecordsRequest(filter=f'job = "{job}"')
    below = replica_service_pb2.ListReplicasRequest(prefix="LFN:/local/ann/")
    tasks = TRANSFERS.ListTransferJobsRequest(filter=f'tags.gridlane.job = "{job[5:]}"')
    return {
        "jobs": bool(user.call(user.jobs.ListJobs, JOBS.ListJobsRequest()).jobs),
        "transfers": bool(
            user.call(
                user.transfers.ListTransferJobs, TRANSFERS.ListTransferJobsRequest()
            ).transfer_jobs
        ),
        "by tag": bool(user.call(user.transfers.ListTransferJobs, tasks).transfer_jobs),
        "records": bool(user.call(user.accounting.ListAccountingRecords, accounted).records),
        "replicas": bool(user.call(user.replicas.ListReplicas, below).files),
    }


@pytest.mark.parametrize(
    ("user", "shown"),
    [
        ("ann", {"jobs", "transfers", "by tag", "records", "replicas"}),
        ("max", {"jobs", "transfers", "by tag", "records", "replicas"}),
        ("bob", {"records", "replicas"}),
        ("eve", set()),
        ("sam", set()),
    ],
)
def test_what_listings_show_of_anns(house: House, user: str, shown: set[str]) -> None:
    found = listed(house.user(user), house.anns.job)
    assert {name for name, shows in found.items() if shows} == shown


@pytest.mark.parametrize("user", ["bob", "eve", "sam", "nora"])
def test_nobody_writes_where_only_ann_and_her_like_may(house: House, user: str) -> None:
    other, lfn = house.user(user), "LFN:/local/ann/new"
    registration = replica_service_pb2.RegisterReplicaRequest(
        lfn=house.anns.lfn, url=house.anns.url, size_bytes=6, checksum=adler32(b"secret")
    )
    for method, request in (
        (other.storage.PutContent, parts(lfn, b"x")),
        (other.storage.PutContent, parts(house.anns.lfn, b"x", overwrite=True)),
        (other.replicas.RegisterReplica, registration),
        (other.transfers.SubmitTransferJob, transfer_of(house.anns.lfn, lfn)),
        (other.jobs.SubmitJob, submission("true", vo="local")),
        (other.tasks.SubmitTask, task_of(submission("true", vo="local"))),
    ):
        assert other.refused(method, request).code == DENIED
    assert house.user("ann").read(house.anns.lfn) == b"secret"


def test_sam_s_own_job_does_not_get_at_ann_s_file(house: House) -> None:
    sam = house.user("sam")
    for lfn in (house.anns.lfn, house.nobodys.lfn):
        inputs = [job_pb2.JobInput(path="in", source=lfn)]
        found = sam.refused(sam.tasks.SubmitTask, task_of(submission("cat", "in", inputs=inputs)))
        assert found.fields == ("job.description.inputs[0].source",)
    job = sam.done("cat", "in", inputs=[job_pb2.JobInput(path="in", source=house.anns.lfn)])
    assert job.state == job_pb2.JOB_STATE_FAILED
    assert job.failure.message


def test_the_services_own_storage_is_nobodys(house: House) -> None:
    log = house.server.data_dir / "jobs" / house.anns.uuid / "1" / "stdout.txt"
    assert log.exists()
    for user in ("ann", "max", "sam"):
        caller = house.user(user)
        get = STORAGE.GetContentRequest(file=log.as_uri())
        assert caller.refused(caller.storage.GetContent, get).reason == "NO_STORAGE_ELEMENT"
    ann = house.user("ann")
    request = transfer_of(log.as_uri(), "LFN:/local/ann/log")
    found = ann.refused(ann.transfers.SubmitTransferJob, request)
    assert found.reason == "NO_STORAGE_ELEMENT"


def test_a_vetoed_caller_is_denied_everything_and_sees_empty_lists(house: House) -> None:
    vera = house.user("vera")
    for verb in VERBS:
        found = tried(vera, verb, house.anns)
        assert found is not None
        assert found.reason == VETOED, verb
    assert not vera.call(vera.jobs.ListJobs, JOBS.ListJobsRequest()).jobs
    request = TRANSFERS.ListTransferJobsRequest()
    assert not vera.call(vera.transfers.ListTransferJobs, request).transfer_jobs
    accounted = accounting_service_pb2.ListAccountingRecordsRequest()
    assert vera.refused(vera.accounting.ListAccountingRecords, accounted).reason == VETOED


@pytest.mark.parametrize(
    ("scopes", "verb", "wanted"),
    [
        (["compute.read"], "GetJob", OK),
        (["compute.read"], "ReadJobLog", OK),
        (["compute.read"], "KillJob", "SCOPE_TOO_NARROW"),
        (["compute.cancel"], "KillJob", OK),
        (["compute.cancel"], "GetJob", "SCOPE_TOO_NARROW"),
        (["storage.read:/local/ann"], "GetContent", OK),
        (["storage.read:/"], "GetContent of a URL", OK),
        (["storage.read:/local/an"], "GetContent", "SCOPE_TOO_NARROW"),
        (["storage.read:/local/bob"], "GetContent", "SCOPE_TOO_NARROW"),
        (["storage.read:/local/ann/../ann"], "GetContent", "SCOPE_TOO_NARROW"),
        (["storage.read:/local/ann"], "GetJob", "SCOPE_TOO_NARROW"),
        (["storage.create:/local/ann"], "DeleteContent", "SCOPE_TOO_NARROW"),
        (["openid"], "GetJob", OK),
    ],
)
def test_scopes_narrow_what_ann_may(
    house: House, scopes: list[str], verb: str, wanted: str
) -> None:
    found = tried(house.user("ann", scopes), verb, house.anns)
    assert (OK if found is None else found.reason) == wanted
    if found is not None:
        assert set(found.metadata) == {"permission", "scopes_needed"}


def test_scopes_never_widen(house: House) -> None:
    scopes = ["compute.cancel", "compute.read", "storage.read:/", "storage.modify:/"]
    assert tried(house.user("eve", scopes), "GetJob", house.anns) is not None
    found = tried(house.user("bob", scopes), "KillJob", house.anns)
    assert found is not None
    assert found.reason == DENIED
