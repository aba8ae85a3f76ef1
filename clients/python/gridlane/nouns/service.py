"""The two calls that concern no resource: who the caller is, and how the services are."""

from __future__ import annotations

from gridlane.authorization.v1 import authorization_service_pb2 as authorization
from gridlane.calls import Calls, Timeout
from gridlane.gateway.v1 import task_service_pb2 as gateway
from gridlane.transport import Method

WHO_AM_I = Method(
    "gridlane.authorization.v1.AuthorizationService",
    "WhoAmI",
    authorization.WhoAmIRequest,
    authorization.WhoAmIResponse,
)
PING = Method("gridlane.gateway.v1.TaskService", "Ping", gateway.PingRequest, gateway.PingResponse)


async def who_am_i(calls: Calls, timeout: Timeout) -> authorization.WhoAmIResponse:
    """See `Client.whoami`."""
    return await calls.unary(WHO_AM_I, authorization.WhoAmIRequest(), timeout)


async def ping(calls: Calls, timeout: Timeout) -> gateway.PingResponse:
    """See `Client.ping`."""
    return await calls.unary(PING, gateway.PingRequest(), timeout)
