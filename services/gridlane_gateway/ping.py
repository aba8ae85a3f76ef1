"""How every service and every backend behind it is.

Responsible for asking all at once, each within its time, and for telling silence from refusal.
"""

import asyncio
import time
from collections.abc import Awaitable, Mapping

import grpc

from gridlane.authorization.v1 import authorization_service_pb2
from gridlane.reporting.v1 import accounting_service_pb2
from gridlane.transfer.v1 import storage_service_pb2
from gridlane.type.v1 import status_pb2
from gridlane.workload.v1 import job_service_pb2
from gridlane_gateway.peers import GatewayPeers, within
from gridlane_kit.call import Caller
from gridlane_kit.errors import GridlaneError

_REFUSED = frozenset({grpc.StatusCode.PERMISSION_DENIED})
_NOT_KNOWN = frozenset({grpc.StatusCode.UNAUTHENTICATED})


async def ping(
    peers: GatewayPeers, caller: Caller, timeout_s: float
) -> list[status_pb2.ServiceStatus]:
    """Asks each service how it is.

    Parameters:
        timeout_s: seconds after which a service counts as not reachable.

    Returns:
        One status for each service, in the order authorization, transfer, workload, reporting.
    """
    limited = within(caller, timeout_s)
    asked: Mapping[str, Awaitable[status_pb2.ServiceStatus]] = {
        "authorization": peers.authorization(limited).GetAuthorizationStatus(
            authorization_service_pb2.GetAuthorizationStatusRequest()
        ),
        "transfer": peers.storage(limited).GetTransferStatus(
            storage_service_pb2.GetTransferStatusRequest()
        ),
        "workload": peers.jobs(limited).GetWorkloadStatus(
            job_service_pb2.GetWorkloadStatusRequest()
        ),
        "reporting": peers.accounting(limited).GetReportingStatus(
            accounting_service_pb2.GetReportingStatusRequest()
        ),
    }
    return await asyncio.gather(
        *(_status(service, answer, timeout_s) for service, answer in asked.items())
    )


async def _status(
    service: str, answer: Awaitable[status_pb2.ServiceStatus], timeout_s: float
) -> status_pb2.ServiceStatus:
    started = time.monotonic()
    try:
        async with asyncio.timeout(timeout_s):
            status = await answer
    except TimeoutError:
        status = status_pb2.ServiceStatus(message=f"no answer within {timeout_s:g} s")
    except GridlaneError as error:
        known = error.code not in _NOT_KNOWN
        status = status_pb2.ServiceStatus(
            reachable=error.code in _REFUSED | _NOT_KNOWN,
            authenticated=known and error.code in _REFUSED,
            message=error.message,
        )
    status.service = service
    status.latency.FromNanoseconds(int((time.monotonic() - started) * 1e9))
    return status
