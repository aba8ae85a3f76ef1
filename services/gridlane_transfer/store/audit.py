"""The audit of managers' verbs: who changed what of another's, when, and why.

Responsible for rows that are written in the transaction of the change and never changed afterwards;
`retention` deletes the old ones. Every verb whose request has a `reason` that is kept in the audit
appends here, in the function that its write runs: `audit.append(conn, [audit.entry(call, …)])`.
The columns are those of `gridlane.authorization.v1.AuditEntry`.
"""

import json
from collections.abc import Sequence
from typing import Final, NamedTuple

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from sqlalchemy import Connection, delete, select

from gridlane.ids import uuid7, uuid7_floor
from gridlane_kit.call import Call
from gridlane_kit.clock import now_us
from gridlane_kit.database import insert_values
from gridlane_transfer.store.tables import AUDIT

_LONGEST_REASON: Final = 1024
_LONGEST_PEER: Final = 128


class AuditEntry(NamedTuple):
    """A row of `audit_entry`."""

    uid: str
    time_us: int
    principal: str
    actor: str
    service: str
    method: str
    resource: str
    vo: str
    reason: str
    permission: str
    rule: str
    before_json: str | None
    after_json: str | None
    trace_id: str
    peer: str


def entry(
    call: Call,
    *,
    resource: str,
    vo: str = "",
    reason: str = "",
    before: Message | None = None,
    after: Message | None = None,
) -> AuditEntry:
    """What is kept of a call.

    Parameters:
        resource: the name of what is changed; `vo` the virtual organisation concerned, if it is
            one's.
        reason: the caller's words.
        before, after: the resource; None for one that is made or deleted, or whose change the
            method says already.
    """
    return AuditEntry(
        uid=uuid7(),
        time_us=now_us(),
        principal=call.principal.to_json(),
        actor=call.principal.subject,
        service=call.principal.actor or "",
        method=call.method,
        resource=resource,
        vo=vo,
        reason=reason.replace("\0", " ")[:_LONGEST_REASON],
        permission=call.decision.permission,
        rule=call.decision.rule,
        before_json=_as_json(before),
        after_json=_as_json(after),
        trace_id=call.trace.trace_id_hex,
        peer=call.peer()[:_LONGEST_PEER],
    )


def append(conn: Connection, entries: Sequence[AuditEntry]) -> None:
    """Write entries."""
    insert_values(conn, AUDIT, AuditEntry._fields, entries)


def prune(conn: Connection, before_us: int, limit: int) -> int:
    """Delete the oldest entries that were written before a time; how many, at most `limit`."""
    old = (
        select(AUDIT.c.uid)
        .where(AUDIT.c.uid < uuid7_floor(max(0, before_us // 1000)))
        .order_by(AUDIT.c.uid)
        .limit(limit)
    )
    return conn.execute(delete(AUDIT).where(AUDIT.c.uid.in_(old))).rowcount


def _as_json(message: Message | None) -> str | None:
    if message is None:
        return None
    fields = MessageToDict(message, preserving_proto_field_name=True)
    return json.dumps(fields, sort_keys=True, separators=(",", ":"))
