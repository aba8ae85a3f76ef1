"""Who changed what, when and why: `client.audit`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from datetime import datetime
from typing import Any, Final, Literal

from gridlane.authorization.v1 import audit_service_pb2 as rpc
from gridlane.authorization.v1.audit_entry_pb2 import AuditEntry
from gridlane.calls import Timeout
from gridlane.modes import Mode, stream, verb
from gridlane.names import audit_entry_name
from gridlane.nouns.noun import ClientNoun, equals, timestamp
from gridlane.transfer.v1 import audit_service_pb2 as transfer_rpc
from gridlane.transport import Method
from gridlane.type.v1.time_window_pb2 import TimeWindow

_SERVICE = "gridlane.authorization.v1.AuditService"
GET = Method(_SERVICE, "GetAuditEntry", rpc.GetAuditEntryRequest, AuditEntry)
LIST = Method(
    _SERVICE, "ListAuditEntries", rpc.ListAuditEntriesRequest, rpc.ListAuditEntriesResponse
)
_TRANSFER_SERVICE = "gridlane.transfer.v1.TransferAuditService"
TRANSFER_GET = Method(
    _TRANSFER_SERVICE, "GetAuditEntry", transfer_rpc.GetAuditEntryRequest, AuditEntry
)
TRANSFER_LIST = Method(
    _TRANSFER_SERVICE,
    "ListAuditEntries",
    transfer_rpc.ListAuditEntriesRequest,
    transfer_rpc.ListAuditEntriesResponse,
)

#: The services that keep an audit: of the policy, and of channels, storage and transfers.
AuditedService = Literal["authorization", "transfer"]
# The requests of both have the same fields.
_GET: Final[Mapping[AuditedService, Method[Any, AuditEntry]]] = {
    "authorization": GET,
    "transfer": TRANSFER_GET,
}
_LIST: Final[Mapping[AuditedService, Method[Any, Any]]] = {
    "authorization": LIST,
    "transfer": TRANSFER_LIST,
}


class Audit(ClientNoun[Mode]):
    """The audits of the services: administrators see all of them, the managers of a VO what
    concerns that.
    """

    @verb
    async def get(
        self, name: str, *, service: AuditedService = "authorization", timeout: Timeout = None
    ) -> AuditEntry:
        """One entry.

        Parameters:
            name: "auditEntries/<uuid>" or the bare id.
            service: in whose audit.
            timeout: see the package.

        Raises:
            NotFound: there is none that the caller may see, or it is not kept any more.
        """
        method = _GET[service]
        request = method.request(name=audit_entry_name(name))
        return await self._calls.unary(method, request, timeout)

    @stream
    def list(
        self,
        *,
        service: AuditedService = "authorization",
        actor: str | None = None,
        resource: str | None = None,
        vo: str | None = None,
        method: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int | None = None,
        timeout: Timeout = None,
    ) -> AsyncGenerator[AuditEntry]:
        """The entries that the caller may see, newest first.

        Parameters:
            service: in whose audit.
            actor, resource, vo, method: only those of this subject, on this resource, of this VO,
                by this method ("gridlane.authorization.v1.RoleService/CreateRoleBinding"); one of
                them.
            since, until: only those written from, and before, these times, with a time zone.
            limit: at most this many; None for all.
            timeout: for each page of 1000.

        Raises:
            InvalidArgument: more than one of the filters is given.
            ValueError: a time has no time zone.
        """
        filtered = equals(actor=actor, resource=resource, vo=vo, method=method)
        window = TimeWindow(start_time=timestamp(since), end_time=timestamp(until))
        listing = _LIST[service]
        request = listing.request(filter=filtered, window=window)
        return self._listed(listing, request, lambda page: page.audit_entries, limit, timeout)
