"""Virtual organisations: the rules of `VoService`.

Administrators alone change them, which the decision has said before; others see those of their own.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import partial
from typing import Final

from sqlalchemy import Connection

from gridlane.authorization.v1 import vo_pb2, vo_service_pb2
from gridlane_authorization import messages
from gridlane_authorization.changes import Attempt, Changed, Changes
from gridlane_authorization.store import bindings, groups, issuers, vos
from gridlane_authorization.store.vos import BY_NAME, StoredVo
from gridlane_kit import errors
from gridlane_kit.call import Call
from gridlane_kit.database import Database
from gridlane_kit.pages import page_request
from gridlane_kit.policy import PolicyChange

PREFIX: Final = "vos/"
_UPDATABLE: Final = ("description", "contact")


class Vos:
    """Makes, changes, deletes and shows virtual organisations.

    Parameters:
        issuers: those that no call changes: the VO that each speaks for, by its name.
    """

    def __init__(self, db: Database, changes: Changes, issuers: Mapping[str, str]) -> None:
        self._db = db
        self._changes = changes
        self._issuers = issuers

    async def create(self, request: vo_service_pb2.CreateVoRequest, call: Call) -> vo_pb2.Vo:
        """Makes one.

        Raises:
            GridlaneError: INVALID_FIELDS, ALREADY_EXISTS, and those of `Changes.create`.
        """
        _refuse_nul(request.vo)
        attempt = Attempt.of(call, request, PREFIX + request.vo_id)
        now = attempt.time_us
        wanted = StoredVo(request.vo_id, now, now, 0, request.vo.description, request.vo.contact)
        return await self._changes.create(attempt, partial(_create, wanted), _created)

    async def update(self, request: vo_service_pb2.UpdateVoRequest, call: Call) -> vo_pb2.Vo:
        """Changes what is said of one.

        Raises:
            GridlaneError: INVALID_FIELDS, NOT_FOUND, REVISION_CONFLICT, and those of
                `Changes.change`.
        """
        _refuse_nul(request.vo)
        fields = messages.changed_fields(request.vo, request.update_mask.paths, _UPDATABLE)
        attempt = Attempt.of(call, request, request.vo.name)
        act = partial(_update, attempt, request.vo, fields)
        return await self._changes.change(attempt, act)

    async def delete(
        self, request: vo_service_pb2.DeleteVoRequest, call: Call
    ) -> vo_service_pb2.DeleteVoResponse:
        """Deletes one that nothing names.

        Raises:
            GridlaneError: NOT_FOUND, IN_USE, REVISION_CONFLICT, and those of `Changes.delete`.
        """
        attempt = Attempt.of(call, request, request.name)
        vo = _vo(request.name)
        named = [name for name, speaks_for in self._issuers.items() if speaks_for == vo]
        revision = await self._changes.delete(attempt, partial(_delete, attempt, named))
        return vo_service_pb2.DeleteVoResponse(policy_revision=revision)

    async def get(self, request: vo_service_pb2.GetVoRequest, call: Call) -> vo_pb2.Vo:
        """Shows one.

        Raises:
            GridlaneError: NOT_FOUND.
        """
        found = await self._db.read(
            lambda conn: vos.visible(conn, _vo(request.name), call.visibility)
        )
        if found is None:
            raise errors.not_found(request.name)
        return messages.vo(found)

    async def list(
        self, request: vo_service_pb2.ListVosRequest, call: Call
    ) -> vo_service_pb2.ListVosResponse:
        """Lists those that the caller may see.

        Raises:
            GridlaneError: TOKEN_NOT_OURS.
        """
        page = page_request(
            BY_NAME,
            page_size=request.page_size,
            page_token=request.page_token,
            binding=(call.method, call.principal.owner),
        )
        rows, token = await self._db.read(lambda conn: vos.page(conn, call.visibility, page))
        return vo_service_pb2.ListVosResponse(vos=map(messages.vo, rows), next_page_token=token)


def _create(wanted: StoredVo, conn: Connection, revision: int) -> Changed[vo_pb2.Vo]:
    if vos.read(conn, wanted.vo) is not None:
        raise errors.already_exists(wanted.name)
    stored = replace(wanted, revision=revision)
    vos.insert_one(conn, stored)
    change = PolicyChange(revision, added_vos=frozenset({stored.vo}))
    return Changed(stored.name, stored.vo, None, messages.vo(stored), change)


def _created(conn: Connection, name: str) -> vo_pb2.Vo:
    """What an earlier call with the same request id made, as it is now."""
    found = vos.read(conn, _vo(name))
    if found is None:
        raise errors.not_found(name)
    return messages.vo(found)


def _update(
    attempt: Attempt,
    given: vo_pb2.Vo,
    fields: Collection[str],
    conn: Connection,
    revision: int,
) -> Changed[vo_pb2.Vo]:
    stored = _to_change(conn, attempt)
    before = messages.vo(stored)
    wanted = replace(stored, **{field: getattr(given, field) for field in fields})
    if wanted == stored:
        return Changed(stored.name, stored.vo, before, before, change=None)
    changed = replace(wanted, revision=revision, update_time_us=attempt.time_us)
    vos.change_one(conn, changed)
    return Changed(stored.name, stored.vo, before, messages.vo(changed), PolicyChange(revision))


def _delete(
    attempt: Attempt,
    of_settings: Collection[str],
    conn: Connection,
    revision: int,
) -> Changed[vo_pb2.Vo]:
    stored = _to_change(conn, attempt)
    used_by = (
        bindings.users_of_vo(conn, stored.vo, attempt.time_us)
        or groups.of_vo(conn, stored.vo)
        or issuers.of_vo(conn, stored.vo)
        or next(iter(of_settings), "")
    )
    if used_by:
        raise errors.in_use(stored.name, used_by)
    vos.remove(conn, stored.vo)
    change = PolicyChange(revision, removed_vos=frozenset({stored.vo}))
    return Changed(stored.name, stored.vo, messages.vo(stored), None, change)


def _to_change(conn: Connection, attempt: Attempt) -> StoredVo:
    found = vos.visible(conn, _vo(attempt.resource), attempt.call.visibility)
    if found is None:
        raise errors.not_found(attempt.resource)
    attempt.require_revision(found.revision)
    return found


def _refuse_nul(vo: vo_pb2.Vo) -> None:
    messages.refuse_nul(vo__description=vo.description, vo__contact=vo.contact)


def _vo(name: str) -> str:
    return name.removeprefix(PREFIX)
