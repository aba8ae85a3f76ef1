"""The bytes of remote files, read through the service.

Responsible for one reading over HTTP, from an offset on, in threads of its own: a storage that is
slow holds one of them, never the event loop. The mover's rules hold: which hosts, which
credentials, and how a broken connection is taken up.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from gridlane_kit import errors
from gridlane_kit.errors import GridlaneError
from gridlane_transfer.backends.base import Location
from gridlane_transfer.backends.embedded.webdav.client import Client, Session
from gridlane_transfer.backends.embedded.webdav.meanings import Side, failure
from gridlane_transfer.backends.embedded.webdav.options import HttpOptions
from gridlane_transfer.backends.embedded.webdav.reading import RangeReader
from gridlane_transfer.backends.embedded.webdav.troubles import HttpError
from gridlane_transfer.backends.embedded.webdav.urls import on_the_wire
from gridlane_transfer.backends.embedded.webdav.waking import Part, Unstoppable
from gridlane_transfer.moving.failures import Failed, FailureClass, MoveError

T = TypeVar("T")

_AT_ONCE: Final = 8
_BLOCK_BYTES: Final = 1 << 20


class RemoteFiles:
    """Opens remote files for reading.

    Parameters:
        options: what is configured for HTTP.
    """

    def __init__(self, options: HttpOptions) -> None:
        self._client = Client(options)
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="remote-content")

    async def open(self, location: Location, offset: int) -> "RemoteReading":
        """Begin to read.

        Parameters:
            offset: of the first byte; not past the end.

        Raises:
            GridlaneError: NOT_FOUND, PRECONDITION or PEER_UNAVAILABLE; as `refusal` says.
        """
        stop = Part(Unstoppable())
        session = Session(self._client, stop)
        reading = RemoteReading(location, self._threads, stop)
        await reading.begin(session, offset)
        return reading

    def stop(self) -> None:
        """Open nothing any more."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class RemoteReading:
    """A remote file being read; `close` it. `size` is known after `begin`."""

    def __init__(self, location: Location, threads: ThreadPoolExecutor, stop: Part) -> None:
        self.size = 0
        self._location = location
        self._threads = threads
        self._stop = stop
        self._reader: RangeReader | None = None
        self._block = memoryview(bytearray(_BLOCK_BYTES))

    async def begin(self, session: Session, offset: int) -> None:
        """Have the storage answer."""
        url = on_the_wire(self._location.url)

        def work() -> RangeReader:
            reader = RangeReader(session, url)
            size = reader.version.size
            if offset and size is not None:
                reader.close()
                reader = RangeReader(session, url, min(offset, size), size, reader.version)
            return reader

        self._reader = await self._run(work)
        size = self._reader.version.size
        if size is None:
            self.close()
            shown = self._location.shown
            raise errors.precondition(shown, f"the storage does not say how long {shown} is")
        self.size = size

    async def chunk(self) -> bytes:
        """The next bytes; empty at the end."""
        reader = self._reader
        if reader is None:
            raise RuntimeError("the reading was not begun")

        def work() -> bytes:
            return bytes(self._block[: reader.read_some(self._block)])

        return await self._run(work)

    def close(self) -> None:
        """End it, also while a thread waits for bytes."""
        self._stop.stop()
        if self._reader is None:
            return
        try:
            # After the thread that may be reading.
            self._threads.submit(self._reader.close)
        except RuntimeError:
            self._reader.close()  # the server is stopping: nobody reads any more

    async def _run(self, work: Callable[[], T]) -> T:
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._threads, work)
        except HttpError as error:
            shown = self._location.shown
            failed = failure(Side.SOURCE, error, shown)
            raise refusal(failed, shown, self._location.storage_element) from error
        except MoveError as error:
            raise refusal(error.failed, self._location.shown, "") from error


def refusal(failed: Failed, file: str, element: str) -> GridlaneError:
    """What a caller is told of a file whose storage did not give what was asked for.

    Parameters:
        file: what the caller calls it.
        element: its storage element, "storageElements/{name}".
    """
    if failed.failure_class is FailureClass.SOURCE_MISSING:
        return errors.not_found(file)
    if failed.recoverable:
        return errors.peer_unavailable(element)
    text = f"{failed.message}: {failed.cure}" if failed.cure else failed.message
    return errors.precondition(element, text)
