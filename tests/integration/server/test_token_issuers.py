"""Users of outside issuers on real servers, and Gridlane's own key replaced while they run."""

import base64
import json
import re
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from certificates import Authority
from hostile_tokens import encoded
from split import SERVICES, SplitServer
from support import CALL_SECONDS, Deployment, EmbeddedServer, bearer
from token_issuer import Client, Fault, TokenIssuer

from gridlane.authorization.v1 import (
    authorization_service_pb2,
    authorization_service_pb2_grpc,
    group_service_pb2,
    group_service_pb2_grpc,
    vo_service_pb2,
    vo_service_pb2_grpc,
)
from gridlane.authorization.v1.group_pb2 import Group
from gridlane.authorization.v1.vo_pb2 import Vo
from gridlane.gateway.v1 import task_service_pb2, task_service_pb2_grpc
from gridlane.reporting.v1 import accounting_service_pb2, accounting_service_pb2_grpc
from gridlane.transfer.v1 import channel_service_pb2, channel_service_pb2_grpc
from gridlane.workload.v1 import job_service_pb2, job_service_pb2_grpc
from gridlane_kit.wire import GROUP_KEY, TRACE_ID_KEY, read_error

GROUPS = ["/cms/production", "/cms"]
QUICK = {
    "GRIDLANE_AUTHORIZATION_ISSUERS_REFRESH_S": "1",
    "GRIDLANE_AUTHORIZATION_ISSUERS_RETRY_S": "0.2",
}
WAIT_S = 20.0


@pytest.fixture
def issuer() -> Iterator[TokenIssuer]:
    with TokenIssuer() as running:
        running.clients["robot"] = Client("s3cret", {"compute.read", "storage.read:/cms"}, GROUPS)
        yield running


def believing(issuer: TokenIssuer, **more: str) -> dict[str, str]:
    """The environment of a server that takes the issuer's tokens."""
    issuers = [{"url": issuer.url, "vo": "cms", **more}]
    return {"GRIDLANE_AUTHORIZATION_ISSUERS": json.dumps(issuers), **QUICK}


def granted(issuer: TokenIssuer, **form: str) -> dict[str, str]:
    """What the issuer's token endpoint answers."""
    secret = base64.b64encode(b"robot:s3cret").decode()
    request = urllib.request.Request(  # noqa: S310 - on loopback
        f"{issuer.url}/token",
        urllib.parse.urlencode(form).encode(),
        {"Authorization": f"Basic {secret}"},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
        return dict(json.load(answer))


def who(server: Deployment, token: str, **headers: str) -> Any:
    """What WhoAmI answers to a token."""
    stub = authorization_service_pb2_grpc.AuthorizationServiceStub(server.channel)
    metadata = (*bearer(token), *((name.replace("_", "-"), v) for name, v in headers.items()))
    request = authorization_service_pb2.WhoAmIRequest()
    return stub.WhoAmI(request, metadata=metadata, timeout=CALL_SECONDS)


def begin_vo(server: Deployment) -> None:
    """Makes the VO for which the issuer speaks."""
    stub = vo_service_pb2_grpc.VoServiceStub(server.channel)
    server.call(stub.CreateVo, vo_service_pb2.CreateVoRequest(vo_id="cms", vo=Vo()))


def declare(server: Deployment, path: str) -> Group:
    """Declares a group of that VO."""
    stub = group_service_pb2_grpc.GroupServiceStub(server.channel)
    request = group_service_pb2.CreateGroupRequest(
        parent="vos/cms", group_id=path.rpartition("/")[2], group=Group(path=path)
    )
    declared: Group = server.call(stub.CreateGroup, request)
    return declared


def refused(call: Callable[[], Any]) -> tuple[str, str]:
    """The reason of a refusal, and its trace id."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    trailing: Any = caught.value.trailing_metadata()
    error = read_error(caught.value.code(), trailing)
    assert error is not None
    return error.reason, dict(trailing)[TRACE_ID_KEY]


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_good(server: Deployment, token: str) -> bool:
    try:
        who(server, token)
    except grpc.RpcError:
        return False
    return True


def test_a_robot_gets_a_token_for_what_it_asks_and_refreshes_it(
    issuer: TokenIssuer, start_server: Callable[..., EmbeddedServer]
) -> None:
    server = start_server(believing(issuer))
    answer = granted(issuer, grant_type="client_credentials", scope="storage.read:/cms")
    robot = who(server, answer["access_token"])
    assert (robot.principal.issuer, robot.principal.subject) == (issuer.url, "robot")
    assert list(robot.principal.vos) == ["cms"]
    assert list(robot.principal.groups) == sorted(GROUPS)
    assert robot.principal.active_group == "/cms/production"
    assert list(robot.scopes) == ["storage.read:/cms"]
    again = granted(issuer, grant_type="refresh_token", refresh_token=answer["refresh_token"])
    assert again["access_token"] != answer["access_token"]
    assert list(who(server, again["access_token"]).scopes) == ["storage.read:/cms"]


def test_a_caller_chooses_its_group_with_each_call(
    issuer: TokenIssuer, start_server: Callable[..., EmbeddedServer]
) -> None:
    server = start_server(believing(issuer))
    token = issuer.sign(**{"wlcg.groups": GROUPS})
    assert GROUP_KEY == "gridlane-group"
    for _ in range(2):
        assert who(server, token).principal.active_group == "/cms/production"
        assert who(server, token, gridlane_group="/cms").principal.active_group == "/cms"
        reason, _ = refused(lambda: who(server, token, gridlane_group="/atlas"))
        assert reason == "PERMISSION_DENIED"


def test_where_a_vo_declares_groups_its_members_act_in_these_alone(
    issuer: TokenIssuer, start_server: Callable[..., EmbeddedServer]
) -> None:
    server = start_server(believing(issuer))
    begin_vo(server)
    token = issuer.sign(**{"wlcg.groups": GROUPS})
    assert who(server, token, gridlane_group="/cms").principal.active_group == "/cms"
    declared = declare(server, "/cms")
    assert who(server, token, gridlane_group="/cms").principal.active_group == "/cms"
    reason, _ = refused(lambda: who(server, token, gridlane_group="/cms/production"))
    assert reason == "PERMISSION_DENIED"
    principal = who(server, token).principal
    assert (principal.active_group, sorted(principal.groups)) == ("", sorted(GROUPS))
    assert server.stop() == 0
    server.start()
    assert who(server, token).principal.active_group == ""
    groups = group_service_pb2_grpc.GroupServiceStub(server.channel)
    server.call(groups.DeleteGroup, group_service_pb2.DeleteGroupRequest(name=declared.name))
    assert who(server, token).principal.active_group == "/cms/production"


def test_what_is_wrong_with_a_token_is_in_the_log_under_the_trace_id_alone(
    issuer: TokenIssuer, start_server: Callable[..., EmbeddedServer]
) -> None:
    server = start_server(believing(issuer))
    header = encoded(b'{"alg":"none"}')
    claims = encoded(json.dumps(issuer.claims()).encode())
    hostile = {
        issuer.sign(aud="https://elsewhere.example"): "aud is another one",
        issuer.sign(**{"wlcg.ver": "2.0"}): "wlcg.ver is not a version 1 of the profile",
        issuer.sign(scope="storage.read"): "a storage scope without an absolute path",
        issuer.sign(iss="https://elsewhere.example"): "the issuer is not trusted",
        f"{header}.{claims}.AA": "alg is none of those of the profile",
    }
    for token, why in hostile.items():
        reason, trace_id = refused(partial(who, server, token))
        assert reason == "TOKEN_INVALID"
        (line,) = re.findall(f".*{trace_id}.*", server.output)
        assert why in line
        assert token.split(".")[1] not in server.output


def test_keys_are_rotated_and_withdrawn_while_the_server_runs(
    issuer: TokenIssuer, start_server: Callable[..., EmbeddedServer]
) -> None:
    server = start_server(believing(issuer))
    old = issuer.sign()
    assert is_good(server, old)
    issuer.rotate()
    eventually(lambda: is_good(server, issuer.sign()))
    assert is_good(server, old)
    issuer.retire()
    # It was proven once and is remembered: the key that is gone ends that too.
    eventually(lambda: not is_good(server, old))
    assert is_good(server, issuer.sign())


def test_an_issuer_that_is_away_takes_nobody_else_along(
    issuer: TokenIssuer, start_server: Callable[..., EmbeddedServer]
) -> None:
    issuer.fault = Fault.HANGS
    server = start_server(believing(issuer))
    assert who(server, server.token).principal.subject
    reason, _ = refused(lambda: who(server, issuer.sign()))
    assert reason == "PEER_UNAVAILABLE"
    issuer.fault = None
    eventually(lambda: is_good(server, issuer.sign()))
    issuer.go_away()
    assert is_good(server, issuer.sign())
    time.sleep(1.5)  # refreshes fail meanwhile
    assert is_good(server, issuer.sign())
    assert server.stop() == 0


def test_issuers_with_certificates_of_a_private_authority(
    tmp_path: Path, start_server: Callable[..., EmbeddedServer]
) -> None:
    authority = Authority()
    roots = authority.write_roots(tmp_path / "roots.pem")
    with TokenIssuer(authority.write_pair(tmp_path, "issuer"), algorithm="RS256") as secure:
        server = start_server(
            {**believing(secure), "GRIDLANE_AUTHORIZATION_ISSUERS_CA": str(roots)}
        )
        assert who(server, secure.sign()).principal.issuer == secure.url
        stranger = start_server(believing(secure))
        assert refused(lambda: who(stranger, secure.sign()))[0] == "PEER_UNAVAILABLE"


def test_the_command_says_whether_issuers_can_be_used(
    issuer: TokenIssuer, command: Callable[..., Any], tmp_path: Path
) -> None:
    told = command("issuers", **believing(issuer))
    assert told.returncode == 0, told.stderr
    assert told.stdout == f"{issuer.url} (VO cms): 1 keys: {issuer.key.kid} (ES256)\n"
    issuer.fault = Fault.GARBAGE
    told = command("issuers", "--output", "json", **believing(issuer))
    assert told.returncode == 69
    (report,) = json.loads(told.stdout)
    assert report["problem"].endswith("no JSON")
    twice = json.dumps([{"url": issuer.url, "vo": vo} for vo in ("cms", "atlas")])
    told = command("issuers", GRIDLANE_AUTHORIZATION_ISSUERS=twice)
    assert (told.returncode, "configured twice" in told.stderr) == (64, True)
    missing = believing(issuer, jwks_file=str(tmp_path / "missing.json"))
    told = command("issuers", **missing)
    assert (told.returncode, "missing.json" in told.stderr) == (69, True)
    told = command("all", "--data-dir", tmp_path / "data", **missing)
    assert (told.returncode, "missing.json" in told.stderr) == (69, True)


def test_the_signing_key_is_replaced_while_the_server_runs(
    start_server: Callable[..., EmbeddedServer], command: Callable[..., Any]
) -> None:
    server = start_server()
    old, subject = server.token, who(server, server.token).principal.subject
    rotated = command("rotate-key", "--data-dir", server.data_dir)
    assert rotated.returncode == 0, rotated.stderr
    eventually(lambda: server.token != old)
    new = server.token
    assert json.loads(base64.b64decode(new.split(".")[0] + "=="))["kid"] in rotated.stdout
    for token in (old, new):
        assert who(server, token).principal.subject == subject
    assert server.stop() == 0
    server.start()
    for token in (old, new):
        assert who(server, token).principal.subject == subject
    # The key is known to others: nothing that it signed counts any more.
    assert command("rotate-key", "--data-dir", server.data_dir, "--keep-days", 0).returncode == 0
    eventually(lambda: not is_good(server, new))
    assert not is_good(server, old)
    eventually(lambda: is_good(server, server.token))


@pytest.mark.five_processes
def test_every_service_in_its_own_process_believes_alike(
    issuer: TokenIssuer, command: Callable[..., Any], tmp_path: Path
) -> None:
    server = SplitServer(tmp_path, environment=believing(issuer))
    try:
        server.start()
        first = server.token
        for token in (issuer.sign(), first):
            assert answers(server, token) == dict.fromkeys(SERVICES, "OK")
        in_group = partial(answers, server, issuer.sign(**{"wlcg.groups": GROUPS}), "/cms")
        assert in_group() == dict.fromkeys(SERVICES, "OK")
        begin_vo(server)
        declare(server, "/cms/production")
        eventually(lambda: in_group() == dict.fromkeys(SERVICES, "PERMISSION_DENIED"))
        nobody = dict.fromkeys(SERVICES, "UNAUTHENTICATED")
        assert answers(server, issuer.sign(aud="elsewhere")) == nobody
        assert command("rotate-key", "--config", server.config).returncode == 0
        eventually(lambda: server.token != first)
        for token in (server.token, first):
            assert answers(server, token) == dict.fromkeys(SERVICES, "OK")
        command("rotate-key", "--config", server.config, "--keep-days", 0)
        eventually(lambda: answers(server, first) == nobody)
        eventually(lambda: answers(server, server.token) == dict.fromkeys(SERVICES, "OK"))
    finally:
        server.close()
    print(server.output)


def answers(server: Deployment, token: str, group: str = "") -> dict[str, str]:
    """What each service says to a token, and to a group: "OK", or the code of the refusal."""
    channel = server.channel
    metadata = (*bearer(token), *((("gridlane-group", group),) if group else ()))
    records = accounting_service_pb2_grpc.AccountingServiceStub(channel).ListAccountingRecords
    calls: dict[str, tuple[Any, Any]] = {
        "authorization": (
            authorization_service_pb2_grpc.AuthorizationServiceStub(channel).WhoAmI,
            authorization_service_pb2.WhoAmIRequest(),
        ),
        "transfer": (
            channel_service_pb2_grpc.ChannelServiceStub(channel).ListChannels,
            channel_service_pb2.ListChannelsRequest(),
        ),
        "workload": (
            job_service_pb2_grpc.JobServiceStub(channel).ListJobs,
            job_service_pb2.ListJobsRequest(),
        ),
        "reporting": (records, accounting_service_pb2.ListAccountingRecordsRequest()),
        "gateway": (
            task_service_pb2_grpc.TaskServiceStub(channel).Ping,
            task_service_pb2.PingRequest(),
        ),
    }
    found = {}
    for service, (method, request) in calls.items():
        try:
            method(request, metadata=metadata, timeout=CALL_SECONDS)
            found[service] = "OK"
        except grpc.RpcError as error:
            found[service] = error.code().name
    return found
