"""Role bindings: who may give, change, take and see which, and what must not happen.

Responsible for the rules of `RoleService`. Which bindings lie within a caller's reach is a WHERE
clause (`store.bindings`), so that a foreign one and an absent one answer alike.
"""

from collections.abc import Collection
from dataclasses import replace
from functools import partial
from typing import Final

from sqlalchemy import Connection

from gridlane.authorization.v1 import policy_pb2, role_service_pb2
from gridlane.ids import uuid7
from gridlane_authorization import messages
from gridlane_authorization.changes import Attempt, Changed, Changes
from gridlane_authorization.given_issuers import GivenIssuers
from gridlane_authorization.store import bindings, groups, vos
from gridlane_authorization.store.bindings import NEWEST_FIRST, StoredBinding
from gridlane_kit import errors
from gridlane_kit.call import Call
from gridlane_kit.clock import now_us
from gridlane_kit.database import Database
from gridlane_kit.filters import Field, FilterRules
from gridlane_kit.identity import Principal
from gridlane_kit.pages import page_request
from gridlane_kit.policy import Binding, PolicyChange, Role
from gridlane_kit.policy_messages import binding_of

PREFIX: Final = "roleBindings/"
_WORK: Final = ("queued_work", "running_work")
_UPDATABLE: Final = {"expire_time": "expires_us"} | {name: name for name in _WORK}
"""The fields that can be changed, and what a binding calls them."""


def _role(text: str) -> str:
    """Reads the name of a role as the contract spells it, without prefix."""
    name = f"ROLE_{text}"
    if name not in _ROLES[1:]:
        raise ValueError(f"one of {', '.join(name.removeprefix('ROLE_') for name in _ROLES[1:])}")
    return binding_of(policy_pb2.RoleBinding(role=policy_pb2.Role.Value(name))).role.value


_ROLES: Final = policy_pb2.Role.keys()
FILTER: Final = FilterRules(
    {
        "subject": Field(str),
        "issuer": Field(str),
        "role": Field(_role),
        "vo": Field(str),
        "channel_uid": Field(str),
        "group": Field(str),
    },
    combinations=[
        ["subject"],
        ["role"],
        ["vo"],
        ["channel_uid"],
        ["group"],
        ["vo", "role"],
        ["issuer", "subject"],
    ],
)


class Roles:
    """Gives, changes, takes and shows roles.

    Parameters:
        issuers: which administrators can prove their identity.
    """

    def __init__(self, db: Database, changes: Changes, issuers: GivenIssuers) -> None:
        self._db = db
        self._changes = changes
        self._issuers = issuers

    async def create(
        self, request: role_service_pb2.CreateRoleBindingRequest, call: Call
    ) -> policy_pb2.RoleBinding:
        """Gives a role.

        Raises:
            GridlaneError: INVALID_FIELDS, PERMISSION_DENIED, ALREADY_EXISTS, PRECONDITION,
                LAST_ADMIN, and those of `Changes.create`.
        """
        attempt = Attempt.of(call, request, "")
        given = _given(request.role_binding)
        stored = StoredBinding(
            uuid7(), given, attempt.time_us, 0, request.reason, call.principal.to_json()
        )
        return await self._changes.create(
            attempt, partial(_create, attempt, stored, self._issuers), partial(_created, attempt)
        )

    async def update(
        self, request: role_service_pb2.UpdateRoleBindingRequest, call: Call
    ) -> policy_pb2.RoleBinding:
        """Changes a binding's end, or what a veto does to work.

        Raises:
            GridlaneError: INVALID_FIELDS, NOT_FOUND, PERMISSION_DENIED, REVISION_CONFLICT,
                LAST_ADMIN, and those of `Changes.change`.
        """
        given = request.role_binding
        fields = messages.changed_fields(given, request.update_mask.paths, _UPDATABLE)
        attempt = Attempt.of(call, request, given.name)
        return await self._changes.change(
            attempt, partial(_update, attempt, given, fields, self._issuers)
        )

    async def delete(
        self, request: role_service_pb2.DeleteRoleBindingRequest, call: Call
    ) -> role_service_pb2.DeleteRoleBindingResponse:
        """Takes a role away.

        Raises:
            GridlaneError: NOT_FOUND, PERMISSION_DENIED, REVISION_CONFLICT, LAST_ADMIN, and those of
                `Changes.delete`.
        """
        attempt = Attempt.of(call, request, request.name)
        revision = await self._changes.delete(attempt, partial(_delete, attempt, self._issuers))
        return role_service_pb2.DeleteRoleBindingResponse(policy_revision=revision)

    async def get(
        self, request: role_service_pb2.GetRoleBindingRequest, call: Call
    ) -> policy_pb2.RoleBinding:
        """Shows one binding.

        Raises:
            GridlaneError: NOT_FOUND.
        """
        found = await self._db.read(
            lambda conn: bindings.visible(
                conn, _uid(request.name), call.visibility, call.principal, now_us()
            )
        )
        if found is None:
            raise errors.not_found(request.name)
        return messages.role_binding(found)

    async def list(
        self, request: role_service_pb2.ListRoleBindingsRequest, call: Call
    ) -> role_service_pb2.ListRoleBindingsResponse:
        """Lists the bindings that the caller may see.

        Raises:
            GridlaneError: FILTER_UNSUPPORTED, TOKEN_NOT_OURS.
        """
        asked = FILTER.parse(request.filter)
        page = page_request(
            NEWEST_FIRST,
            page_size=request.page_size,
            page_token=request.page_token,
            binding=(call.method, asked.canonical, call.principal.owner),
        )
        rows, token = await self._db.read(
            lambda conn: bindings.page(conn, call.visibility, call.principal, asked, page, now_us())
        )
        return role_service_pb2.ListRoleBindingsResponse(
            role_bindings=map(messages.role_binding, rows), next_page_token=token
        )


def _create(
    attempt: Attempt,
    wanted: StoredBinding,
    issuers: GivenIssuers,
    conn: Connection,
    revision: int,
) -> Changed[policy_pb2.RoleBinding]:
    given, now = wanted.binding, attempt.time_us
    _require_future(given, now)
    _require_place(conn, attempt.call, given)
    present = bindings.same_place(conn, given)
    if present is not None:
        if present.in_force(now):
            raise errors.already_exists(present.name)
        bindings.remove(conn, given)
    if given.role is Role.VETOED:
        _require_admin_besides_vetoed(conn, given, attempt.call.principal, issuers, now)
    stored = replace(wanted, revision=revision)
    bindings.insert_one(conn, stored)
    return Changed(
        stored.name,
        given.vo,
        before=None,
        after=messages.role_binding(stored),
        change=PolicyChange(revision, added=[given]),
    )


def _created(attempt: Attempt, conn: Connection, name: str) -> policy_pb2.RoleBinding:
    """What an earlier call with the same request id made, as it is now."""
    visibility = attempt.call.visibility
    found = bindings.managed(conn, _uid(name), visibility, attempt.time_us)
    if found is None:
        raise errors.not_found(name)
    return messages.role_binding(found)


def _update(
    attempt: Attempt,
    given: policy_pb2.RoleBinding,
    fields: Collection[str],
    issuers: GivenIssuers,
    conn: Connection,
    revision: int,
) -> Changed[policy_pb2.RoleBinding]:
    stored = _to_change(conn, attempt)
    if stored.binding.role is not Role.VETOED and any(field in _WORK for field in fields):
        raise errors.invalid(
            [("role_binding.queued_work", "this and running_work are for VETOED_USER")]
        )
    binding = _with_fields(stored.binding, given, fields)
    _require_future(binding, attempt.time_us)
    ends = binding.expires_us is not None and stored.binding.expires_us is None
    if binding.role is Role.ADMIN and ends:
        _require_admin_besides(conn, stored, issuers, attempt.time_us)
    before = messages.role_binding(stored)
    if binding == stored.binding and attempt.reason in ("", stored.reason):
        return Changed(stored.name, binding.vo, before, before, change=None)
    changed = replace(stored, binding=binding, revision=revision, reason=attempt.reason)
    bindings.change_one(conn, changed)
    return Changed(
        stored.name,
        binding.vo,
        before,
        messages.role_binding(changed),
        PolicyChange(revision, added=[binding]),
    )


def _delete(
    attempt: Attempt, issuers: GivenIssuers, conn: Connection, revision: int
) -> Changed[policy_pb2.RoleBinding]:
    stored = _to_change(conn, attempt)
    if stored.binding.role is Role.ADMIN:
        _require_admin_besides(conn, stored, issuers, attempt.time_us)
    bindings.remove(conn, stored.binding)
    return Changed(
        stored.name,
        stored.binding.vo,
        before=messages.role_binding(stored),
        after=None,
        change=PolicyChange(revision, removed=[stored.binding]),
    )


def _to_change(conn: Connection, attempt: Attempt) -> StoredBinding:
    """Returns the binding that an attempt names.

    Raises:
        GridlaneError: NOT_FOUND; PERMISSION_DENIED: the caller holds it, and may not change it;
            REVISION_CONFLICT.
    """
    call, name = attempt.call, attempt.resource
    found = bindings.managed(conn, _uid(name), call.visibility, attempt.time_us)
    if found is None:
        if bindings.is_held(conn, _uid(name), call.principal, attempt.time_us):
            raise errors.permission_denied(call.decision.permission, name)
        raise errors.not_found(name)
    attempt.require_revision(found.revision)
    return found


def _require_place(conn: Connection, call: Call, given: Binding) -> None:
    """Refuses a binding that the caller may not give, or in a VO or group that is not there.

    Whoever is no administrator is told nothing of a VO that is not its own.
    """
    visibility = call.visibility
    known = not given.vo or visibility.everything or given.vo in visibility.vos
    known = known or given.vo in call.principal.vos
    may = bindings.may_give(visibility, given) and known
    if not may or (given.vo and vos.read(conn, given.vo) is None):
        raise errors.permission_denied(
            call.decision.permission,
            message="you may not give that role there, or there is no such VO: ask who manages the"
            " VO or channel, or an administrator",
        )
    if given.group and not groups.declared(conn, given.vo, given.group):
        raise errors.precondition(
            given.group,
            f"the VO {given.vo} has no group with the path {given.group}: create it first",
        )


def _require_admin_besides(
    conn: Connection, admin: StoredBinding, issuers: GivenIssuers, now: int
) -> None:
    """Refuses to take, or to end, the role of the last administrator."""
    holder = admin.binding
    besides = None if holder.group else (holder.issuer, holder.subject)
    _require_admin(conn, admin.name, besides, issuers, now)


def _require_admin_besides_vetoed(
    conn: Connection, veto: Binding, caller: Principal, issuers: GivenIssuers, now: int
) -> None:
    """Refuses to veto the last administrator.

    Nobody knows who is in a group, but for the caller: when it is, it does not count.
    """
    if veto.group:
        if veto.group not in caller.groups or veto.vo not in caller.vos:
            return
        vetoed = (caller.issuer, caller.subject)
    else:
        vetoed = (veto.issuer, veto.subject)
    admin = bindings.admin_of(conn, *vetoed)
    if admin is not None:
        _require_admin(conn, admin.name, vetoed, issuers, now)


def _require_admin(
    conn: Connection,
    name: str,
    besides: tuple[str, str] | None,
    issuers: GivenIssuers,
    now: int,
) -> None:
    """Refuses to leave nobody who is administrator and can prove it (`name`: the binding of the
    last one)."""
    left = bindings.standing_admin(conn, now, issuers=issuers.believed(conn), besides=besides)
    if left is None:
        raise errors.last_admin(name)


def _given(message: policy_pb2.RoleBinding) -> Binding:
    """Reads a binding that is to be given.

    Raises:
        GridlaneError: INVALID_FIELDS.
    """
    messages.refuse_nul(
        role_binding__issuer=message.issuer,
        role_binding__subject=message.subject,
        role_binding__vo=message.vo,
        role_binding__channel_uid=message.channel_uid,
    )
    if "|" in message.issuer:
        # Identities are `issuer|subject` wherever they own something.
        raise errors.invalid([("role_binding.issuer", "no issuer has a bar (|) in its name")])
    return binding_of(message)


def _require_future(binding: Binding, now: int) -> None:
    if binding.expires_us is not None and binding.expires_us <= now:
        raise errors.invalid([("role_binding.expire_time", "in the future, or unset")])


def _with_fields(
    binding: Binding, given: policy_pb2.RoleBinding, fields: Collection[str]
) -> Binding:
    """Returns a binding with the given values of some fields; one that is unset has its default."""
    named = policy_pb2.RoleBinding()
    named.CopyFrom(given)
    named.role = policy_pb2.ROLE_VETOED_USER  # any; it stays as it is
    read = binding_of(named)
    return replace(binding, **{_UPDATABLE[f]: getattr(read, _UPDATABLE[f]) for f in fields})


def _uid(name: str) -> str:
    return name.removeprefix(PREFIX)
