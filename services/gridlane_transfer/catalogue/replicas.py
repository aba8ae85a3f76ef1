"""The replica catalogue: which logical files there are, and where their copies lie.

Responsible for what the catalogue's calls do and who sees what. Rows are `store.catalogue`'s.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from gridlane.transfer.v1 import replica_pb2, replica_service_pb2
from gridlane_kit import errors
from gridlane_kit.call import Call
from gridlane_kit.clock import now_us
from gridlane_kit.database import Database
from gridlane_kit.decision import scope_covers
from gridlane_kit.errors import GridlaneError
from gridlane_kit.failpoints import failpoint
from gridlane_kit.group_commit import WriteKind
from gridlane_kit.grouped_read import GroupedRead
from gridlane_kit.pages import page_request
from gridlane_kit.visibility import visible_vos
from gridlane_transfer import access, capabilities, messages
from gridlane_transfer.storage.storage_elements import Located, StorageElements
from gridlane_transfer.store import catalogue
from gridlane_transfer.store.catalogue import ConflictError, LogicalFile, Registration
from gridlane_transfer.store.tables import LOGICAL_FILE

_REGISTERED = failpoint("transfer.replica.registered")
_REGISTER = "transfer.replicas.register"
_VIEW = "transfer.replicas.view"


@dataclass(frozen=True, slots=True)
class Removal:
    """Copies to forget."""

    lfn: str
    urls: Sequence[str]


def register(conn: Connection, copies: Sequence[Registration]) -> list[LogicalFile | Exception]:
    """Register copies, for the group commit; a conflict is ALREADY_EXISTS for its caller alone."""
    answers: list[LogicalFile | Exception] = []
    for copy in copies:
        try:
            answers.append(catalogue.register(conn, copy))
        except ConflictError as error:
            answers.append(conflict(copy.lfn, error))
    return answers


def unregister(conn: Connection, removals: Sequence[Removal]) -> list[Exception | None]:
    """Forget copies, for the group commit."""
    for removal in removals:
        catalogue.unregister(conn, removal.lfn, removal.urls)
    return [None] * len(removals)


def conflict(lfn: str, error: ConflictError) -> GridlaneError:
    """What a caller is told of a conflict."""
    answer = errors.already_exists(lfn)
    return GridlaneError(answer.reason, str(error), answer.metadata)


class Replicas:
    """The calls.

    Parameters:
        register: the write, through the group commit.
    """

    def __init__(
        self,
        db: Database,
        elements: StorageElements,
        *,
        register: WriteKind[Registration, LogicalFile],
    ) -> None:
        self._db = db
        self._elements = elements
        self._register = register
        self._files = GroupedRead(db, catalogue.files)

    async def register(
        self, request: replica_service_pb2.RegisterReplicaRequest, call: Call
    ) -> replica_pb2.LogicalFile:
        """Register a copy.

        Raises:
            GridlaneError: CAPABILITY_MISSING, NO_STORAGE_ELEMENT, INVALID_FIELDS when the URL is
                not the logical name's on any element, PERMISSION_DENIED, SCOPE_TOO_NARROW,
                ALREADY_EXISTS.
        """
        capabilities.refuse_registration(request)
        located = self._elements.locate(request.url)
        if located is None:
            raise errors.no_storage_element(request.url)
        if located.lfn != request.lfn:
            raise errors.invalid([("url", f"is the place of {located.lfn}, not of {request.lfn}")])
        access.require_write(call, located, _REGISTER, replace=False)
        algorithm = messages.algorithm_of(request.checksum)
        copy = registration(
            located, call.principal.owner, request.size_bytes, {algorithm: request.checksum.value}
        )
        file = await self._register(copy, deadline=call.deadline)
        _REGISTERED()
        return messages.logical_file_message(file)

    async def resolve(
        self, lfns: Sequence[str], call: Call
    ) -> list[replica_pb2.LogicalFile | GridlaneError]:
        """What names stand for, or NOT_FOUND, in the order asked."""
        found = await self._files.get_many(lfns)
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
            catalogue.KEYSET,
            page_size=request.page_size,
            page_token=request.page_token,
            binding=("ListReplicas", request.prefix, call.principal.owner),
        )
        visible = visible_vos(call.visibility, LOGICAL_FILE.c.vo)
        files, token = await self._db.read(
            lambda conn: catalogue.page_below(conn, request.prefix, visible, page)
        )
        return [messages.logical_file_message(file) for file in files], token

    async def find(self, lfn: str) -> LogicalFile | None:
        """A logical file, whoever asks; None when it is not registered."""
        return await self._files.get(lfn)


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
    )
