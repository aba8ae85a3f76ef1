"""The nouns of the policy against grpcio-testing: what verbs send and make of answers."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import grpc_testing
import pytest
from google.protobuf import descriptor_pool
from google.protobuf.message import Message

import gridlane
from gridlane.authorization.v1 import permission_pb2
from gridlane.authorization.v1.group_pb2 import Group
from gridlane.authorization.v1.issuer_pb2 import Issuer
from gridlane.authorization.v1.policy_pb2 import Role, RoleBinding, WorkAction
from gridlane.authorization.v1.vo_pb2 import Vo
from gridlane.ids import uuid7_time_ms
from gridlane.nouns import audit, authorization, groups, issuers, roles, vos
from gridlane.roles import filter_word, role_of, role_word, work_action_of, work_action_word
from gridlane.transport import Method

SECONDS = 10
ID = "01a201f0-0c1d-7a2b-8c3d-4e5f60718293"
NEW_YEAR = datetime(2030, 1, 1, tzinfo=UTC)
ISSUER = "https://iam.example.org/"


class Played:
    """A client whose server the test plays."""

    def __init__(self) -> None:
        pool = descriptor_pool.Default()
        nouns = (audit, authorization, groups, issuers, roles, vos)
        names = [noun._SERVICE for noun in nouns] + [audit._TRANSFER_SERVICE]
        described = [pool.FindServiceByName(name) for name in names]
        self.channel = grpc_testing.channel(described, grpc_testing.strict_real_time())
        self.client = gridlane.Client("127.0.0.1:1", token="t0ken", channel=self.channel)
        self._threads = ThreadPoolExecutor(2)

    def begin(self, call: Callable[[gridlane.Client], Any]) -> "Future[Any]":
        return self._threads.submit(call, self.client)

    def take(self, method: Method[Any, Any]) -> tuple[Any, Any]:
        described = descriptor_pool.Default().FindServiceByName(method.service)
        _, request, rpc = self.channel.take_unary_unary(described.methods_by_name[method.name])
        return request, rpc

    def answer(self, method: Method[Any, Any], response: Message) -> Any:
        request, rpc = self.take(method)
        rpc.terminate(response, (), grpc.StatusCode.OK, "")
        return request


@pytest.fixture
def played() -> Iterator[Played]:
    made = Played()
    yield made
    made.client.close()


@pytest.mark.parametrize(
    ("call", "method", "field", "sent"),
    [
        (lambda c: c.roles.get(ID), roles.GET, "name", f"roleBindings/{ID}"),
        (lambda c: c.roles.revoke(ID), roles.DELETE, "name", f"roleBindings/{ID}"),
        (lambda c: c.vos.get("cms"), vos.GET, "name", "vos/cms"),
        (lambda c: c.vos.delete("vos/cms"), vos.DELETE, "name", "vos/cms"),
        (lambda c: c.groups.get("cms/prod"), groups.GET, "name", "vos/cms/groups/prod"),
        (lambda c: c.groups.delete("cms/prod"), groups.DELETE, "name", "vos/cms/groups/prod"),
        (lambda c: list(c.groups.list("cms")), groups.LIST, "parent", "vos/cms"),
        (lambda c: c.issuers.get("iam"), issuers.GET, "name", "issuers/iam"),
        (lambda c: c.issuers.delete("issuers/iam"), issuers.DELETE, "name", "issuers/iam"),
        (lambda c: list(c.issuers.list(vo="cms")), issuers.LIST, "filter", 'vo = "cms"'),
        (lambda c: c.audit.get(ID), audit.GET, "name", f"auditEntries/{ID}"),
        (lambda c: list(c.audit.list(actor="alice")), audit.LIST, "filter", 'actor = "alice"'),
        (
            lambda c: c.audit.get(ID, service="transfer"),
            audit.TRANSFER_GET,
            "name",
            f"auditEntries/{ID}",
        ),
        (
            lambda c: list(c.audit.list(service="transfer", vo="cms")),
            audit.TRANSFER_LIST,
            "filter",
            'vo = "cms"',
        ),
        (
            lambda c: list(c.roles.list(vo="cms", role="vo-manager")),
            roles.LIST,
            "filter",
            'vo = "cms" AND role = "VO_MANAGER"',
        ),
        (
            lambda c: list(c.roles.list(role="vetoed")),
            roles.LIST,
            "filter",
            'role = "VETOED_USER"',
        ),
    ],
    ids=lambda value: value.name if isinstance(value, Method) else "",
)
def test_verbs_name_their_resource_in_full(
    played: Played,
    call: Callable[[gridlane.Client], Any],
    method: Method[Any, Any],
    field: str,
    sent: str,
) -> None:
    future = played.begin(call)
    request = played.answer(method, method.response())
    assert getattr(request, field) == sent
    future.result(SECONDS)


def test_a_role_is_granted_with_all_that_was_said(played: Played) -> None:
    future = played.begin(
        lambda client: client.roles.grant(
            "submitter", "alice", issuer=ISSUER, vo="cms", expire_time=NEW_YEAR, reason="new"
        )
    )
    request = played.answer(roles.CREATE, RoleBinding(name=f"roleBindings/{ID}"))
    assert future.result(SECONDS).name == f"roleBindings/{ID}"
    given = request.role_binding
    assert (given.role, given.subject, given.vo) == (Role.ROLE_SUBMITTER, "alice", "cms")
    assert given.expire_time.ToDatetime(UTC) == NEW_YEAR
    assert (request.reason, given.queued_work) == ("new", 0)
    assert uuid7_time_ms(request.request_id) > 0


def test_a_veto_is_a_role_that_says_what_happens_to_work(played: Played) -> None:
    future = played.begin(
        lambda client: client.roles.grant("vetoed", "alice", issuer=ISSUER, queued_work="cancel")
    )
    given = played.answer(roles.CREATE, RoleBinding()).role_binding
    assert (given.role, given.queued_work) == (
        Role.ROLE_VETOED_USER,
        WorkAction.WORK_ACTION_CANCEL,
    )
    future.result(SECONDS)


def test_an_update_names_what_it_changes_and_what_it_clears(played: Played) -> None:
    future = played.begin(
        lambda client: client.roles.update(ID, running_work="hold", clear=["expire_time"])
    )
    request = played.answer(roles.UPDATE, RoleBinding())
    assert request.update_mask.paths == ["expire_time", "running_work"]
    assert not request.role_binding.HasField("expire_time")
    future.result(SECONDS)
    future = played.begin(lambda client: client.vos.update("cms", contact=""))
    assert played.answer(vos.UPDATE, Vo()).update_mask.paths == ["contact"]
    future.result(SECONDS)
    future = played.begin(lambda client: client.groups.update("cms/prod", dirac_group="prod"))
    request = played.answer(groups.UPDATE, Group())
    assert (request.update_mask.paths, request.group.dirac_group) == (["dirac_group"], "prod")
    future.result(SECONDS)
    future = played.begin(
        lambda client: client.issuers.update(
            "iam", enabled=False, max_group_age=timedelta(hours=12), clear=["audiences"]
        )
    )
    request = played.answer(issuers.UPDATE, Issuer())
    assert request.update_mask.paths == ["audiences", "enabled", "max_group_age"]
    assert (request.issuer.name, request.issuer.max_group_age.seconds) == ("issuers/iam", 43_200)
    future.result(SECONDS)


@pytest.mark.parametrize(
    ("call", "method"),
    [
        (lambda c: c.roles.update(ID, clear=["expire_time"], revision=3), roles.UPDATE),
        (lambda c: c.roles.revoke(ID, revision=3), roles.DELETE),
        (lambda c: c.vos.update("cms", contact="", revision=3), vos.UPDATE),
        (lambda c: c.vos.delete("cms", revision=3), vos.DELETE),
        (lambda c: c.groups.update("cms/a", description="", revision=3), groups.UPDATE),
        (lambda c: c.groups.delete("cms/a", revision=3), groups.DELETE),
        (lambda c: c.issuers.update("iam", enabled=True, revision=3), issuers.UPDATE),
        (lambda c: c.issuers.delete("iam", revision=3), issuers.DELETE),
    ],
    ids=lambda value: value.name if isinstance(value, Method) else "",
)
def test_a_change_of_one_revision_is_tried_once(
    played: Played, call: Callable[[gridlane.Client], Any], method: Method[Any, Any]
) -> None:
    future = played.begin(call)
    request, rpc = played.take(method)
    rpc.terminate(None, (), grpc.StatusCode.ABORTED, "changed meanwhile")
    with pytest.raises(gridlane.Aborted):
        future.result(SECONDS)
    assert request.revision == 3


def test_a_group_lies_below_its_vo_unless_said_otherwise(played: Played) -> None:
    future = played.begin(lambda client: client.groups.create("cms", "prod"))
    request = played.answer(groups.CREATE, Group())
    assert (request.parent, request.group_id, request.group.path) == (
        "vos/cms",
        "prod",
        "/cms/prod",
    )
    future.result(SECONDS)


def test_many_questions_are_asked_a_thousand_a_call(played: Played) -> None:
    questions = [
        permission_pb2.CheckPermissionRequest(permission="transfer.jobs.cancel")
        for _ in range(1001)
    ]
    future = played.begin(lambda client: client.authorization.check_many(questions))
    first = permission_pb2.BatchCheckPermissionsResponse()
    for _ in range(1000):
        first.results.add().permission.allowed = True
    assert len(played.answer(authorization.BATCH_CHECK, first).requests) == 1000
    last = permission_pb2.BatchCheckPermissionsResponse()
    last.results.add().status.code = grpc.StatusCode.PERMISSION_DENIED.value[0]
    assert len(played.answer(authorization.BATCH_CHECK, last).requests) == 1
    results = future.result(SECONDS)
    assert [result.allowed for result in results[:1000]] == [True] * 1000
    assert isinstance(results[1000], gridlane.PermissionDenied)


def test_a_time_without_a_zone_is_refused(played: Played) -> None:
    with pytest.raises(ValueError, match="time zone"):
        played.client.roles.grant("admin", "alice", expire_time=datetime(2030, 1, 1))  # noqa: DTZ001
    with pytest.raises(ValueError, match="time zone"):
        list(played.client.audit.list(since=datetime(2030, 1, 1)))  # noqa: DTZ001


@pytest.mark.parametrize(
    "text", ["x", f"jobs/{ID}", "cms", "vos/cms/prod", "vos//groups/a", "a/b/c"]
)
def test_what_is_no_name_is_refused_before_it_is_sent(played: Played, text: str) -> None:
    with pytest.raises(ValueError, match="not a name"):
        played.client.roles.get(text)
    with pytest.raises(ValueError, match="not a name"):
        played.client.groups.get(text if "/" not in text or text.count("/") > 1 else "x")


def test_every_role_and_action_has_a_word_that_is_read_again() -> None:
    for number in Role.values()[1:]:
        assert role_of(role_word(number)) == number
        assert Role.Value(f"ROLE_{filter_word(role_word(number))}") == number
    assert role_of("VETOED_USER") == role_of("vetoed")
    for action in WorkAction.values()[1:]:
        assert work_action_of(work_action_word(action)) == action
    assert (role_word(99), work_action_word(99), work_action_word(0)) == ("99", "99", "")
    with pytest.raises(ValueError, match="not a role"):
        role_of("king")
    with pytest.raises(ValueError, match="no action"):
        work_action_of("burn")
