"""Groups of virtual organisations: the rules of `GroupService`.

Administrators and the managers of a VO change its groups, its members see them.
"""

from collections.abc import Collection
from dataclasses import replace
from functools import partial
from typing import Final

from sqlalchemy import Connection

from gridlane.authorization.v1 import group_pb2, group_service_pb2
from gridlane_authorization import messages
from gridlane_authorization.changes import Attempt, Changed, Changes
from gridlane_authorization.store import bindings, groups, vos
from gridlane_authorization.store.groups import BY_NAME, StoredGroup
from gridlane_kit import errors
from gridlane_kit.call import Call
from gridlane_kit.database import Database
from gridlane_kit.pages import page_request
from gridlane_kit.policy import PolicyChange

_UPDATABLE: Final = ("description", "dirac_group")


class Groups:
    """Declares, changes, takes back and shows groups."""

    def __init__(self, db: Database, changes: Changes) -> None:
        self._db = db
        self._changes = changes

    async def create(
        self, request: group_service_pb2.CreateGroupRequest, call: Call
    ) -> group_pb2.Group:
        """Declares one.

        Raises:
            GridlaneError: INVALID_FIELDS, PERMISSION_DENIED, ALREADY_EXISTS, and those of
                `Changes.create`.
        """
        given = request.group
        if not given.path:
            raise errors.invalid([("group.path", "set")])
        _refuse_nul(given)
        attempt = Attempt.of(call, request, f"{request.parent}/groups/{request.group_id}")
        now = attempt.time_us
        wanted = StoredGroup(
            vo=_vo(request.parent),
            id=request.group_id,
            path=given.path,
            create_time_us=now,
            update_time_us=now,
            revision=0,
            description=given.description,
            dirac_group=given.dirac_group,
        )
        return await self._changes.create(
            attempt, partial(_create, attempt, wanted), partial(_created, attempt)
        )

    async def update(
        self, request: group_service_pb2.UpdateGroupRequest, call: Call
    ) -> group_pb2.Group:
        """Changes what is said of one.

        Raises:
            GridlaneError: INVALID_FIELDS, NOT_FOUND, PERMISSION_DENIED, REVISION_CONFLICT, and
                those of `Changes.change`.
        """
        _refuse_nul(request.group)
        fields = messages.changed_fields(request.group, request.update_mask.paths, _UPDATABLE)
        attempt = Attempt.of(call, request, request.group.name)
        act = partial(_update, attempt, request.group, fields)
        return await self._changes.change(attempt, act)

    async def delete(
        self, request: group_service_pb2.DeleteGroupRequest, call: Call
    ) -> group_service_pb2.DeleteGroupResponse:
        """Takes one back that no binding names.

        Raises:
            GridlaneError: NOT_FOUND, PERMISSION_DENIED, IN_USE, REVISION_CONFLICT, and those of
                `Changes.delete`.
        """
        attempt = Attempt.of(call, request, request.name)
        revision = await self._changes.delete(attempt, partial(_delete, attempt))
        return group_service_pb2.DeleteGroupResponse(policy_revision=revision)

    async def get(self, request: group_service_pb2.GetGroupRequest, call: Call) -> group_pb2.Group:
        """Shows one.

        Raises:
            GridlaneError: NOT_FOUND.
        """
        vo, id_ = _parts(request.name)
        found = await self._db.read(lambda conn: groups.visible(conn, vo, id_, call.visibility))
        if found is None:
            raise errors.not_found(request.name)
        return messages.group(found)

    async def list(
        self, request: group_service_pb2.ListGroupsRequest, call: Call
    ) -> group_service_pb2.ListGroupsResponse:
        """Lists the groups of a VO that the caller may see.

        Raises:
            GridlaneError: NOT_FOUND, TOKEN_NOT_OURS.
        """
        page = page_request(
            BY_NAME,
            page_size=request.page_size,
            page_token=request.page_token,
            binding=(call.method, request.parent, call.principal.owner),
        )
        vo = _vo(request.parent)

        def read(conn: Connection) -> tuple[list[StoredGroup], str]:
            if vos.visible(conn, vo, call.visibility) is None:
                raise errors.not_found(request.parent)
            return groups.page(conn, vo, page)

        rows, token = await self._db.read(read)
        return group_service_pb2.ListGroupsResponse(
            groups=map(messages.group, rows), next_page_token=token
        )


def _create(
    attempt: Attempt, wanted: StoredGroup, conn: Connection, revision: int
) -> Changed[group_pb2.Group]:
    call = attempt.call
    if vos.visible(conn, wanted.vo, call.visibility) is None:
        raise errors.permission_denied(
            call.decision.permission,
            message=f"there is no VO {wanted.vo}, or you do not manage it",
        )
    taken = groups.taken(conn, wanted.vo, wanted.id, wanted.path)
    if taken:
        raise errors.already_exists(taken)
    stored = replace(wanted, revision=revision)
    groups.insert_one(conn, stored)
    after = messages.group(stored)
    told = PolicyChange(revision, added_groups=frozenset([stored.path]))
    return Changed(stored.name, stored.vo, None, after, told)


def _created(attempt: Attempt, conn: Connection, name: str) -> group_pb2.Group:
    """What an earlier call with the same request id made, as it is now."""
    found = groups.visible(conn, *_parts(name), attempt.call.visibility)
    if found is None:
        raise errors.not_found(name)
    return messages.group(found)


def _update(
    attempt: Attempt,
    given: group_pb2.Group,
    fields: Collection[str],
    conn: Connection,
    revision: int,
) -> Changed[group_pb2.Group]:
    stored = _to_change(conn, attempt)
    before = messages.group(stored)
    wanted = replace(stored, **{field: getattr(given, field) for field in fields})
    if wanted == stored:
        return Changed(stored.name, stored.vo, before, before, change=None)
    changed = replace(wanted, revision=revision, update_time_us=attempt.time_us)
    groups.change_one(conn, changed)
    after = messages.group(changed)
    return Changed(stored.name, stored.vo, before, after, PolicyChange(revision))


def _delete(attempt: Attempt, conn: Connection, revision: int) -> Changed[group_pb2.Group]:
    stored = _to_change(conn, attempt)
    used_by = bindings.users_of_group(conn, stored.vo, stored.path, attempt.time_us)
    if used_by:
        raise errors.in_use(stored.name, used_by)
    groups.remove(conn, stored)
    before = messages.group(stored)
    told = PolicyChange(revision, removed_groups=frozenset([stored.path]))
    return Changed(stored.name, stored.vo, before, None, told)


def _to_change(conn: Connection, attempt: Attempt) -> StoredGroup:
    """Returns the group that an attempt names.

    Raises:
        GridlaneError: NOT_FOUND; PERMISSION_DENIED: the caller belongs to the VO, and does not
            manage it; REVISION_CONFLICT.
    """
    call, name = attempt.call, attempt.resource
    vo, id_ = _parts(name)
    found = groups.visible(conn, vo, id_, call.visibility)
    if found is None:
        if vo in call.principal.vos and groups.read(conn, vo, id_) is not None:
            raise errors.permission_denied(call.decision.permission, name)
        raise errors.not_found(name)
    attempt.require_revision(found.revision)
    return found


def _refuse_nul(group: group_pb2.Group) -> None:
    messages.refuse_nul(group__description=group.description, group__dirac_group=group.dirac_group)


def _parts(name: str) -> tuple[str, str]:
    """Reads "vos/{vo}/groups/{id}", whose form the contract's rules have checked."""
    _, vo, _, id_ = name.split("/")
    return vo, id_


def _vo(name: str) -> str:
    return name.removeprefix("vos/")
