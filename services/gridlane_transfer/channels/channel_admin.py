"""Channels that administrators and their managers make, change and remove, and the held files that
lie on them.

Responsible for the verbs of `ChannelAdminService` and for what `GetChannel` tells: the request id,
the revision, who manages which channel, what keeps one from being removed, the audit, and the
change in force in this process before the caller is answered. What settings may be is
`channel_rules`'.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final, TypeVar

from google.protobuf.message import Message
from sqlalchemy import Connection

from gridlane.ids import uuid7
from gridlane.transfer.v1 import channel_admin_service_pb2 as pb
from gridlane.transfer.v1 import channel_pb2, transfer_job_pb2
from gridlane_kit import audit, errors, request_ids
from gridlane_kit.call import Call
from gridlane_kit.clock import now_us
from gridlane_kit.database import Database
from gridlane_kit.errors import GridlaneError
from gridlane_kit.failpoints import failpoint
from gridlane_kit.group_commit import WriteKind
from gridlane_kit.pages import page_request
from gridlane_kit.request_ids import RequestKey
from gridlane_transfer import messages
from gridlane_transfer.backends.base import TransferBackend
from gridlane_transfer.channels.channel_rules import (
    changed_fields,
    channel_message,
    new_channel,
    updated,
)
from gridlane_transfer.channels.channels import ANY, PREFIX, Channel, Channels
from gridlane_transfer.storage.storage_elements import PREFIX as ELEMENTS
from gridlane_transfer.storage.storage_elements import StorageElements
from gridlane_transfer.store import channels as rows
from gridlane_transfer.store import optimizing
from gridlane_transfer.store.channels import Usage
from gridlane_transfer.store.held import HeldAction, HeldDone, HeldFiles
from gridlane_transfer.store.refresh import Kind, Refresh, bump, lock
from gridlane_transfer.store.tables import AUDIT, REQUEST_ID

T = TypeVar("T")
_CHANGED: Final = failpoint("transfer.channel.committed")
_HELD: Final = failpoint("transfer.channel_files.committed")


class ChannelAdmin:
    """The verbs.

    Parameters:
        refresh: puts what was committed in force in this process.
        held: the write of held files, through the group commit.
        wake: has due files looked for.
        backend: whose capabilities channels may ask for, and who knows how far files have come.
        max_files: of channels that do not say it.
    """

    def __init__(
        self,
        db: Database,
        channels: Channels,
        elements: StorageElements,
        refresh: Refresh,
        *,
        held: WriteKind[HeldFiles, HeldDone],
        wake: Callable[[], None],
        backend: TransferBackend,
        max_files: int,
    ) -> None:
        self._db = db
        self._channels = channels
        self._elements = elements
        self._refresh = refresh
        self._held = held
        self._wake = wake
        self._backend = backend
        self._has = backend.capabilities
        self._max_files = max_files

    async def get(self, name: str, call: Call) -> channel_pb2.Channel:
        """A channel, with what is on it now.

        Raises:
            GridlaneError: NOT_FOUND, PERMISSION_DENIED.
        """

        def read(conn: Connection) -> tuple[Channel, Usage]:
            channel = _managed(conn, name, call)
            return channel, rows.usage(conn, channel.uid)

        channel, usage = await self._db.read(read)
        return channel_message(channel, usage.with_running(self._backend.progress, now_us()))

    async def create(self, request: pb.CreateChannelRequest, call: Call) -> channel_pb2.Channel:
        """Makes a channel.

        Raises:
            GridlaneError: INVALID_FIELDS, CAPABILITY_MISSING, ALREADY_EXISTS, PRECONDITION,
                REQUEST_ID_REUSED, REQUEST_ID_TOO_OLD.
        """
        _refuse_nul(request.reason)
        key = _request_key(request, call)
        wanted = new_channel(
            uuid7(),
            request.channel_id,
            request.channel,
            now_us(),
            max_files=self._max_files,
            has=self._has,
        )

        def transact(conn: Connection) -> Channel:
            revision = lock(conn, Kind.CHANNELS) + 1
            (claim,) = request_ids.claim(conn, REQUEST_ID, [key])
            if isinstance(claim, request_ids.Conflict):
                raise errors.request_id_reused()
            if isinstance(claim, request_ids.Replay):
                return _made(conn, claim.resource, PREFIX + wanted.name)
            self._require_ends(wanted)
            if rows.read(conn, wanted.name) is not None:
                raise errors.already_exists(PREFIX + wanted.name)
            if request.validate_only:
                return wanted
            made = replace(wanted, revision=revision, update_us=wanted.create_us)
            rows.insert_one(conn, made)
            if key is not None:
                request_ids.remember(conn, REQUEST_ID, [(key, made.uid)])
            _keep(conn, call, made, request.reason, after=channel_message(made))
            return made

        message = channel_message(await self._write(transact))
        if not message.revision:
            for field in ("name", "uid", "create_time"):
                message.ClearField(field)
        return message

    async def update(self, request: pb.UpdateChannelRequest, call: Call) -> channel_pb2.Channel:
        """Changes settings of a channel.

        Raises:
            GridlaneError: INVALID_FIELDS, CAPABILITY_MISSING, NOT_FOUND, PERMISSION_DENIED,
                REVISION_CONFLICT.
        """
        _refuse_nul(request.reason)
        given = request.channel
        fields = changed_fields(given, request.update_mask.paths)

        def transact(conn: Connection) -> Channel:
            revision = lock(conn, Kind.CHANNELS) + 1
            stored = _managed(conn, given.name, call)
            _require_revision(stored, request.revision)
            wanted = updated(stored, given, fields, max_files=self._max_files, has=self._has)
            if wanted == stored:
                return stored
            changed = replace(wanted, revision=revision, update_us=now_us())
            rows.change_one(conn, changed)
            if (changed.optimizer, changed.max_files) != (stored.optimizer, stored.max_files):
                optimizing.forget(conn, changed.uid)
                changed = replace(changed, allowed_files=None)
            before, after = channel_message(stored), channel_message(changed)
            _keep(conn, call, changed, request.reason, before, after)
            return changed

        return channel_message(await self._write(transact))

    async def delete(
        self, request: pb.DeleteChannelRequest, call: Call
    ) -> pb.DeleteChannelResponse:
        """Removes a channel on which nothing lies.

        Raises:
            GridlaneError: NOT_FOUND, IN_USE, REVISION_CONFLICT.
        """
        _refuse_nul(request.reason)

        def unfinished(conn: Connection) -> bool:
            return rows.has_unfinished(conn, _stored(conn, request.name).uid)

        # Reads every file of the channel: not while writers wait.
        used = await self._db.read(unfinished)

        def transact(conn: Connection) -> None:
            revision = lock(conn, Kind.CHANNELS) + 1
            stored = _stored(conn, request.name)
            _require_revision(stored, request.revision)
            if used or rows.has_waiting(conn, stored.uid):
                raise errors.in_use(request.name, "files that have not ended")
            rows.delete_one(conn, stored, revision, now_us())
            _keep(conn, call, stored, request.reason, before=channel_message(stored))

        await self._write(transact)
        return pb.DeleteChannelResponse()

    async def list_held(
        self, request: pb.ListHeldFilesRequest, call: Call
    ) -> tuple[list[transfer_job_pb2.FileTransfer], str]:
        """A page of the files that are held on a channel, those held longest first.

        Raises:
            GridlaneError: NOT_FOUND, PERMISSION_DENIED, TOKEN_NOT_OURS.
        """
        page = page_request(
            rows.HELD_LONGEST,
            page_size=request.page_size,
            page_token=request.page_token,
            binding=("ListHeldFiles", request.parent, call.principal.owner),
        )

        def read(conn: Connection) -> tuple[list[transfer_job_pb2.FileTransfer], str]:
            channel = _managed(conn, request.parent, call)
            found, token = rows.held_page(conn, channel.uid, page)
            return [messages.file_message(row, job, self._channels) for row, job in found], token

        return await self._db.read(read)

    async def release(self, request: pb.ReleaseChannelFilesRequest, call: Call) -> int:
        """Lets held files start again; how many.

        Raises:
            GridlaneError: NOT_FOUND, PERMISSION_DENIED.
        """
        released = await self._settle(HeldAction.RELEASE, request, call)
        self._wake()
        return released

    async def fail(self, request: pb.FailChannelFilesRequest, call: Call) -> int:
        """Gives held files up; how many.

        Raises:
            GridlaneError: NOT_FOUND, PERMISSION_DENIED.
        """
        return await self._settle(HeldAction.FAIL, request, call)

    async def _settle(
        self,
        action: HeldAction,
        request: pb.ReleaseChannelFilesRequest | pb.FailChannelFilesRequest,
        call: Call,
    ) -> int:
        _refuse_nul(request.reason)
        channel = await self._db.read(lambda conn: _managed(conn, request.name, call))
        named: Sequence[int] | None = None
        if request.files:
            named = await self._db.read(
                lambda conn: rows.held_numbers(conn, channel.uid, request.files)
            )
        entry = audit.entry(call, resource=request.name, reason=request.reason)
        wish = HeldFiles(
            action,
            channels=frozenset({channel.uid}),
            numbers=named,
            until_us=now_us(),
            entry=entry,
        )
        files, after = 0, 0
        while True:
            done = await self._held(replace(wish, after=after), deadline=call.deadline)
            _HELD()
            files += done.files
            if done.after is None:
                return files
            after = done.after

    async def _write(self, transact: Callable[[Connection], T]) -> T:
        found = await self._db.write_after_lock(transact)
        _CHANGED()
        # Committed is committed: when the store cannot be read just now, the next look takes it
        # over.
        with suppress(GridlaneError):
            await self._refresh.now()
        return found

    def _require_ends(self, wanted: Channel) -> None:
        for end in (wanted.source, wanted.target):
            if end != ANY and self._elements.get(ELEMENTS + end) is None:
                raise errors.precondition(
                    ELEMENTS + end, f"there is no storage element {end}: make it first"
                )


def _keep(
    conn: Connection,
    call: Call,
    channel: Channel,
    reason: str,
    before: Message | None = None,
    after: Message | None = None,
) -> None:
    """The end of every change: its entry in the audit, and the news for every process."""
    bump(conn, Kind.CHANNELS)
    entry = audit.entry(
        call, resource=PREFIX + channel.name, reason=reason, before=before, after=after
    )
    audit.append(conn, AUDIT, [entry])


def _managed(conn: Connection, name: str, call: Call) -> Channel:
    """The channel of a name, if the caller's right reaches it.

    Raises:
        GridlaneError: NOT_FOUND for whom every channel is within reach; PERMISSION_DENIED for
            everybody else, whether there is one or not.
    """
    found = rows.read(conn, name.removeprefix(PREFIX))
    if found is not None and call.visibility.covers(channel=found.uid):
        return found
    if call.visibility.everything:
        raise errors.not_found(name)
    raise errors.permission_denied(call.decision.permission)


def _stored(conn: Connection, name: str) -> Channel:
    found = rows.read(conn, name.removeprefix(PREFIX))
    if found is None:
        raise errors.not_found(name)
    return found


def _made(conn: Connection, uid: str, name: str) -> Channel:
    """What an earlier call made, not another channel that has got its name since."""
    found = rows.read_by_uid(conn, uid)
    if found is None:
        raise errors.not_found(name)
    return found


def _require_revision(stored: Channel, asked: int) -> None:
    if asked and asked != stored.revision:
        raise errors.revision_conflict(PREFIX + stored.name)


def _refuse_nul(reason: str) -> None:
    if "\0" in reason:
        raise errors.invalid([("reason", "no text has a NUL")])


def _request_key(request: pb.CreateChannelRequest, call: Call) -> RequestKey | None:
    if not request.request_id:
        return None
    request_ids.check(request.request_id, now_us())
    asked = pb.CreateChannelRequest()
    asked.CopyFrom(request)
    asked.validate_only = False
    owner = call.principal.owner
    return RequestKey(owner, call.method, request.request_id, request_ids.digest(asked))
