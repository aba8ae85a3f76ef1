"""The bytes of files: put, got and deleted through the service.

Responsible for who may, for what is promised of size and checksum, and for answers. How an upload
stays whole is `uploads`. File work runs in threads, never in the event loop.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Sequence

from gridlane.transfer.v1 import storage_service_pb2
from gridlane_kit import errors
from gridlane_kit.call import Call
from gridlane_kit.errors import ErrorReason, GridlaneError
from gridlane_kit.failpoints import failpoint
from gridlane_transfer import access, capabilities, messages
from gridlane_transfer.backends.base import TransferBackend
from gridlane_transfer.backends.embedded.checksums import CHECKSUMS
from gridlane_transfer.backends.embedded.places import Folder, remove_file
from gridlane_transfer.backends.embedded.webdav.urls import is_remote
from gridlane_transfer.catalogue.base import LogicalFile
from gridlane_transfer.catalogue.replicas import Replicas
from gridlane_transfer.content.remote_content import RemoteFiles, RemoteReading, refusal
from gridlane_transfer.content.uploads import OpenUpload, Uploads, place_of
from gridlane_transfer.moving.failures import Failed, FailureClass, source_failure
from gridlane_transfer.moving.file_transfers import DEFAULT_CHECKSUM, is_logical
from gridlane_transfer.moving.removal_orders import kept_from_removal
from gridlane_transfer.storage import barred_ends
from gridlane_transfer.storage.bans import Operation
from gridlane_transfer.storage.storage_elements import PREFIX, Located, StorageElements

_REMOVED = failpoint("transfer.content.removed")
_UNREGISTERED = failpoint("transfer.content.unregistered")

_CHUNK_BYTES = 1 << 20
_WRITE = "transfer.content.write"
_READ = "transfer.content.read"


class Content:
    """The calls.

    Parameters:
        mover: removes remote files; `remote` reads them.
    """

    def __init__(
        self,
        elements: StorageElements,
        replicas: Replicas,
        uploads: Uploads,
        mover: TransferBackend,
        remote: RemoteFiles,
    ) -> None:
        self._elements = elements
        self._replicas = replicas
        self._uploads = uploads
        self._mover = mover
        self._remote = remote

    async def put(
        self, requests: AsyncIterator[storage_service_pb2.PutContentRequest], call: Call
    ) -> storage_service_pb2.PutContentResponse:
        """Write a file from its parts.

        Raises:
            GridlaneError: INVALID_FIELDS, NO_STORAGE_ELEMENT, PERMISSION_DENIED, SCOPE_TOO_NARROW,
                ALREADY_EXISTS, CHECKSUM_MISMATCH, NO_SPACE, CAPABILITY_MISSING for a remote
                storage, PRECONDITION when the place cannot be written, or a transfer is writing to
                it.
        """
        header = await _first(requests)
        located = self._place(header.file, Operation.WRITE, field="header.file")
        access.require_write(call, located, _WRITE, replace=header.overwrite)
        barred_ends.require_free(self._elements, located, Operation.WRITE)
        if is_remote(located.location.url):
            raise capabilities.remote_put("header.file")
        algorithms = await self._algorithms(header, located)
        await self._require_room(located, header.size_bytes)
        upload = await self._uploads.begin(located, call.principal.owner, algorithms)
        try:
            await _receive(requests, upload, header.size_bytes)
            _verify(header, upload)
        except BaseException:
            await upload.abandon()
            raise
        await upload.finish(overwrite=header.overwrite)
        value = upload.checksums()[algorithms[0]]
        return storage_service_pb2.PutContentResponse(
            lfn=located.lfn,
            url=located.location.url,
            size_bytes=upload.size_bytes,
            checksum=messages.checksum_message(f"{algorithms[0]}:{value}"),
        )

    async def get(
        self, request: storage_service_pb2.GetContentRequest, call: Call
    ) -> AsyncIterator[storage_service_pb2.GetContentResponse]:
        """Read a file: its header, then its bytes from the offset on.

        Raises:
            GridlaneError: NOT_FOUND, NO_STORAGE_ELEMENT, SCOPE_TOO_NARROW, INVALID_FIELDS for an
                offset past the end.
        """
        located = self._place(request.file)
        if located.vo not in call.visibility.vos and not call.visibility.everything:
            raise errors.not_found(request.file)
        access.require_read(call, located, _READ)
        known = await self._replicas.find(located.lfn)
        found = self._copies(request.file, known, Operation.READ)
        copies = barred_ends.readable(self._elements, found)
        copy, reading = await self._open(request.file, copies, request.offset_bytes)
        try:
            size = reading.size
            if request.offset_bytes > size:
                raise errors.invalid([("offset_bytes", f"at most the file's size, {size}")])
            header = storage_service_pb2.GetContentHeader(size_bytes=size)
            if known is not None and known.on(copy.location.storage_element):
                header.checksum.CopyFrom(messages.checksum_message(known.checksum))
            yield storage_service_pb2.GetContentResponse(header=header)
            while chunk := await reading.chunk():
                yield storage_service_pb2.GetContentResponse(chunk=chunk)
        finally:
            reading.close()

    async def delete(self, file: str, call: Call) -> None:
        """Remove a file and its registration: all copies of a logical name, the one copy of a URL.

        Raises:
            GridlaneError: NOT_FOUND when it is gone or not to be seen, PERMISSION_DENIED,
                SCOPE_TOO_NARROW, PRECONDITION when it cannot be removed, or a transfer is writing
                to it.
        """
        located = self._place(file)
        known = await self._replicas.find(located.lfn)
        if known is None and not await self._is_there(file, located):
            raise errors.not_found(file)
        access.require_removal(call, located, "" if known is None else known.owner, file)
        copies = self._removable(file, known)
        for copy in copies:
            barred_ends.require_free(self._elements, copy, Operation.REMOVE)
        removing = asyncio.ensure_future(self._removed(file, located, known, copies, call))
        # Whoever leaves meanwhile leaves nothing half done.
        self._uploads.keep(removing)
        await asyncio.shield(removing)

    async def _removed(
        self,
        file: str,
        located: Located,
        known: LogicalFile | None,
        copies: Sequence[Located],
        call: Call,
    ) -> None:
        """Remove copies and their registrations, while nobody writes to their places."""
        async with self._uploads.removing(copies, call.principal.owner):
            gone, failure = await self._remove_all(file, copies)
            _REMOVED()
            urls = [] if known is None else [url for copy in gone for url in _urls(known, copy)]
            if urls:
                await self._replicas.forget(located.lfn, urls, call)
                _UNREGISTERED()
        if failure is not None:
            raise failure
        if not urls and not any(gone.values()):
            raise errors.not_found(file)

    def _place(
        self, file: str, operation: Operation | None = None, *, field: str = "file"
    ) -> Located:
        located = self._elements.locate(file, operation=operation)
        if located is None:
            raise errors.no_storage_element(file, field)
        return located

    async def _algorithms(
        self, header: storage_service_pb2.PutContentHeader, located: Located
    ) -> list[str]:
        """The checksums to compute: the promised one, and that under which the name is
        registered.
        """
        first = DEFAULT_CHECKSUM
        if header.HasField("checksum"):
            first = messages.algorithm_of(header.checksum)
            if first not in CHECKSUMS:
                computed = ", ".join(sorted(CHECKSUMS))
                raise errors.invalid(
                    [("header.checksum.type", f"{first} is not computed here: {computed} are")]
                )
        known = await self._replicas.find(located.lfn)
        registered = "" if known is None else known.checksum.partition(":")[0]
        return [first, *({registered} & CHECKSUMS - {first})]

    async def _require_room(self, located: Located, size_bytes: int) -> None:
        """Refuse early what cannot fit."""
        element = self._elements.get(located.location.storage_element)
        if element is None:
            return
        condition = await asyncio.to_thread(element.condition)
        if 0 <= condition.free_bytes < size_bytes:
            raise errors.no_space(element.name)

    def _copies(
        self, file: str, known: LogicalFile | None, operation: Operation
    ) -> Sequence[Located]:
        """The places that a name stands for, as they are reached for an operation: every registered
        copy of a logical one, else where it would lie.

        Raises:
            GridlaneError: NO_STORAGE_ELEMENT: it is done at none of them.
        """
        names = [] if known is None or not is_logical(file) else _urls(known)
        found = [self._elements.locate(name, operation=operation) for name in names]
        # Of an element that is reached in several ways each file once.
        unique = {one.location.storage_element: one for one in found if one is not None}
        return list(unique.values()) or [self._place(file, operation)]

    def _removable(self, file: str, known: LogicalFile | None) -> Sequence[Located]:
        """All copies that a name stands for.

        Raises:
            GridlaneError: PRECONDITION: one of them lies where nothing is removed.
        """
        names = [file] if known is None or not is_logical(file) else _urls(known)
        kept = kept_from_removal(self._elements, names)
        if kept is not None:
            raise errors.precondition(
                kept, f"{file} has a copy on {kept}, where nothing is removed"
            )
        return self._copies(file, known, Operation.REMOVE)

    async def _remove_all(
        self, file: str, copies: Sequence[Located]
    ) -> tuple[dict[Located, bool], GridlaneError | None]:
        """Remove copies: those that are gone, with whether they were there; and why one is not."""
        gone: dict[Located, bool] = {}
        failure: GridlaneError | None = None
        for copy in copies:
            try:
                gone[copy] = await self._remove(file, copy)
            except GridlaneError as error:
                failure = failure or error
        return gone, failure

    async def _open(
        self, file: str, copies: Sequence[Located], offset: int
    ) -> "tuple[Located, _LocalReading | RemoteReading]":
        """The first copy that can be read, from an offset on."""
        failure: GridlaneError | None = None
        for copy in copies:
            try:
                if is_remote(copy.location.url):
                    return copy, await self._remote.open(copy.location, offset)
                return copy, _LocalReading(await _descriptor(copy), offset)
            except OSError as error:
                failure = failure or _unreadable(file, copy, error)
            except GridlaneError as error:
                failure = failure or error
        raise failure or errors.not_found(file)

    async def _is_there(self, file: str, copy: Located) -> bool:
        if not is_remote(copy.location.url):
            return await asyncio.to_thread(_is_there, copy)
        found = await self._mover.stat(copy.location)
        if not isinstance(found, Failed):
            return True
        if found.failure_class is FailureClass.SOURCE_MISSING:
            return False
        raise refusal(found, file, copy.location.storage_element)

    async def _remove(self, file: str, copy: Located) -> bool:
        if not is_remote(copy.location.url):
            return await asyncio.to_thread(_remove, file, copy)
        removed = await self._mover.remove(copy.location)
        if isinstance(removed, Failed):
            raise refusal(removed, file, copy.location.storage_element)
        return removed


class _LocalReading:
    """A file of a directory being read; owns its descriptor."""

    def __init__(self, descriptor: int, offset: int) -> None:
        self.size = os.fstat(descriptor).st_size
        self._descriptor = descriptor
        self._offset = offset

    async def chunk(self) -> bytes:
        """The next bytes; empty at the end."""
        found = await asyncio.to_thread(os.pread, self._descriptor, _CHUNK_BYTES, self._offset)
        self._offset += len(found)
        return found

    def close(self) -> None:
        """End it."""
        os.close(self._descriptor)


async def _first(
    requests: AsyncIterator[storage_service_pb2.PutContentRequest],
) -> storage_service_pb2.PutContentHeader:
    async for request in requests:
        if request.WhichOneof("part") == "header":
            return request.header
        break
    raise errors.invalid([("header", "the first message of the stream, and only it")])


async def _receive(
    requests: AsyncIterator[storage_service_pb2.PutContentRequest],
    upload: OpenUpload,
    size_bytes: int,
) -> None:
    async for request in requests:
        if request.WhichOneof("part") != "chunk":
            raise errors.invalid([("header", "the first message of the stream, and only it")])
        if upload.size_bytes + len(request.chunk) > size_bytes:
            raise _wrong_size(size_bytes, f"more than {size_bytes}")
        await upload.write(request.chunk)
    if upload.size_bytes != size_bytes:
        raise _wrong_size(size_bytes, str(upload.size_bytes))


def _wrong_size(expected: int, actual: str) -> GridlaneError:
    return GridlaneError(
        ErrorReason.CHECKSUM_MISMATCH,
        f"{actual} bytes came, promised were {expected}",
        {"expected": f"{expected} bytes", "actual": f"{actual} bytes"},
    )


def _verify(header: storage_service_pb2.PutContentHeader, upload: OpenUpload) -> None:
    if not header.HasField("checksum"):
        return
    algorithm = messages.algorithm_of(header.checksum)
    actual = upload.checksums()[algorithm]
    if actual != header.checksum.value:
        raise errors.checksum_mismatch(
            f"{algorithm}:{header.checksum.value}", f"{algorithm}:{actual}"
        )


def _urls(known: LogicalFile, copy: Located | None = None) -> list[str]:
    """The URLs by which a copy is registered, or all."""
    found = known.replicas if copy is None else known.on(copy.location.storage_element)
    return [replica.url for replica in found]


async def _descriptor(copy: Located) -> int:
    """Open a file in a thread; for a caller that leaves meanwhile it is closed again."""
    opening = asyncio.ensure_future(asyncio.to_thread(_open, copy))
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(_close)
        raise


def _close(opening: "asyncio.Future[int]") -> None:
    if not opening.cancelled() and opening.exception() is None:
        os.close(opening.result())


def _open(copy: Located) -> int:
    place = place_of(copy)
    with Folder.of(place) as folder:
        return folder.open_file(place.name)


def _is_there(copy: Located) -> bool:
    place = place_of(copy)
    try:
        with Folder.of(place) as folder:
            return folder.stat(place.name) is not None
    except OSError:
        return False


def _remove(file: str, copy: Located) -> bool:
    try:
        return remove_file(place_of(copy))
    except OSError as error:
        raise errors.precondition(file, f"{file} cannot be removed: {error.strerror}") from error


def _unreadable(file: str, copy: Located, error: OSError) -> GridlaneError:
    failed = source_failure(error, file)
    if failed.failure_class is FailureClass.SOURCE_MISSING:
        return errors.not_found(file)
    return errors.precondition(
        f"{PREFIX}{copy.location.storage_element.removeprefix(PREFIX)}",
        f"{failed.message}: {failed.cure}" if failed.cure else failed.message,
    )
