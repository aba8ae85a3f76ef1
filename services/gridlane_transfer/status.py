"""How the service is: its mover, its storage elements, its database. Responsible for asking each of
them.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

from sqlalchemy import select

from gridlane.transfer.v1 import storage_element_pb2
from gridlane.type.v1 import status_pb2
from gridlane_kit.clock import to_duration
from gridlane_kit.database import Database
from gridlane_kit.errors import GridlaneError
from gridlane_kit.version import VERSION
from gridlane_transfer.backends.base import TransferBackend
from gridlane_transfer.backends.embedded.webdav.addresses import AddressPolicy
from gridlane_transfer.storage.bans import Operation
from gridlane_transfer.storage.conditions import Conditions
from gridlane_transfer.storage.storage_elements import PREFIX, StorageElement, StorageElements
from gridlane_transfer.storage.storage_messages import element_message
from gridlane_transfer.store.tables import CHANNEL

_MIB = 1 << 20


class Status:
    """Asks all that stands behind the service.

    Parameters:
        addresses: where remote storages may be asked.
    """

    def __init__(
        self,
        db: Database,
        backend: TransferBackend,
        elements: StorageElements,
        addresses: AddressPolicy,
    ) -> None:
        self._db = db
        self._backend = backend
        self._elements = elements
        self._conditions = Conditions(addresses)

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

    async def element_messages(
        self, elements: Sequence[StorageElement]
    ) -> list[storage_element_pb2.StorageElement]:
        """Storage elements as they are now."""
        conditions = await asyncio.gather(*(self._conditions.of(one) for one in elements))
        return [
            element_message(element, self._banned(element), condition)
            for element, condition in zip(elements, conditions, strict=True)
        ]

    def _banned(self, element: StorageElement) -> frozenset[Operation]:
        """What nobody may do there now."""
        return frozenset(
            operation
            for operation in Operation
            if self._elements.barred(element.resource, operation, None)
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
            condition = await self._conditions.of(element)
            if condition.free_bytes >= 0:
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
