"""Promises of what is told about everything: tasks, accounting, spans, status, oneself."""

import re
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from integration.contract_promises.stranger import Stranger, refusal

from gridlane.authorization.v1 import (
    authorization_service_pb2,
    policy_pb2,
    policy_service_pb2,
    token_service_pb2,
)
from gridlane.gateway.v1 import task_service_pb2
from gridlane.reporting.v1 import accounting_service_pb2, span_service_pb2
from gridlane.transfer.v1 import event_service_pb2, storage_service_pb2
from gridlane.type.v1 import feed_pb2, principal_pb2
from gridlane.workload.v1 import event_service_pb2 as job_event_service_pb2
from gridlane.workload.v1 import job_pb2, job_service_pb2
from gridlane_authorization.settings import AuthorizationSettings
from gridlane_authorization.tokens import open_signer
from gridlane_kit.tokens import TokenSigner, new_key


def test_a_task_tells_the_whole_story(me: Stranger, folder: str) -> None:
    me.put(f"{folder}/in", b"12345")
    job = me.done(
        "cp",
        "in",
        "out",
        inputs=[job_pb2.JobInput(path="in", source=f"{folder}/in")],
        outputs=[job_pb2.JobOutput(path="out", target=f"{folder}/out")],
        job_group="group",
    )
    request = task_service_pb2.DescribeTaskRequest(name=job.name)
    task = me.eventually(
        lambda: (t := me.call(me.tasks.DescribeTask, request)).accounting_records[2:] and t
    )
    assert task.job == job
    assert task.trace_id == job.trace_id
    assert not task.missing
    transfers = [job.stage_in_transfer, job.stage_out_transfer]
    assert [transfer.name for transfer in task.transfer_jobs] == transfers
    assert all(transfer.files for transfer in task.transfer_jobs)
    times = [
        (e.job if e.HasField("job") else e.transfer).time.ToMicroseconds() for e in task.events
    ]
    assert times == sorted(times)
    usage = next(r.job_usage for r in task.accounting_records if r.HasField("job_usage"))
    assert (usage.attempt, usage.job_group, usage.job_type) == (1, "group", "User")
    assert (usage.job_class, usage.site, usage.final_major_status) == ("single", "embedded", "DONE")
    assert (usage.input_data_files, usage.input_data_bytes) == (1, 5)
    assert (usage.output_data_files, usage.output_data_bytes) == (1, 5)
    operations = [r.data_operation for r in task.accounting_records if r.HasField("data_operation")]
    assert {(o.final_status, o.transfer_ok, o.transfer_total) for o in operations} == {
        ("FINISHED", 1, 1)
    }
    assert [record.job for record in task.accounting_records] == [job.name] * 3
    assert len({record.name for record in task.accounting_records}) == 3


def test_spans_come_by_their_start(me: Stranger) -> None:
    job = me.done()
    request = span_service_pb2.ListJobSpansRequest(job=job.name)
    spans = me.eventually(
        lambda: (
            [s for s in me.call(me.spans.ListJobSpans, request).spans if s.name == "payload"]
            and me.call(me.spans.ListJobSpans, request).spans
        )
    )
    starts = [span.start_time.ToNanoseconds() for span in spans]
    assert starts == sorted(starts)
    assert len(spans) <= 1000
    for span in spans:
        assert re.fullmatch("[0-9a-f]{32}", span.trace_id)
        assert re.fullmatch("[0-9a-f]{16}", span.span_id)
        assert re.fullmatch("([0-9a-f]{16})?", span.parent_span_id)
        assert all(re.fullmatch("[0-9a-f]{32}-[0-9a-f]{16}", link) for link in span.links)
    assert job.trace_id in {span.trace_id for span in spans}


def test_a_ping_says_how_every_service_is(me: Stranger) -> None:
    services = me.call(me.tasks.Ping, task_service_pb2.PingRequest()).services
    assert [one.service for one in services] == [
        "authorization",
        "transfer",
        "workload",
        "reporting",
    ]
    for one in services:
        assert one.reachable
        assert one.authenticated
        assert one.version
        assert not one.message
        assert 0 < one.latency.ToNanoseconds() < 2_000_000_000
        assert one.backends
        assert all(backend.reachable and backend.name for backend in one.backends)


def test_each_service_says_how_it_is(me: Stranger) -> None:
    authorization = authorization_service_pb2.GetAuthorizationStatusRequest()
    for method, request, name in (
        (me.authorization.GetAuthorizationStatus, authorization, "authorization"),
        (
            me.storage.GetTransferStatus,
            storage_service_pb2.GetTransferStatusRequest(),
            "transfer",
        ),
        (me.jobs.GetWorkloadStatus, job_service_pb2.GetWorkloadStatusRequest(), "workload"),
        (
            me.accounting.GetReportingStatus,
            accounting_service_pb2.GetReportingStatusRequest(),
            "reporting",
        ),
    ):
        status = me.call(method, request)
        assert status.service == name
        assert status.reachable
        assert status.authenticated
        assert status.version


def test_one_learns_who_one_is(me: Stranger) -> None:
    answer = me.call(me.authorization.WhoAmI, authorization_service_pb2.WhoAmIRequest())
    assert answer.principal.kind == principal_pb2.PRINCIPAL_KIND_USER
    assert list(answer.principal.vos) == ["local"]
    roles = {(role.role, role.vo) for role in answer.roles}
    assert (policy_pb2.ROLE_ADMIN, "") in roles
    assert (policy_pb2.ROLE_SUBMITTER, "local") in roles
    assert (policy_pb2.ROLE_REGULAR_USER, "") in roles
    assert not answer.scopes
    assert answer.expire_time.seconds > 0
    assert answer.policy_revision > 0


def test_only_services_follow_feeds_read_the_policy_and_have_tokens_made(me: Stranger) -> None:
    position = feed_pb2.FeedPosition(epoch="x", position=1)
    follow_jobs = job_event_service_pb2.FollowJobEventsRequest()
    ack_jobs = job_event_service_pb2.AckJobEventsRequest(consumer="x", position=position)
    follow_transfers = event_service_pb2.FollowTransferEventsRequest()
    ack_transfers = event_service_pb2.AckTransferEventsRequest(consumer="x", position=position)
    mint = token_service_pb2.MintJobTokenRequest(job=me.submit().name, attempt=1)
    mint.lifetime.FromSeconds(60)
    for method, request, permission in (
        (me.job_events.FollowJobEvents, follow_jobs, "workload.events.follow"),
        (me.job_events.AckJobEvents, ack_jobs, "workload.events.follow"),
        (me.transfer_events.FollowTransferEvents, follow_transfers, "transfer.events.follow"),
        (me.transfer_events.AckTransferEvents, ack_transfers, "transfer.events.follow"),
        (
            me.authorization.GetPolicy,
            authorization_service_pb2.GetPolicyRequest(),
            "authorization.policy.view",
        ),
        (
            me.policy.FollowPolicy,
            policy_service_pb2.FollowPolicyRequest(),
            "authorization.policy.follow",
        ),
        (me.tokens.MintJobToken, mint, "authorization.tokens.mint"),
    ):
        refusal = me.refused(method, request)
        assert refusal.short == ("PERMISSION_DENIED", "PERMISSION_DENIED")
        # No role gives any of these, so none is named.
        assert refusal.metadata == {"permission": permission}


def test_a_token_s_scopes_are_told(user_of: Any) -> None:
    bob = user_of("bob", "local", scopes=["storage.read:/local", "compute.read"])
    answer = bob.call(bob.authorization.WhoAmI, authorization_service_pb2.WhoAmIRequest())
    assert list(answer.scopes) == ["compute.read", "storage.read:/local"]
    assert [role.role for role in answer.roles] == [policy_pb2.ROLE_REGULAR_USER]
    assert answer.principal.subject == "bob"


def test_a_call_without_a_good_token_says_what_is_wrong_with_it(me: Stranger) -> None:
    settings = AuthorizationSettings()
    keys = me.server.data_dir / "keys"
    signer = open_signer(keys, settings.issuer, settings.audience)
    stranger = TokenSigner(new_key(), settings.issuer, settings.audience)
    elsewhere = open_signer(keys, settings.issuer, "https://elsewhere.test")
    other = open_signer(keys, "https://elsewhere.test/", settings.audience)
    for token, reason in (
        (signer.sign_user("ann", lifetime_s=-1), "TOKEN_EXPIRED"),
        (stranger.sign_user("ann", lifetime_s=60), "TOKEN_INVALID"),
        (elsewhere.sign_user("ann", lifetime_s=60), "TOKEN_INVALID"),
        (other.sign_user("ann", lifetime_s=60), "TOKEN_INVALID"),
        (me.server.token[:-4], "TOKEN_INVALID"),
        (" ", "TOKEN_MISSING"),
    ):
        caller = Stranger(me.server, token)
        who = authorization_service_pb2.WhoAmIRequest()
        assert caller.refused(caller.authorization.WhoAmI, who).short == ("UNAUTHENTICATED", reason)


def test_what_this_version_does_not_have_says_so(me: Stranger) -> None:
    with grpc.insecure_channel(me.server.health_address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        listed: Any = channel.unary_unary("/grpc.health.v1.Health/List")
        with pytest.raises(grpc.RpcError) as refused:
            listed(b"", timeout=10)
        assert refusal(refused.value).short == ("UNIMPLEMENTED", "NOT_IMPLEMENTED")
        for service in ("", "gridlane.workload.v1.JobService"):
            check = health_pb2.HealthCheckRequest(service=service)
            assert stub.Check(check, timeout=10).status == health_pb2.HealthCheckResponse.SERVING
