"""The calls of the replica catalogue: which logical files there are, and where their copies lie.

Responsible for what a request must be, for who may and who sees what, and for answers. What is
registered is kept by a `Catalogue`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final, TypeVar

from google.protobuf.message import Message

from gridlane.transfer.v1 import replica_pb2, replica_service_pb2
from gridlane_kit import errors
from gridlane_kit.call import Call
from gridlane_kit.clock import now_us
from gridlane_kit.decision import scope_covers
from gridlane_kit.errors import GridlaneError
from gridlane_kit.failpoints import failpoint
from gridlane_kit.pages import page_request
from gridlane_kit.validation import validate
from gridlane_transfer import access, messages
from gridlane_transfer.catalogue.base import (
    Catalogue,
    ConflictError,
    LogicalFile,
    Registration,
    Removal,
)
from gridlane_transfer.moving.file_transfers import is_logical
from gridlane_transfer.storage.storage_elements import Located, StorageElements
from gridlane_transfer.store.catalogue import BY_NAME

_REGISTERED = failpoint("transfer.replica.registered")
_UNREGISTERED = failpoint("transfer.replica.unregistered")
_REGISTER = "transfer.replicas.register"
_VIEW = "transfer.replicas.view"
_CHECKED_AT_ONCE: Final = 50

_Request = TypeVar("_Request", bound=Message)
_Checked = TypeVar("_Checked")
_Outcome = TypeVar("_Outcome")

Registered = replica_pb2.LogicalFile | GridlaneError
"""What became of a copy to register."""


class Replicas:
    """The calls."""

    def __init__(self, catalogue: Catalogue, elements: StorageElements) -> None:
        self._catalogue = catalogue
        self._elements = elements

    async def register(
        self, request: replica_service_pb2.RegisterReplicaRequest, call: Call
    ) -> replica_pb2.LogicalFile:
        """Register a copy.

        Raises:
            GridlaneError: NO_STORAGE_ELEMENT, INVALID_FIELDS when the URL is not the logical
                name's on any element, PERMISSION_DENIED, SCOPE_TOO_NARROW, ALREADY_EXISTS.
        """
        (answer,) = await self._register([self._copy(request, call)], call)
        if isinstance(answer, GridlaneError):
            raise answer
        return answer

    async def register_many(
        self, requests: Sequence[replica_service_pb2.RegisterReplicaRequest], call: Call
    ) -> list[Registered]:
        """Register copies, in one transaction; each with its own outcome, in the order given."""
        return await _each(
            requests, partial(self._copy, call=call), partial(self._register, call=call)
        )

    async def unregister(
        self, request: replica_service_pb2.UnregisterReplicaRequest, call: Call
    ) -> None:
        """Take a copy out of the catalogue, and the file with its last one.

        Raises:
            GridlaneError: NOT_FOUND, PERMISSION_DENIED, SCOPE_TOO_NARROW.
        """
        (refusal,) = await self._unregister([self._removal(request, call)], call)
        if refusal is not None:
            raise refusal

    async def unregister_many(
        self, requests: Sequence[replica_service_pb2.UnregisterReplicaRequest], call: Call
    ) -> list[GridlaneError | None]:
        """Take copies out of the catalogue, in one transaction; each with its own outcome, in the
        order given: None where it is done.
        """
        return await _each(
            requests, partial(self._removal, call=call), partial(self._unregister, call=call)
        )

    async def resolve(
        self, lfns: Sequence[str], call: Call
    ) -> list[replica_pb2.LogicalFile | GridlaneError]:
        """What names stand for, or NOT_FOUND, in the order asked."""
        found = await self._catalogue.resolve(lfns)
        return [
            messages.logical_file_message(file)
            if file is not None and access.can_see(call, file.vo, path_of(lfn))
            else errors.not_found(lfn)
            for lfn, file in zip(lfns, found, strict=True)
        ]

    async def list_below(
        self, request: replica_service_pb2.ListReplicasRequest, call: Call
    ) -> tuple[list[replica_pb2.LogicalFile], str]:
        """A page of the logical files below a path, by name, and the next page's token.

        Raises:
            GridlaneError: SCOPE_TOO_NARROW when the token does not cover all that could be listed.
        """
        path = path_of(request.prefix)
        # A name that does not end at a slash also begins its neighbours' names.
        covered = path if path.endswith("/") else path.rpartition("/")[0] or "/"
        if not scope_covers(call.principal, "storage.read", covered):
            raise errors.scope_too_narrow(_VIEW, f"storage.read:{covered}")
        page = page_request(
            BY_NAME,
            page_size=request.page_size,
            page_token=request.page_token,
            binding=("ListReplicas", request.prefix, call.principal.owner),
        )
        files, token = await self._catalogue.page_below(request.prefix, call.visibility, page)
        return [messages.logical_file_message(file) for file in files], token

    async def find(self, lfn: str) -> LogicalFile | None:
        """A logical file, whoever asks; None when it is not registered."""
        (file,) = await self._catalogue.resolve([lfn])
        return file

    async def forget(self, lfn: str, urls: Sequence[str], call: Call) -> None:
        """Take copies out whose bytes are gone, whoever asked for that."""
        (outcome,) = await self._catalogue.unregister([Removal(lfn, urls)], deadline=call.deadline)
        if isinstance(outcome, Exception):
            raise outcome

    def _copy(
        self, request: replica_service_pb2.RegisterReplicaRequest, call: Call
    ) -> Registration:
        """What a request asks to be registered."""
        located = self._place_of(request.url)
        if located is None:
            raise errors.no_storage_element(request.url, "url")
        if located.lfn != request.lfn:
            raise errors.invalid([("url", f"is the place of {located.lfn}, not of {request.lfn}")])
        access.require_write(call, located, _REGISTER, replace=False)
        algorithm = messages.algorithm_of(request.checksum)
        return registration(
            located,
            call.principal.owner,
            request.size_bytes,
            {algorithm: request.checksum.value},
            guid=request.guid.lower(),
        )

    def _place_of(self, url: str) -> Located | None:
        """What a URL stands for; a logical name is none."""
        return None if is_logical(url) else self._elements.locate(url)

    async def _register(self, copies: Sequence[Registration], call: Call) -> list[Registered]:
        outcomes = await self._catalogue.register(copies, deadline=call.deadline)
        _REGISTERED()
        return [_registered(outcome) for outcome in outcomes]

    def _removal(
        self, request: replica_service_pb2.UnregisterReplicaRequest, call: Call
    ) -> Removal:
        """What a request asks to be taken out; whether the caller may is asked of the row that
        would go. A token's scopes speak of the name alone, whether it is there or not.
        """
        access.require_unregistering_scope(call, path_of(request.lfn))
        located = self._place_of(request.replica)
        known_as = [] if located is None else [located.location.url]
        refusal = partial(access.unregistering_refusal, call)
        return Removal(request.lfn, (request.replica, *known_as), refusal)

    async def _unregister(
        self, removals: Sequence[Removal], call: Call
    ) -> list[GridlaneError | None]:
        outcomes = await self._catalogue.unregister(removals, deadline=call.deadline)
        _UNREGISTERED()
        return [
            _unregistered(removal, outcome)
            for removal, outcome in zip(removals, outcomes, strict=True)
        ]


def path_of(lfn: str) -> str:
    """The path of a logical name."""
    return lfn.removeprefix("LFN:")


def registration(
    located: Located,
    owner: str,
    size_bytes: int,
    checksums: dict[str, str],
    *,
    replaces: bool = False,
    guid: str = "",
) -> Registration:
    """The registration of a copy at its place; parameters as `Registration`'s."""
    return Registration(
        lfn=located.lfn,
        url=located.location.url,
        storage_element=located.location.storage_element,
        vo=located.vo,
        owner=owner,
        size_bytes=size_bytes,
        checksums=checksums,
        replaces=replaces,
        time_us=now_us(),
        guid=guid,
    )


def conflict(error: ConflictError) -> GridlaneError:
    """What a caller is told of a conflict."""
    answer = errors.already_exists(error.name)
    return GridlaneError(answer.reason, str(error), answer.metadata)


async def _each(
    requests: Sequence[_Request],
    check: Callable[[_Request], _Checked],
    write: Callable[[Sequence[_Checked]], Awaitable[Sequence[_Outcome]]],
) -> list[_Outcome | GridlaneError]:
    """Check requests one by one, and write those that are good; outcomes in the order given."""
    results: dict[int, _Outcome | GridlaneError] = {}
    good: dict[int, _Checked] = {}
    for index, request in enumerate(requests):
        try:
            validate(request)
            good[index] = check(request)
        except GridlaneError as error:
            results[index] = error
        if index % _CHECKED_AT_ONCE == 0:
            # Others get their turn.
            await asyncio.sleep(0)
    if good:
        results |= dict(zip(good, await write(list(good.values())), strict=True))
    return [results[index] for index in range(len(requests))]


def _registered(outcome: LogicalFile | Exception) -> Registered:
    if isinstance(outcome, ConflictError):
        return conflict(outcome)
    if isinstance(outcome, GridlaneError):
        return outcome
    if isinstance(outcome, Exception):
        raise outcome
    return messages.logical_file_message(outcome)


def _unregistered(removal: Removal, outcome: int | Exception) -> GridlaneError | None:
    if isinstance(outcome, GridlaneError):
        return outcome
    if isinstance(outcome, Exception):
        raise outcome
    return None if outcome else errors.not_found(removal.lfn)
