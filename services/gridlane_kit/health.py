"""The standard health service (grpc.health.v1), as a handler of the pipeline.

Responsible for what probes see: SERVING or NOT_SERVING of the whole server ("") and of each
service. It runs on a server and a port of its own, so that probes pass while the calls' port is
full. Written over the package's messages instead of its servicer, which knows only gRPC's context
and not the pipeline's errors.
"""

import asyncio
from collections.abc import AsyncIterator

from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from gridlane_kit import errors
from gridlane_kit.call import Call

SERVICE = "grpc.health.v1.Health"
SERVING = HealthCheckResponse.SERVING
NOT_SERVING = HealthCheckResponse.NOT_SERVING


class HealthShell:
    """Answers probes."""

    def __init__(self) -> None:
        self._status: dict[str, int] = {"": NOT_SERVING}
        self._changed = asyncio.Condition()

    async def set_all(self, services: list[str], status: int) -> None:
        """Sets the status of the server and of these services, and tells those who watch."""
        async with self._changed:
            for service in ("", *services):
                self._status[service] = status
            self._changed.notify_all()

    async def Check(  # noqa: N802 - named as in the contract
        self, request: HealthCheckRequest, call: Call
    ) -> HealthCheckResponse:
        """Answers the status of one service; NOT_FOUND when this server has none of that name."""
        status = self._status.get(request.service)
        if status is None:
            raise errors.not_found(f"service {request.service!r}")
        return HealthCheckResponse(status=status)

    async def Watch(  # noqa: N802
        self, request: HealthCheckRequest, call: Call
    ) -> AsyncIterator[HealthCheckResponse]:
        """Streams the status now and at each change; SERVICE_UNKNOWN for a strange name."""
        while True:
            status = self._status.get(request.service, HealthCheckResponse.SERVICE_UNKNOWN)
            yield HealthCheckResponse(status=status)
            async with self._changed:
                await self._changed.wait_for(
                    lambda seen=status: self._status.get(request.service, seen) != seen  # type: ignore[misc]
                )
