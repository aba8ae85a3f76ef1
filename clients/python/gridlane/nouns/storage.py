"""Storage elements and the bytes in them: `client.storage`."""

from __future__ import annotations

import os
from asyncio import CancelledError
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from pathlib import Path

from gridlane.calls import Timeout, in_seconds
from gridlane.checksums import parse_checksum
from gridlane.content import Content, Download, content_of
from gridlane.errors import GridlaneError, NotFound
from gridlane.modes import Mode, stream, verb
from gridlane.names import collection_name
from gridlane.nouns.noun import ClientNoun
from gridlane.transfer.v1 import storage_service_pb2 as rpc
from gridlane.transfer.v1.content_pb2 import ContentInfo
from gridlane.transfer.v1.storage_element_pb2 import StorageElement
from gridlane.transport import Method
from gridlane.type.v1.checksum_pb2 import Checksum
from gridlane.watch import resumed

_SERVICE = "gridlane.transfer.v1.StorageService"
GET_ELEMENT = Method(_SERVICE, "GetStorageElement", rpc.GetStorageElementRequest, StorageElement)
LIST_ELEMENTS = Method(
    _SERVICE,
    "ListStorageElements",
    rpc.ListStorageElementsRequest,
    rpc.ListStorageElementsResponse,
)
PUT = Method(_SERVICE, "PutContent", rpc.PutContentRequest, rpc.PutContentResponse)
GET = Method(_SERVICE, "GetContent", rpc.GetContentRequest, rpc.GetContentResponse)
STAT = Method(_SERVICE, "StatContent", rpc.StatContentRequest, ContentInfo)
DELETE = Method(_SERVICE, "DeleteContent", rpc.DeleteContentRequest, rpc.DeleteContentResponse)

#: Told the bytes moved so far and those in all.
Progress = Callable[[int, int], None]

# The slowest upload that is waited for, unless a timeout is given.
_BASE_S = 60.0
_SLOWEST_BYTES_PER_S = 256 * 1024


class Storage(ClientNoun[Mode]):
    """Storage elements, and files put into, got from and removed from them."""

    @verb
    async def put(
        self,
        source: str | os.PathLike[str] | bytes,
        target: str,
        *,
        checksum: str | None = None,
        overwrite: bool = False,
        progress: Progress | None = None,
        timeout: Timeout = None,
    ) -> rpc.PutContentResponse:
        """Write a file into a storage element and register it.

        The target has the whole file or none of it. The bytes are summed before they are sent, and
        the server checks that it got those.

        Parameters:
            source: the path of a local file, or the bytes themselves.
            target: a logical file name ("LFN:/vo/path") or URL.
            checksum: what the bytes must have, "ADLER32:0a1b2c3d"; None: ADLER32 of what is there.
            overwrite: replace other bytes at the target.
            progress: told the bytes sent so far and those in all.
            timeout: until it is durable there; None: a minute, and a second for each 256 KiB.

        Returns:
            Where it lies, its size and its checksum.

        Raises:
            AlreadyExists: other bytes are there and `overwrite` is False.
            DataLoss: the bytes do not have `checksum`.
            InvalidArgument: reason NO_STORAGE_ELEMENT: nothing serves the target.
            ResourceExhausted: reason NO_SPACE.
            OSError: the local file cannot be read.
            ValueError: `checksum` is not one, or the path names no file.
        """
        expected = parse_checksum(checksum) if checksum else None
        content: Content = await self._calls.transport.run(content_of, source, expected)
        header = rpc.PutContentHeader(
            file=target,
            size_bytes=content.size_bytes,
            checksum=content.checksum,
            overwrite=overwrite,
        )
        default = _BASE_S + content.size_bytes / _SLOWEST_BYTES_PER_S
        try:
            return await self._calls.upload(
                PUT,
                lambda: content.requests(header, progress),
                in_seconds(timeout, default),
                repeat=True,
            )
        except (GridlaneError, CancelledError):
            # Of an error of the local file gRPC says only that the call was cancelled.
            content.raise_own_error()
            raise

    @verb
    async def get(
        self,
        source: str,
        target: str | os.PathLike[str],
        *,
        checksum: str | None = None,
        progress: Progress | None = None,
        timeout: Timeout = None,
    ) -> Checksum:
        """Read a file into a local one, verified. The local file is written whole or not at all.

        Parameters:
            source: a logical file name or URL.
            target: the path of the local file, replaced when it is there; its folder must be there.
                A folder: the file gets the source's last name in it.
            checksum: what the bytes must have, "ADLER32:0a1b2c3d"; None: the registered one.
            progress: told the bytes received so far and those in all.
            timeout: until the file is there; None for as long as bytes come.

        Returns:
            The checksum that was verified; empty when none was registered or given.

        Raises:
            NotFound: there is no such file that the caller may see.
            DataLoss: the bytes have another checksum or size; the local file is as it was.
            OSError: the local file cannot be written.
        """
        expected = parse_checksum(checksum) if checksum else None
        download = Download(source, Path(target), expected, progress)
        run = self._calls.transport.run
        await run(download.open)
        try:
            async with aclosing(self._parts(source, 0, timeout)) as parts:
                async for part in parts:
                    await run(download.take, part)
            return await run(download.publish)
        finally:
            await run(download.close)

    @stream
    async def read(
        self, source: str, *, offset_bytes: int = 0, timeout: Timeout = None
    ) -> AsyncGenerator[bytes]:
        """The bytes of a file, in parts, not verified.

        Parameters:
            source: a logical file name or URL.
            offset_bytes: where to begin.
            timeout: in all; None for as long as bytes come.

        Raises:
            NotFound: there is no such file that the caller may see.
        """
        async with aclosing(self._parts(source, offset_bytes, timeout)) as parts:
            async for part in parts:
                if part.WhichOneof("part") == "chunk":
                    yield part.chunk

    def _parts(
        self, source: str, offset_bytes: int, timeout: Timeout
    ) -> AsyncGenerator[rpc.GetContentResponse]:
        def take(
            part: rpc.GetContentResponse, offset: int
        ) -> tuple[int, Sequence[rpc.GetContentResponse]]:
            return offset + len(part.chunk), (part,)

        return resumed(
            self._calls,
            GET,
            lambda offset: rpc.GetContentRequest(file=source, offset_bytes=offset),
            take,
            offset_bytes,
            None if timeout is None else in_seconds(timeout, 0),
        )

    @verb
    async def stat(self, name: str, *, timeout: Timeout = None) -> ContentInfo:
        """What is known of a file without reading it: size, checksum, times.

        Parameters:
            name: a logical file name or URL.
            timeout: see the package.

        Raises:
            NotFound: there is no such file that the caller may see.
            FailedPrecondition: the name is registered, and no copy of it is there.
            Unavailable: the storage does not answer.
        """
        return await self._calls.unary(STAT, rpc.StatContentRequest(file=name), timeout)

    @verb
    async def delete(self, name: str, *, missing_ok: bool = False, timeout: Timeout = None) -> None:
        """Remove a file and its registration.

        Parameters:
            name: a logical file name or URL.
            missing_ok: whether a file that is not there is well too.
            timeout: see the package.

        Raises:
            NotFound: there is no such file that the caller may see. It may have been removed by an
                attempt of this very call whose answer was lost.
            PermissionDenied: the caller may see it, not remove it.
        """
        try:
            await self._calls.unary(DELETE, rpc.DeleteContentRequest(file=name), timeout)
        except NotFound:
            if not missing_ok:
                raise

    @stream
    def elements(
        self, *, limit: int | None = None, timeout: Timeout = None
    ) -> AsyncGenerator[StorageElement]:
        """Storage elements by name.

        Parameters:
            limit: at most this many; None for all.
            timeout: for each page of 1000.
        """
        request = rpc.ListStorageElementsRequest()
        return self._listed(
            LIST_ELEMENTS, request, lambda page: page.storage_elements, limit, timeout
        )

    @verb
    async def element(self, name: str, *, timeout: Timeout = None) -> StorageElement:
        """One storage element.

        Parameters:
            name: "storageElements/<name>" or the bare name.
            timeout: see the package.

        Raises:
            NotFound: there is none of that name.
        """
        request = rpc.GetStorageElementRequest(name=collection_name(name, "storageElements"))
        return await self._calls.unary(GET_ELEMENT, request, timeout)
