"""The replica catalogue: `client.replicas`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable

from gridlane.calls import Timeout
from gridlane.checksums import parse_checksum
from gridlane.errors import GridlaneError, error_from_status
from gridlane.modes import Mode, stream, verb
from gridlane.nouns.noun import ClientNoun
from gridlane.transfer.v1 import replica_service_pb2 as rpc
from gridlane.transfer.v1.replica_pb2 import LogicalFile
from gridlane.transport import Method

_SERVICE = "gridlane.transfer.v1.ReplicaService"
REGISTER = Method(_SERVICE, "RegisterReplica", rpc.RegisterReplicaRequest, LogicalFile)
RESOLVE = Method(
    _SERVICE, "ResolveReplicas", rpc.ResolveReplicasRequest, rpc.ResolveReplicasResponse
)
LIST = Method(_SERVICE, "ListReplicas", rpc.ListReplicasRequest, rpc.ListReplicasResponse)

#: For each name, in order: the file, or why there is none.
FileResults = list[LogicalFile | GridlaneError]

_BATCH = 1000


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
        asked = [lfns] if isinstance(lfns, str) else list(lfns)
        results: FileResults = []
        for start in range(0, len(asked), _BATCH):
            request = rpc.ResolveReplicasRequest(lfns=asked[start : start + _BATCH])
            answer = await self._calls.unary(RESOLVE, request, timeout)
            results += map(_file_or_error, answer.results)
        return results

    @verb
    async def register(
        self, lfn: str, url: str, *, size_bytes: int, checksum: str, timeout: Timeout = None
    ) -> LogicalFile:
        """Register a copy of a logical file, and the file when it is new.

        Parameters:
            lfn: the logical file name.
            url: where the copy lies.
            size_bytes: its size.
            checksum: "ADLER32:0a1b2c3d".
            timeout: see the package.

        Raises:
            AlreadyExists: the file is registered with another size or checksum.
            ValueError: the checksum is not one.
        """
        request = rpc.RegisterReplicaRequest(
            lfn=lfn, url=url, size_bytes=size_bytes, checksum=parse_checksum(checksum)
        )
        return await self._calls.unary(REGISTER, request, timeout)

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
