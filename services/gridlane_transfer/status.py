"""How the service is: its mover, its storage elements, its database. Responsible for asking each of
them.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable

from sqlalchemy import select

from gridlane.transfer.v1 import storage_element_pb2
from gridlane.type.v1 import status_pb2
from gridlane_kit.clock import to_duration
from gridlane_kit.database import Database
from gridlane_kit.errors import GridlaneError
from gridlane_kit.version import VERSION
from gridlane_transfer.backends.base import TransferBackend
from gridlane_transfer.storage_elements import PREFIX, Condition, StorageElement, StorageElements
from gridlane_transfer.store.tables import CHANNEL

# A file system that hangs is told as one that does not answer.
_PATIENCE_S = 2.0
_MIB = 1 << 20


class Status:
    """Asks all that stands behind the service."""

    def __init__(self, db: Database, backend: TransferBackend, elements: StorageElements) -> None:
        self._db = db
        self._backend = backend
        self._elements = elements

    async def service(self) -> status_pb2.ServiceStatus:
        """The service and its backends."""
        parts = [self._database(), self._mover()]
        parts += [self._element(element) for element in self._elements.all()]
        return status_pb2.ServiceStatus(
            service="transfer",
            reachable=True,
            authenticated=True,
            version=VERSION,
            backends=await asyncio.gather(*parts),
        )

    async def element_message(self, element: StorageElement) -> storage_element_pb2.StorageElement:
        """A storage element as it is now."""
        condition = await _condition(element)
        return storage_element_pb2.StorageElement(
            name=PREFIX + element.name,
            endpoints=[
                storage_element_pb2.StorageEndpoint(base_url=element.base_url, protocol="file")
            ],
            vo_paths=element.vo_paths,
            medium=storage_element_pb2.STORAGE_MEDIUM_DISK,
            readable=condition.readable,
            writable=condition.writable,
            free_bytes=condition.free_bytes,
            internal=element.internal,
        )

    async def _database(self) -> status_pb2.BackendStatus:
        async def ask() -> str:
            try:
                await self._db.read(lambda conn: conn.execute(select(CHANNEL.c.uid)).first())
            except GridlaneError as error:
                return error.message
            return ""

        return await _timed("database", ask)

    async def _mover(self) -> status_pb2.BackendStatus:
        report = self._backend.report()
        return status_pb2.BackendStatus(
            name=report.name,
            reachable=report.reachable,
            version=report.version,
            message=report.message,
        )

    async def _element(self, element: StorageElement) -> status_pb2.BackendStatus:
        free = ""

        async def ask() -> str:
            nonlocal free
            condition = await _condition(element)
            free = f"{condition.free_bytes // _MIB} MiB free"
            return condition.message

        status = await _timed(PREFIX + element.name, ask)
        status.message = status.message or free
        return status


async def _timed(name: str, ask: Callable[[], Awaitable[str]]) -> status_pb2.BackendStatus:
    """How a backend is; `ask` answers what it is short of, empty when of nothing."""
    begun = time.monotonic()
    message = await ask()
    latency = to_duration(round((time.monotonic() - begun) * 1_000_000))
    return status_pb2.BackendStatus(
        name=name, reachable=not message, version=VERSION, latency=latency, message=message
    )


async def _condition(element: StorageElement) -> Condition:
    try:
        async with asyncio.timeout(_PATIENCE_S):
            return await asyncio.to_thread(element.condition)
    except TimeoutError:
        return Condition(
            False, False, -1, f"{PREFIX}{element.name}: the file system does not answer"
        )
