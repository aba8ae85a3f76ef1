"""The replica catalogue: `client.replicas`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from typing import TypeVar

from gridlane.calls import Timeout
from gridlane.descriptions import new_replica
from gridlane.errors import GridlaneError, NotFound, error_from_status
from gridlane.modes import Mode, stream, verb
from gridlane.nouns.noun import ClientNoun
from gridlane.transfer.v1 import replica_service_pb2 as rpc
from gridlane.transfer.v1.replica_pb2 import LogicalFile
from gridlane.transport import Method

_SERVICE = "gridlane.transfer.v1.ReplicaService"
REGISTER = Method(_SERVICE, "RegisterReplica", rpc.RegisterReplicaRequest, LogicalFile)
BATCH_REGISTER = Method(
    _SERVICE,
    "BatchRegisterReplicas",
    rpc.BatchRegisterReplicasRequest,
    rpc.BatchRegisterReplicasResponse,
)
UNREGISTER = Method(
    _SERVICE, "UnregisterReplica", rpc.UnregisterReplicaRequest, rpc.UnregisterReplicaResponse
)
BATCH_UNREGISTER = Method(
    _SERVICE,
    "BatchUnregisterReplicas",
    rpc.BatchUnregisterReplicasRequest,
    rpc.BatchUnregisterReplicasResponse,
)
RESOLVE = Method(
    _SERVICE, "ResolveReplicas", rpc.ResolveReplicasRequest, rpc.ResolveReplicasResponse
)
LIST = Method(_SERVICE, "ListReplicas", rpc.ListReplicasRequest, rpc.ListReplicasResponse)

#: For each name, in order: the file, or why there is none.
FileResults = list[LogicalFile | GridlaneError]
#: For each copy, in order: None where it is out of the catalogue, or why it is not.
Refusals = list[GridlaneError | None]

_BATCH = 1000
_BATCH_BYTES = 1 << 20
_T = TypeVar("_T")


class Replicas(ClientNoun[Mode]):
    """Logical files and where their copies lie."""

    @verb
    async def resolve(self, lfns: Iterable[str], *, timeout: Timeout = None) -> FileResults:
        """What logical file names stand for, 1000 a call.

        Parameters:
            lfns: logical file names ("LFN:/vo/path").
            timeout: for each call of 1000.

        Returns:
            One for each name, in order: the file with its copies, or NotFound (returned, not
                raised).
        """
        asked = [lfns] if isinstance(lfns, str) else lfns
        results: FileResults = []
        for some in _batches(asked):
            request = rpc.ResolveReplicasRequest(lfns=some)
            answer = await self._calls.unary(RESOLVE, request, timeout)
            results += map(_file_or_error, answer.results)
        return results

    @verb
    async def register(
        self,
        lfn: str,
        url: str,
        *,
        size_bytes: int,
        checksum: str,
        guid: str = "",
        timeout: Timeout = None,
    ) -> LogicalFile:
        """Register a copy of a logical file, and the file when it is new.

        Parameters:
            lfn: the logical file name.
            url: where the copy lies.
            size_bytes: its size.
            checksum: "ADLER32:0a1b2c3d".
            guid: the GUID of a file that is new, a UUID; empty for none.
            timeout: see the package.

        Raises:
            AlreadyExists: the file is registered with another size, checksum or GUID; or the GUID
                is another file's.
            ValueError: the checksum is not one.
        """
        request = new_replica(lfn, url, size_bytes=size_bytes, checksum=checksum, guid=guid)
        return await self._calls.unary(REGISTER, request, timeout)

    @verb
    async def register_many(
        self, copies: Iterable[rpc.RegisterReplicaRequest], *, timeout: Timeout = None
    ) -> FileResults:
        """Register copies of logical files, up to 1000 a call; those that are good are durable even
        when others are refused.

        Parameters:
            copies: any number, made by `gridlane.new_replica`; several may be of one file.
            timeout: for each call.

        Returns:
            One for each copy, in order: the file with it, or the error that refused it (returned,
            not raised).

        Raises:
            GridlaneError: a call failed as a whole. Calls before it stand.
        """
        results: FileResults = []
        for some in _batches(copies, rpc.RegisterReplicaRequest.ByteSize):
            request = rpc.BatchRegisterReplicasRequest(requests=some)
            answer = await self._calls.unary(BATCH_REGISTER, request, timeout)
            results += map(_file_or_error, answer.results)
        return results

    @verb
    async def unregister(
        self, lfn: str, replica: str, *, missing_ok: bool = False, timeout: Timeout = None
    ) -> None:
        """Take one copy of a logical file out of the catalogue, and the file with its last copy.

        The bytes stay: `client.storage.delete` removes both.

        Parameters:
            lfn: the logical file name.
            replica: the copy's URL, or "storageElements/<name>" where it lies.
            missing_ok: whether a copy that is not registered is well too.
            timeout: see the package.

        Raises:
            NotFound: no such copy is registered, or the caller may not see the file.
            PermissionDenied: the file is another's.
        """
        request = rpc.UnregisterReplicaRequest(lfn=lfn, replica=replica)
        try:
            await self._calls.unary(UNREGISTER, request, timeout)
        except NotFound:
            if not missing_ok:
                raise

    @verb
    async def unregister_many(
        self, copies: Iterable[tuple[str, str]], *, timeout: Timeout = None
    ) -> Refusals:
        """Take copies out of the catalogue, 1000 a call; one that is refused does not hold up the
        others.

        Parameters:
            copies: logical file names, each with a copy's URL or storage element.
            timeout: for each call.

        Returns:
            One for each copy, in order: None, or the error that refused it (returned, not raised).

        Raises:
            GridlaneError: a call failed as a whole. Calls before it stand.
        """
        refusals: Refusals = []
        for some in _batches(copies):
            request = rpc.BatchUnregisterReplicasRequest(
                requests=[
                    rpc.UnregisterReplicaRequest(lfn=lfn, replica=replica) for lfn, replica in some
                ]
            )
            answer = await self._calls.unary(BATCH_UNREGISTER, request, timeout)
            refusals += [
                error_from_status(result.status) if result.HasField("status") else None
                for result in answer.results
            ]
        return refusals

    @stream
    def list(
        self, prefix: str, *, limit: int | None = None, timeout: Timeout = None
    ) -> AsyncGenerator[LogicalFile]:
        """Logical files below a path, by name.

        Parameters:
            prefix: what names begin with ("LFN:/local/climate/").
            limit: at most this many; None for all.
            timeout: for each page of 1000.
        """
        request = rpc.ListReplicasRequest(prefix=prefix)
        return self._listed(LIST, request, lambda page: page.files, limit, timeout)


def _file_or_error(result: rpc.ResolvedFile) -> LogicalFile | GridlaneError:
    if result.WhichOneof("result") == "status":
        return error_from_status(result.status)
    return result.file


def _batches(items: Iterable[_T], size_of: Callable[[_T], int] = lambda _: 0) -> Iterator[list[_T]]:
    """The items, as many at a time as one call takes.

    Parameters:
        size_of: an item's bytes, where so many may go in one call that the answer, which has
            them and more, would be too large.
    """
    some: list[_T] = []
    size = 0
    for item in items:
        if some and (len(some) == _BATCH or size + size_of(item) > _BATCH_BYTES):
            yield some
            some, size = [], 0
        some.append(item)
        size += size_of(item)
    if some:
        yield some
