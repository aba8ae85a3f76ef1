"""The audit of a service: who changed what, when, and why.

Responsible for the table, and for rows that are written in the transaction of the change and never
changed afterwards; `prune` deletes the old ones. Who reads them is `audit_reading`'s, which calls
leave an entry each service's. A call's entry is made with the call and stored by its write:
`audit.append(conn, AUDIT, [audit.entry(call, …)])`.
"""

import json
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Index,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    delete,
    select,
)

from gridlane.ids import uuid7, uuid7_floor
from gridlane_kit.call import Call
from gridlane_kit.clock import now_us
from gridlane_kit.database import Micros, Text36, insert_values
from gridlane_kit.gridlane_error import GridlaneError

FILTERED: Final = ("actor", "resource", "vo", "method")
"""What entries are found by, each along an index."""
_LONGEST_REASON: Final = 1024
_LONGEST_PEER: Final = 128
# Of a resource; one entry fits into an answer whatever it is about.
_LONGEST_JSON: Final = 512 * 1024
_LONGEST_FIELD: Final = 8 * 1024


class AuditEntry(NamedTuple):
    """A row; its columns are the fields of `gridlane.authorization.v1.AuditEntry`.

    Parameters:
        principal: the stored principal, `actor` its subject.
        status: google.rpc.Status of an attempt that was refused.
        policy_revision: of the policy, when that is what was changed.
    """

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
    status: bytes | None = None
    policy_revision: int = 0


def audit_table(metadata: MetaData, *, vo_length: int, of_policy: bool = False) -> Table:
    """Declare the table.

    Parameters:
        vo_length: characters of the longest VO.
        of_policy: changes of the policy are kept, which have revisions, and attempts that were
            refused.
    """
    columns: list[Column[Any]] = [
        Column("uid", Text36, primary_key=True),
        Column("time_us", Micros, nullable=False),
        Column("principal", Text, nullable=False),
        Column("actor", String(255), nullable=False),
        Column("service", String(32), nullable=False),
        Column("method", String(200), nullable=False),
        Column("resource", String(255), nullable=False),
        Column("vo", String(vo_length), nullable=False),
        Column("reason", String(_LONGEST_REASON), nullable=False),
        Column("permission", String(64), nullable=False),
        Column("rule", String(64), nullable=False),
        Column("before_json", Text, nullable=True),
        Column("after_json", Text, nullable=True),
        Column("trace_id", String(32), nullable=False),
        Column("peer", String(_LONGEST_PEER), nullable=False),
    ]
    if of_policy:
        columns += [
            Column("status", LargeBinary, nullable=True),
            Column("policy_revision", BigInteger, nullable=False),
        ]
    table = Table("audit_entry", metadata, *columns)
    for name in FILTERED:
        Index(None, table.c[name], table.c.uid)
    return table


def entry(
    call: Call,
    *,
    resource: str,
    vo: str = "",
    reason: str = "",
    before: Message | None = None,
    after: Message | None = None,
    time_us: int | None = None,
    refused: GridlaneError | None = None,
    policy_revision: int = 0,
) -> AuditEntry:
    """What is kept of a call.

    Parameters:
        resource: the name of what is changed; `vo` the virtual organisation concerned, if it is
            one's.
        reason: the caller's words.
        before, after: the resource; None for one that is made or deleted, or whose change the
            method says already.
        time_us: when, microseconds since 1970-01-01 UTC; None: now.
        refused: why, where it was not done.
        policy_revision: of the policy, that it led to.
    """
    return AuditEntry(
        uid=uuid7(),
        time_us=now_us() if time_us is None else time_us,
        principal=call.principal.to_json(),
        actor=call.principal.subject,
        service=call.principal.actor or "",
        method=call.method,
        resource=resource,
        vo=vo,
        reason=reason.replace("\0", " ")[:_LONGEST_REASON],
        permission=call.decision.permission,
        rule=call.decision.rule,
        before_json=as_json(before),
        after_json=as_json(after),
        trace_id=call.trace.trace_id_hex,
        peer=call.peer()[:_LONGEST_PEER],
        status=None if refused is None else refused.to_status().SerializeToString(),
        policy_revision=policy_revision,
    )


def append(conn: Connection, table: Table, entries: Sequence[AuditEntry]) -> None:
    """Write entries: of each what the table has."""
    kept = tuple(name for name in AuditEntry._fields if name in table.c)
    insert_values(conn, table, kept, [entry[: len(kept)] for entry in entries])


def about_files(call: AuditEntry, names: Sequence[str]) -> AuditEntry:
    """An entry of its own, of the same call, that names files.

    Parameters:
        names: of those that were changed; as many as one transaction changes.
    """
    told = _dumped({"files": list(names)})
    return call._replace(uid=uuid7(), time_us=now_us(), after_json=told)


def prune(conn: Connection, table: Table, before_us: int, limit: int) -> int:
    """Delete the oldest entries that were written before a time; how many, at most `limit`."""
    old = (
        select(table.c.uid)
        .where(table.c.uid < uuid7_floor(max(0, before_us // 1000)))
        .order_by(table.c.uid)
        .limit(limit)
    )
    return conn.execute(delete(table).where(table.c.uid.in_(old))).rowcount


def as_json(message: Message | None) -> str | None:
    """A resource as it is kept: JSON with the field names of its message, of a very large one
    without its large fields; None of none.
    """
    if message is None:
        return None
    fields = MessageToDict(message, preserving_proto_field_name=True)
    text = _dumped(fields)
    if len(text) <= _LONGEST_JSON:
        return text
    return _dumped(
        {name: value for name, value in fields.items() if len(_dumped(value)) <= _LONGEST_FIELD}
    )


def _dumped(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
