"""Lives of the policy: virtual organisations, groups, roles and vetoes that come and go.

Responsible for what an administrator does; lives of tasks are `lives`'.
"""

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import grpc
from faults import checks
from faults.lives import Life, until
from google.protobuf.timestamp_pb2 import Timestamp
from support import Deployment

from gridlane.authorization.v1 import (
    audit_service_pb2,
    audit_service_pb2_grpc,
    authorization_service_pb2,
    authorization_service_pb2_grpc,
    group_pb2,
    group_service_pb2,
    group_service_pb2_grpc,
    issuer_service_pb2,
    issuer_service_pb2_grpc,
    policy_pb2,
    role_service_pb2,
    role_service_pb2_grpc,
    vo_pb2,
    vo_service_pb2,
    vo_service_pb2_grpc,
)
from gridlane.authorization.v1.issuer_pb2 import Issuer
from gridlane.ids import uuid7
from gridlane_kit.tokens import TokenSigner, new_key

_ISSUER = "https://issuer.test/"
_KEY = new_key()
_NOBODYS = "roleBindings/01939f5e-0000-7000-8000-000000000001"


class PolicyLife(Life):
    """A VO with an issuer and a group that submits, somebody who is vetoed for a while, a guest who
    leaves.

    Every call is sent again after a start, with the same request id or for the same name.
    """

    environment: ClassVar[dict[str, str]] = {
        "GRIDLANE_AUTHORIZATION_KEEP_ENDED_BINDINGS_DAYS": "0",
        "GRIDLANE_AUTHORIZATION_PRUNE_INTERVAL_S": "0.2",
    }

    def __init__(self, server: Deployment, folder: Path) -> None:
        super().__init__(server, folder)
        self.vo = f"vo-{uuid7()}"
        self.path = f"/{self.vo}/team"
        self._ids = {step: uuid7() for step in ("vo", "issuer", "group", "members", "veto")}
        self._made: dict[str, Any] = {}
        self._step = 0

    def go_on(self) -> None:
        for step in self._steps()[self._step :]:
            step()
            self._step += 1

    def check(self) -> None:
        members, veto, vo = self._made["members"], self._made["veto"], self._made["vo"]
        for made, verbs in (
            (vo, ["CreateVo"]),
            (self._made["issuer"], ["UpdateIssuer", "CreateIssuer"]),
            (self._made["group"], ["CreateGroup"]),
            (members, ["CreateRoleBinding"]),
            (veto, ["DeleteRoleBinding", "UpdateRoleBinding", "CreateRoleBinding"]),
        ):
            # What was committed, and not answered, was not done again.
            assert self._verbs_on(made.name) == verbs
        seen = self._roles.ListRoleBindings
        listed = self._call(seen, role_service_pb2.ListRoleBindingsRequest(filter=f"vo={self.vo}"))
        assert list(listed.role_bindings) == [members]
        self._revisions_have_no_gap()

    def _steps(self) -> Sequence[Callable[[], None]]:
        return (
            self._make_vo,
            self._add_issuer,
            self._believe_issuer,
            self._make_group,
            self._bind_group,
            self._veto,
            self._soften_veto,
            self._be_refused,
            self._have_a_guest,
            self._end_veto,
        )

    def _make_vo(self) -> None:
        stub = vo_service_pb2_grpc.VoServiceStub(self.server.channel)
        request = vo_service_pb2.CreateVoRequest(
            vo_id=self.vo, vo=vo_pb2.Vo(), request_id=self._ids["vo"], reason="a life"
        )
        self._made["vo"] = self._call(stub.CreateVo, request)

    def _add_issuer(self) -> None:
        given = Issuer(
            url=f"https://{self.vo}.test/",
            vo=self.vo,
            jwks=json.dumps(TokenSigner(_KEY, _ISSUER, "").jwks()),
        )
        request = issuer_service_pb2.CreateIssuerRequest(
            issuer_id=self.vo, issuer=given, request_id=self._ids["issuer"]
        )
        self._made["issuer"] = self._call(self._issuers.CreateIssuer, request)

    def _believe_issuer(self) -> None:
        switched = Issuer(name=self._made["issuer"].name, enabled=True)
        request = issuer_service_pb2.UpdateIssuerRequest(issuer=switched)
        assert self._call(self._issuers.UpdateIssuer, request).keys.key_ids == [_KEY.kid]

    def _make_group(self) -> None:
        stub = group_service_pb2_grpc.GroupServiceStub(self.server.channel)
        request = group_service_pb2.CreateGroupRequest(
            parent=f"vos/{self.vo}",
            group_id="team",
            group=group_pb2.Group(path=self.path),
            request_id=self._ids["group"],
        )
        self._made["group"] = self._call(stub.CreateGroup, request)

    def _bind_group(self) -> None:
        self._made["members"] = self._give("members", group=self.path, vo=self.vo)

    def _veto(self) -> None:
        self._made["veto"] = self._give(
            "veto", issuer=_ISSUER, subject=self.vo, role=policy_pb2.ROLE_VETOED_USER
        )

    def _soften_veto(self) -> None:
        request = role_service_pb2.UpdateRoleBindingRequest(
            role_binding=policy_pb2.RoleBinding(
                name=self._made["veto"].name, queued_work=policy_pb2.WORK_ACTION_KEEP
            )
        )
        changed = self._call(self._roles.UpdateRoleBinding, request)
        assert changed.queued_work == policy_pb2.WORK_ACTION_KEEP

    def _be_refused(self) -> None:
        request = role_service_pb2.DeleteRoleBindingRequest(name=_NOBODYS)
        assert not self._deletes(request)

    def _have_a_guest(self) -> None:
        """One whose role ends by itself, and is forgotten."""
        ends = Timestamp()
        ends.FromDatetime(datetime.now(UTC) + timedelta(seconds=1))
        guest = role_service_pb2.CreateRoleBindingRequest(
            role_binding=policy_pb2.RoleBinding(
                issuer=_ISSUER,
                subject=f"guest-{uuid7()}",
                role=policy_pb2.ROLE_SUBMITTER,
                vo=self.vo,
                expire_time=ends,
            )
        )
        self._call(self._roles.CreateRoleBinding, guest)
        me = authorization_service_pb2_grpc.AuthorizationServiceStub(self.server.channel)
        who = authorization_service_pb2.WhoAmIRequest()
        # The server is asked, so that its death is noticed.
        until(lambda: self._call(me.WhoAmI, who) and not self._guests(), "the end of guests")

    def _end_veto(self) -> None:
        self._deletes(role_service_pb2.DeleteRoleBindingRequest(name=self._made["veto"].name))

    @property
    def _issuers(self) -> issuer_service_pb2_grpc.IssuerServiceStub:
        return issuer_service_pb2_grpc.IssuerServiceStub(self.server.channel)

    @property
    def _roles(self) -> role_service_pb2_grpc.RoleServiceStub:
        return role_service_pb2_grpc.RoleServiceStub(self.server.channel)

    def _give(self, step: str, **fields: Any) -> policy_pb2.RoleBinding:
        request = role_service_pb2.CreateRoleBindingRequest(
            role_binding=policy_pb2.RoleBinding(**{"role": policy_pb2.ROLE_SUBMITTER, **fields}),
            request_id=self._ids[step],
        )
        given: policy_pb2.RoleBinding = self._call(self._roles.CreateRoleBinding, request)
        return given

    def _deletes(self, request: role_service_pb2.DeleteRoleBindingRequest) -> bool:
        """Deletes; returns whether it was there."""
        try:
            self._call(self._roles.DeleteRoleBinding, request)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return False
            raise
        return True

    def _call(self, method: Any, request: Any) -> Any:
        return self.server.call(method, request)

    def _guests(self) -> list[tuple[Any, ...]]:
        """The rows of bindings in the VO that have an end."""
        select = f"SELECT uid FROM role_binding WHERE vo = '{self.vo}' AND expires_us > 0"  # noqa: S608
        return checks.rows(self.server.database_url("authorization"), select)

    def _verbs_on(self, resource: str) -> list[str]:
        """What was done with a resource, the newest first; without attempts that were refused."""
        stub = audit_service_pb2_grpc.AuditServiceStub(self.server.channel)
        request = audit_service_pb2.ListAuditEntriesRequest(filter=f'resource = "{resource}"')
        entries = self._call(stub.ListAuditEntries, request).audit_entries
        changes = [entry for entry in entries if entry.policy_revision]
        return [entry.method.rpartition("/")[2] for entry in changes]

    def _revisions_have_no_gap(self) -> None:
        url = self.server.database_url("authorization")
        ((kept, first, last),) = checks.rows(
            url, "SELECT count(*), min(revision), max(revision) FROM policy_change"
        )
        ((revision,),) = checks.rows(url, "SELECT revision FROM policy_state")
        assert (kept, last) == (last - first + 1, revision)
