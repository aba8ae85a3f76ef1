"""The audit as its readers see it: the rules of `AuditService`."""

from typing import Final

from gridlane.authorization.v1 import audit_entry_pb2, audit_service_pb2
from gridlane.type.v1 import time_window_pb2
from gridlane_authorization import messages
from gridlane_authorization.store import audit
from gridlane_authorization.store.audit import NEWEST_FIRST, Window
from gridlane_kit import errors
from gridlane_kit.call import Call
from gridlane_kit.clock import given_us
from gridlane_kit.database import Database
from gridlane_kit.filters import Field, FilterRules
from gridlane_kit.pages import page_request

FILTER: Final = FilterRules(
    {name: Field(str) for name in ("actor", "resource", "vo", "method")},
    combinations=[["actor"], ["resource"], ["vo"], ["method"]],
)


class Audits:
    """Shows who changed what."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def get(
        self, request: audit_service_pb2.GetAuditEntryRequest, call: Call
    ) -> audit_entry_pb2.AuditEntry:
        """Shows one entry.

        Raises:
            GridlaneError: NOT_FOUND.
        """
        uid = request.name.removeprefix("auditEntries/")
        found = await self._db.read(lambda conn: audit.visible(conn, uid, call.visibility))
        if found is None:
            raise errors.not_found(request.name)
        return messages.audit_entry(found)

    async def list(
        self, request: audit_service_pb2.ListAuditEntriesRequest, call: Call
    ) -> audit_service_pb2.ListAuditEntriesResponse:
        """Lists the entries that the caller may see.

        Raises:
            GridlaneError: FILTER_UNSUPPORTED, TOKEN_NOT_OURS.
        """
        asked = FILTER.parse(request.filter)
        window = _window(request.window)
        page = page_request(
            NEWEST_FIRST,
            page_size=request.page_size,
            page_token=request.page_token,
            binding=(call.method, asked.canonical, repr(window), call.principal.owner),
        )
        rows, token = await self._db.read(
            lambda conn: audit.page(conn, call.visibility, asked, window, page)
        )
        return audit_service_pb2.ListAuditEntriesResponse(
            audit_entries=map(messages.audit_entry, rows), next_page_token=token
        )


def _window(given: time_window_pb2.TimeWindow) -> Window:
    return Window(given_us(given, "start_time"), given_us(given, "end_time"))
