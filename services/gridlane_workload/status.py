"""How the service is: its backend and its database. Responsible for asking each of them."""

import time

from google.protobuf.duration_pb2 import Duration

from gridlane.type.v1.status_pb2 import BackendStatus, ServiceStatus
from gridlane_kit.clock import to_duration
from gridlane_kit.database import Database
from gridlane_kit.errors import GridlaneError
from gridlane_kit.version import VERSION
from gridlane_workload import queue_store
from gridlane_workload.backends.interface import Backend, BackendUnavailableError


class Status:
    """Asks all that stands behind the service."""

    def __init__(self, db: Database, backend: Backend) -> None:
        self._db = db
        self._backend = backend

    async def service(self) -> ServiceStatus:
        """The service, its backend and its database."""
        begun = time.monotonic()
        database = BackendStatus(name="database", reachable=True, version=VERSION)
        taken = 0
        try:
            taken = await self._db.read(queue_store.count_at_backend)
        except GridlaneError as error:
            database.reachable = False
            database.message = error.message
        database.latency.CopyFrom(_since(begun))
        return ServiceStatus(
            service="workload",
            reachable=True,
            authenticated=True,
            version=VERSION,
            backends=[await self._backend_status(taken), database],
        )

    async def _backend_status(self, taken: int) -> BackendStatus:
        begun = time.monotonic()
        status = BackendStatus(name=self._backend.name, reachable=True, version=VERSION)
        status.message = f"{taken} of {self._backend.places} places taken"
        try:
            await self._backend.check()
        except BackendUnavailableError as error:
            status.reachable = False
            status.message = str(error)
        status.latency.CopyFrom(_since(begun))
        return status


def _since(begun: float) -> Duration:
    return to_duration(round((time.monotonic() - begun) * 1e6))
