"""Storage elements that administrators make, change and remove, and bans.

Responsible for the verbs of `StorageAdminService`: the request id, the revision, what keeps a
change from being made, the audit, and the change in force in this process before the caller is
answered. What an element must be is `element_rules`', what a ban does to files `banned_files`'.
"""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final, TypeVar
from urllib.parse import quote

from sqlalchemy import Connection

from gridlane.ids import uuid7
from gridlane.transfer.v1 import storage_admin_service_pb2 as pb
from gridlane.transfer.v1 import storage_ban_pb2, storage_element_pb2
from gridlane_kit import audit, errors, request_ids
from gridlane_kit.call import Call
from gridlane_kit.clock import given_us, now_us
from gridlane_kit.database import Database
from gridlane_kit.errors import GridlaneError
from gridlane_kit.failpoints import failpoint
from gridlane_kit.pages import page_request
from gridlane_kit.request_ids import RequestKey
from gridlane_transfer.storage.bans import Ban, BanAction, Operation
from gridlane_transfer.storage.element_rules import (
    UPDATABLE,
    ElementRules,
    merged,
    places_of,
    settable,
)
from gridlane_transfer.storage.storage_elements import (
    PREFIX,
    StorageElement,
    StorageElements,
    overlapping,
)
from gridlane_transfer.storage.storage_messages import ban_message
from gridlane_transfer.store import storage
from gridlane_transfer.store.refresh import Kind, Refresh, bump, lock
from gridlane_transfer.store.tables import AUDIT, REQUEST_ID

T = TypeVar("T")
_CHANGED: Final = failpoint("transfer.storage.committed")
_ALL: Final = f"{PREFIX}-"
# How often an update is tried that meets others of the same element.
_TRIES: Final = 20

Show = Callable[[Sequence[StorageElement]], Awaitable[list[storage_element_pb2.StorageElement]]]


class StorageAdmin:
    """The verbs.

    Parameters:
        refresh: puts what was committed in force in this process.
        show: elements as they are now, for answers.
    """

    def __init__(
        self,
        db: Database,
        elements: StorageElements,
        rules: ElementRules,
        refresh: Refresh,
        show: Show,
    ) -> None:
        self._db = db
        self._elements = elements
        self._rules = rules
        self._refresh = refresh
        self._show = show

    async def create(
        self, request: pb.CreateStorageElementRequest, call: Call
    ) -> storage_element_pb2.StorageElement:
        """Makes an element.

        Raises:
            GridlaneError: INVALID_FIELDS, CAPABILITY_MISSING, ADDRESS_FORBIDDEN, ALREADY_EXISTS,
                REQUEST_ID_REUSED, REQUEST_ID_TOO_OLD.
        """
        name = request.storage_element_id
        if request.storage_element.name:
            raise errors.invalid([("storage_element.name", "leave it empty")])
        key = _request_key(request, call)
        settings = settable(request.storage_element)
        await self._rules.require(name, settings, list(UPDATABLE))
        now = now_us()
        wanted = StorageElement.of(name, settings, create_us=now, update_us=now)

        def transact(conn: Connection) -> StorageElement:
            revision = lock(conn, Kind.STORAGE_ELEMENTS) + 1
            known = _replayed(conn, key)
            if known is not None:
                return _stored(conn, known)
            self._require_free(conn, wanted)
            if request.validate_only:
                return wanted
            made = replace(wanted, revision=revision)
            storage.insert_element(conn, made)
            _remember(conn, key, made.resource)
            self._keep(conn, call, made.resource, request.reason, after=settings)
            return made

        element = await self._write(transact)
        (message,) = await self._show([element])
        if not element.revision:
            for field in ("name", "revision", "create_time", "update_time"):
                message.ClearField(field)
        return message

    async def update(
        self, request: pb.UpdateStorageElementRequest, call: Call
    ) -> storage_element_pb2.StorageElement:
        """Changes settings of an element.

        Raises:
            GridlaneError: INVALID_FIELDS, CAPABILITY_MISSING, ADDRESS_FORBIDDEN, NOT_FOUND,
                REVISION_CONFLICT, ALREADY_EXISTS, PRECONDITION for a configured one, IN_USE.
        """
        name = request.storage_element.name.removeprefix(PREFIX)
        self._require_changeable(name)
        for _ in range(_TRIES):
            before = await self._db.read(lambda conn: _stored(conn, PREFIX + name))
            _require_revision(before, request.revision)
            given = request.storage_element
            settings, changed = merged(before.settings, given, list(request.update_mask.paths))
            await self._rules.require(name, settings, changed)
            after = await self._replace(before, settings if changed else None, request, call)
            if after is not None:
                return (await self._show([after]))[0]
        raise errors.revision_conflict(PREFIX + name)

    async def _replace(
        self,
        before: StorageElement,
        settings: storage_element_pb2.StorageElement | None,
        request: pb.UpdateStorageElementRequest,
        call: Call,
    ) -> StorageElement | None:
        """Stores settings that were found good for an element as it was; None when it has changed
        meanwhile, and nothing was stored.

        Parameters:
            settings: None: they are as before.
        """

        def transact(conn: Connection) -> StorageElement | None:
            revision = lock(conn, Kind.STORAGE_ELEMENTS) + 1
            stored = _stored(conn, before.resource)
            _require_revision(stored, request.revision)
            if stored.revision != before.revision:
                return None
            if settings is None:
                return stored
            after = StorageElement.of(
                before.name,
                settable(settings),
                revision=revision,
                create_us=stored.create_us,
                update_us=now_us(),
            )
            self._require_free(conn, after)
            _require_unused_places(conn, stored, after)
            storage.update_element(conn, after)
            reason = request.reason
            self._keep(conn, call, after.resource, reason, stored.settings, after.settings)
            return after

        return await self._write(transact)

    async def delete(
        self, request: pb.DeleteStorageElementRequest, call: Call
    ) -> pb.DeleteStorageElementResponse:
        """Removes an element.

        Raises:
            GridlaneError: NOT_FOUND, REVISION_CONFLICT, PRECONDITION for a configured one, IN_USE.
        """
        name = request.name.removeprefix(PREFIX)
        self._require_changeable(name)

        def transact(conn: Connection) -> None:
            lock(conn, Kind.STORAGE_ELEMENTS)
            stored = _stored(conn, request.name)
            _require_revision(stored, request.revision)
            user = storage.used_by(conn, name)
            if user:
                raise errors.in_use(request.name, user)
            storage.delete_element(conn, name)
            self._keep(conn, call, request.name, request.reason, before=stored.settings)

        await self._write(transact)
        return pb.DeleteStorageElementResponse()

    async def ban(self, request: pb.BanStorageRequest, call: Call) -> storage_ban_pb2.StorageBan:
        """Lays a ban on an element.

        Raises:
            GridlaneError: INVALID_FIELDS, NOT_FOUND, REQUEST_ID_REUSED, REQUEST_ID_TOO_OLD.
        """
        key = _request_key(request, call)
        wanted = _given_ban(request, call)

        def transact(conn: Connection) -> Ban:
            lock(conn, Kind.STORAGE_ELEMENTS)
            known = _replayed(conn, key)
            if known is not None:
                return _stored_ban(conn, known)
            self._require_element(conn, request.parent)
            storage.insert_ban(conn, wanted)
            _remember(conn, key, wanted.name)
            message = ban_message(wanted)
            self._keep(conn, call, wanted.name, wanted.reason, after=message, vo=wanted.vo)
            return replace(wanted, affected_files=storage.count_waiting(conn, wanted))

        return ban_message(await self._write(transact))

    async def unban(self, request: pb.UnbanStorageRequest, call: Call) -> pb.UnbanStorageResponse:
        """Lifts a ban.

        Raises:
            GridlaneError: NOT_FOUND.
        """

        def transact(conn: Connection) -> None:
            lock(conn, Kind.STORAGE_ELEMENTS)
            ban = _stored_ban(conn, request.name)
            storage.delete_ban(conn, ban.uid)
            message = ban_message(ban)
            self._keep(conn, call, ban.name, request.reason, before=message, vo=ban.vo)

        await self._write(transact)
        return pb.UnbanStorageResponse()

    async def list_bans(
        self, request: pb.ListStorageBansRequest, call: Call
    ) -> pb.ListStorageBansResponse:
        """A page of the bans in force, newest first.

        Raises:
            GridlaneError: NOT_FOUND, TOKEN_NOT_OURS.
        """
        page = page_request(
            storage.BANS_NEWEST_FIRST,
            page_size=request.page_size,
            page_token=request.page_token,
            binding=("ListStorageBans", request.parent, call.principal.owner),
        )
        element = None if request.parent == _ALL else request.parent

        def read(conn: Connection) -> tuple[list[Ban], str]:
            if element is not None:
                self._require_element(conn, element)
            return storage.bans_page(conn, element, now_us(), page)

        bans, token = await self._db.read(read)
        return pb.ListStorageBansResponse(
            storage_bans=map(ban_message, bans), next_page_token=token
        )

    async def _write(self, transact: Callable[[Connection], T]) -> T:
        found = await self._db.write_after_lock(transact)
        _CHANGED()
        # Committed is committed: when the store cannot be read just now, the next look takes it
        # over.
        with suppress(GridlaneError):
            await self._refresh.now()
        return found

    def _keep(
        self,
        conn: Connection,
        call: Call,
        resource: str,
        reason: str,
        before: Any = None,
        after: Any = None,
        vo: str = "",
    ) -> None:
        """The end of every change: its entry in the audit, and the news for every process."""
        bump(conn, Kind.STORAGE_ELEMENTS)
        entry = audit.entry(
            call, resource=resource, vo=vo, reason=reason, before=before, after=after
        )
        audit.append(conn, AUDIT, [entry])

    def _require_changeable(self, name: str) -> None:
        if name in self._elements.configured:
            raise errors.precondition(
                PREFIX + name,
                f"{PREFIX}{name} is configured where the service runs: change it there",
            )

    def _require_element(self, conn: Connection, resource: str) -> None:
        name = resource.removeprefix(PREFIX)
        if name not in self._elements.configured and storage.read(conn, name) is None:
            raise errors.not_found(resource)

    def _require_free(self, conn: Connection, wanted: StorageElement) -> None:
        """Refuses a name or a place that another element has."""
        made, _ = storage.read_all(conn)
        others = [*self._elements.configured.values(), *made]
        if not wanted.revision and any(other.name == wanted.name for other in others):
            raise errors.already_exists(wanted.resource)
        others = [other for other in others if other.name != wanted.name]
        other = overlapping(others, places_of(wanted.settings))
        if other is not None:
            raise errors.already_exists(other.resource)


def _require_unused_places(conn: Connection, before: StorageElement, after: StorageElement) -> None:
    """Refuses to give up a base URL or a VO's path under which replicas are registered."""
    kept = {endpoint.base_url for endpoint in after.endpoints}
    gone = [one.base_url for one in before.endpoints if one.base_url not in kept]
    for vo, path in before.vo_paths.items():
        if after.vo_paths.get(vo) != path:
            gone += [f"{one.base_url}{quote(path)}" for one in before.endpoints]
    for prefix in gone:
        url = storage.replica_below(conn, before.name, f"{prefix}/")
        if url:
            raise errors.in_use(before.resource, f"the replica {url}")


def _require_revision(stored: StorageElement, asked: int) -> None:
    if asked and asked != stored.revision:
        raise errors.revision_conflict(stored.resource)


def _stored(conn: Connection, resource: str) -> StorageElement:
    found = storage.read(conn, resource.removeprefix(PREFIX))
    if found is None:
        raise errors.not_found(resource)
    return found


def _stored_ban(conn: Connection, name: str) -> Ban:
    found = storage.read_ban(conn, name.rpartition("/")[2], now_us())
    if found is None or found.name != name:
        raise errors.not_found(name)
    return found


def _given_ban(request: pb.BanStorageRequest, call: Call) -> Ban:
    given, now = request.storage_ban, now_us()
    violations = []
    for field, text in (("reason", given.reason), ("vo", given.vo)):
        if "\0" in text:
            violations.append((f"storage_ban.{field}", "no text has a NUL"))
    expires = given_us(given, "expire_time")
    if expires is not None and expires <= now:
        violations.append(("storage_ban.expire_time", "in the future, or unset"))
    if violations:
        raise errors.invalid(violations)
    return Ban(
        uid=uuid7(),
        element=request.parent,
        operations=frozenset(map(Operation, given.operations)),
        vo=given.vo,
        action=BanAction(given.action),
        wait_timeout_us=given_us(given, "wait_timeout"),
        accept_submissions=given.accept_submissions,
        expires_us=expires,
        reason=given.reason,
        creator=call.principal.to_json(),
        create_us=now,
    )


def _request_key(request: Any, call: Call) -> RequestKey | None:
    """What a request with an id is known by; whether it is only checked makes no difference."""
    if not request.request_id:
        return None
    request_ids.check(request.request_id, now_us())
    asked = type(request)()
    asked.CopyFrom(request)
    if "validate_only" in asked.DESCRIPTOR.fields_by_name:
        asked.validate_only = False
    digest = request_ids.digest(asked)
    return RequestKey(call.principal.owner, call.method, request.request_id, digest)


def _replayed(conn: Connection, key: RequestKey | None) -> str | None:
    """The name of what an earlier call with this id made; None when there was none."""
    if key is None:
        return None
    (claim,) = request_ids.claim(conn, REQUEST_ID, [key])
    if isinstance(claim, request_ids.Conflict):
        raise errors.request_id_reused()
    return claim.resource if isinstance(claim, request_ids.Replay) else None


def _remember(conn: Connection, key: RequestKey | None, resource: str) -> None:
    if key is not None:
        request_ids.remember(conn, REQUEST_ID, [(key, resource)])
