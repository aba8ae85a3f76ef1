"""The standard health service (grpc.health.v1), as a handler of the pipeline.

Responsible for what probes see: SERVING or NOT_SERVING of the whole server (""), of each service,
and of the policy ("policy"): a process whose policy is stale refuses every call, so nothing of it
is SERVING then, and the policy's own status says why. It runs on a server and a port of its own,
so that probes pass while the calls' port is full. Written over the package's messages instead of
its servicer, which knows only gRPC's context and not the pipeline's errors.
"""

import asyncio
from collections.abc import AsyncIterator

from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from gridlane_kit import errors
from gridlane_kit.call import Call
from gridlane_kit.policy import Policy, PolicyHolder

SERVICE = "grpc.health.v1.Health"
SERVING = HealthCheckResponse.SERVING
NOT_SERVING = HealthCheckResponse.NOT_SERVING

_POLICY = "policy"


class HealthShell:
    """Answers probes.

    Parameters:
        policy: the policy in force.
    """

    def __init__(self, policy: PolicyHolder) -> None:
        self._status: dict[str, int] = {"": NOT_SERVING}
        self._changed = asyncio.Condition()
        self._closed = policy.current.closed
        self._telling: set[asyncio.Task[None]] = set()
        policy.subscribe(self._policy_replaced)

    async def set_all(self, services: list[str], status: int) -> None:
        """Sets the status of the server and of these services, and tells those who watch."""
        for service in ("", *services):
            self._status[service] = status
        await self._tell()

    def _policy_replaced(self, policy: Policy) -> None:
        if policy.closed is not self._closed:
            self._closed = policy.closed
            task = asyncio.create_task(self._tell(), name="health-policy")
            self._telling.add(task)
            task.add_done_callback(self._telling.discard)

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def _of(self, service: str) -> int | None:
        """The status of a service; None when this server has none of that name."""
        if service == _POLICY:
            return NOT_SERVING if self._closed else SERVING
        status = self._status.get(service)
        return NOT_SERVING if status == SERVING and self._closed else status

    async def Check(  # noqa: N802 - named as in the contract
        self, request: HealthCheckRequest, call: Call
    ) -> HealthCheckResponse:
        """Answers the status of one service; NOT_FOUND when this server has none of that name."""
        status = self._of(request.service)
        if status is None:
            raise errors.not_found(f"service {request.service!r}")
        return HealthCheckResponse(status=status)

    async def Watch(  # noqa: N802
        self, request: HealthCheckRequest, call: Call
    ) -> AsyncIterator[HealthCheckResponse]:
        """Streams the status now and at each change; SERVICE_UNKNOWN for a strange name."""
        while True:
            status = self._of(request.service)
            yield HealthCheckResponse(
                status=HealthCheckResponse.SERVICE_UNKNOWN if status is None else status
            )
            async with self._changed:
                await self._changed.wait_for(
                    lambda seen=status: self._of(request.service) != seen  # type: ignore[misc]
                )
