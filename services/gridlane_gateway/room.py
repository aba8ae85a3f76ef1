"""The gateway as a room of a server. It has nothing to open and nothing to flush."""

from collections.abc import Sequence

from gridlane.gateway.v1 import task_service_pb2
from gridlane_gateway.peers import GatewayPeers
from gridlane_gateway.service import TaskShell
from gridlane_gateway.settings import GatewaySettings
from gridlane_kit.peers import Peers

_SERVICE = task_service_pb2.DESCRIPTOR.services_by_name["TaskService"].full_name


class GatewayRoom:
    """The gateway.

    Parameters:
        settings: what is in force.
        peers: the services that it composes.
    """

    name = "gateway"

    def __init__(self, settings: GatewaySettings, *, peers: Peers) -> None:
        self._shell = TaskShell(GatewayPeers(peers), settings)

    async def start(self) -> None:
        """Nothing to start: it has no state."""

    def handlers(self) -> Sequence[tuple[str, object]]:
        """Returns the service and its implementation."""
        return [(_SERVICE, self._shell)]

    async def drain(self) -> None:
        """Nothing to drain: calls in flight end by themselves."""

    async def stop(self) -> None:
        """Nothing to close."""
