"""Who changed the policy, when and why: `client.audit`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import datetime

from gridlane.authorization.v1 import audit_service_pb2 as rpc
from gridlane.authorization.v1.audit_entry_pb2 import AuditEntry
from gridlane.calls import Timeout
from gridlane.modes import Mode, stream, verb
from gridlane.names import audit_entry_name
from gridlane.nouns.noun import ClientNoun, equals, timestamp
from gridlane.transport import Method
from gridlane.type.v1.time_window_pb2 import TimeWindow

_SERVICE = "gridlane.authorization.v1.AuditService"
GET = Method(_SERVICE, "GetAuditEntry", rpc.GetAuditEntryRequest, AuditEntry)
LIST = Method(
    _SERVICE, "ListAuditEntries", rpc.ListAuditEntriesRequest, rpc.ListAuditEntriesResponse
)


class Audit(ClientNoun[Mode]):
    """The audit: administrators see all of it, the managers of a VO what concerns that."""

    @verb
    async def get(self, name: str, *, timeout: Timeout = None) -> AuditEntry:
        """One entry.

        Parameters:
            name: "auditEntries/<uuid>" or the bare id.
            timeout: see the package.

        Raises:
            NotFound: there is none that the caller may see, or it is not kept any more.
        """
        request = rpc.GetAuditEntryRequest(name=audit_entry_name(name))
        return await self._calls.unary(GET, request, timeout)

    @stream
    def list(
        self,
        *,
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
        request = rpc.ListAuditEntriesRequest(filter=filtered, window=window)
        return self._listed(LIST, request, lambda page: page.audit_entries, limit, timeout)
