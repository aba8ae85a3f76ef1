"""The tables of Authorization. Responsible for columns and indexes; every listing's index says
whose it is.

Times are microseconds since 1970-01-01 UTC, ids UUIDv7 text: in the order of time. What was written
by a version from before the columns that may be null is completed at the next start
(`policy.open_policy`).
"""

from pathlib import Path
from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from gridlane_kit.audit import audit_table
from gridlane_kit.database import Micros, Text36, service_metadata
from gridlane_kit.request_ids import request_id_table

METADATA: Final = service_metadata()
MIGRATIONS: Final = Path(__file__).parents[1] / "migrations"
REQUEST_ID: Final = request_id_table(METADATA)
THE_ROW: Final = 1
"""The id of the only row of `STATE` and `LOCAL_USER`."""


def _listed(table: str, *columns: str, unique: bool = False) -> Index:
    """The index of a listing, or of a look-up."""
    return Index(f"ix_{table}_{'_'.join(columns)}", *columns, unique=unique)


# A group's binding has no issuer, which every identity has, and the group for its subject.
ROLE_BINDING: Final = Table(
    "role_binding",
    METADATA,
    Column("issuer", String(255), primary_key=True),
    Column("subject", String(255), primary_key=True),
    Column("role", String(32), primary_key=True),
    Column("vo", String(64), primary_key=True),
    Column("channel_uid", String(36), primary_key=True),
    Column("expires_us", Micros, nullable=True),
    Column("create_time_us", Micros, nullable=False),
    # What a veto does to work; null for other roles, and for the contract's defaults.
    Column("queued_work", String(8)),
    Column("running_work", String(8)),
    Column("uid", Text36, nullable=True),
    # Of the policy; when it was made or changed last.
    Column("revision", BigInteger, nullable=True),
    Column("reason", String(1024), nullable=True),
    # The stored principal; null for one that the server made.
    Column("creator", Text, nullable=True),
    _listed("role_binding", "uid", unique=True),
    # ListRoleBindings, by each of its filters and for each reach of a caller.
    _listed("role_binding", "subject", "uid"),
    _listed("role_binding", "issuer", "subject", "uid"),
    _listed("role_binding", "role", "uid"),
    _listed("role_binding", "vo", "uid"),
    _listed("role_binding", "vo", "role", "uid"),
    _listed("role_binding", "channel_uid", "uid"),
    # What is past its end.
    _listed("role_binding", "expires_us"),
)

VO: Final = Table(
    "vo",
    METADATA,
    Column("name", String(64), primary_key=True),
    Column("create_time_us", Micros, nullable=False),
    Column("description", String(1024), nullable=True),
    Column("contact", String(255), nullable=True),
    Column("update_time_us", Micros, nullable=True),
    Column("revision", BigInteger, nullable=True),
)

GROUP: Final = Table(
    "vo_group",
    METADATA,
    Column("vo", String(64), primary_key=True),
    Column("id", String(64), primary_key=True),
    Column("path", String(255), nullable=False),
    Column("description", String(1024), nullable=False),
    Column("dirac_group", String(64), nullable=False),
    Column("create_time_us", Micros, nullable=False),
    Column("update_time_us", Micros, nullable=False),
    Column("revision", BigInteger, nullable=False),
    UniqueConstraint("path"),
)

# Issuers that policy has: those of the settings, and Gridlane's own, have no row.
ISSUER: Final = Table(
    "issuer",
    METADATA,
    # Without "issuers/".
    Column("id", String(64), primary_key=True),
    Column("url", String(255), nullable=False),
    Column("vo", String(64), nullable=False),
    # Lists of texts, as JSON.
    Column("audiences", Text, nullable=False),
    Column("algorithms", Text, nullable=False),
    Column("jwks_uri", String(1024), nullable=False),
    Column("jwks", Text, nullable=False),
    Column("enabled", Boolean, nullable=False),
    # Null: the contract's default.
    Column("max_group_age_us", BigInteger, nullable=True),
    Column("max_token_lifetime_us", BigInteger, nullable=True),
    Column("description", String(1024), nullable=False),
    Column("create_time_us", Micros, nullable=False),
    Column("update_time_us", Micros, nullable=False),
    Column("revision", BigInteger, nullable=False),
    UniqueConstraint("url"),
    # ListIssuers by its filter; what names a VO that is to be deleted.
    _listed("issuer", "vo", "id"),
)

# ListAuditEntries, by each of its filters; in a VO for its managers.
AUDIT: Final = audit_table(METADATA, vo_length=64, of_policy=True)

# Tokens signed for users at their request, never the tokens themselves.
USER_TOKEN: Final = Table(
    "user_token",
    METADATA,
    # A UUIDv7: in the order of time.
    Column("jti", Text36, primary_key=True),
    # `issuer|subject`, and the subject to be found by.
    Column("owner", String(512), nullable=False),
    Column("subject", String(255), nullable=False),
    # The stored principals: whom it proves, and who asked for it.
    Column("principal", Text, nullable=False),
    Column("creator", Text, nullable=False),
    Column("audience", String(255), nullable=False),
    Column("create_time_us", Micros, nullable=False),
    Column("expires_us", Micros, nullable=False),
    Column("revoke_time_us", Micros, nullable=True),
    Column("reason", String(1024), nullable=False),
    # `jti` of the token that it was exchanged for, which may be another issuer's; or empty.
    Column("exchanged_for", String(255), nullable=False),
    # ListTokens: one's own, and by its filter.
    _listed("user_token", "owner", "jti"),
    _listed("user_token", "subject", "jti"),
    # What ends with a token.
    _listed("user_token", "exchanged_for"),
    # What is past its end, and what is revoked and not.
    _listed("user_token", "expires_us"),
    _listed("user_token", "revoke_time_us"),
)

# Keys that sign tokens, their public halves: the truth about their lives. One at a time is ACTIVE.
SIGNING_KEY: Final = Table(
    "signing_key",
    METADATA,
    # A UUIDv7: in the order in which they came to be known. ListSigningKeys reads by it.
    Column("uid", Text36, primary_key=True),
    Column("kid", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    # A JWK, as JSON.
    Column("public_jwk", Text, nullable=False),
    Column("create_time_us", Micros, nullable=False),
    # When it begins to sign, or began.
    Column("activate_time_us", Micros, nullable=False),
    Column("retire_time_us", Micros, nullable=True),
    # When nobody needs it any more; null while it signs, and before.
    Column("expires_us", Micros, nullable=True),
    UniqueConstraint("kid"),
)

# One row: the revision grows with every change of the policy. The epoch is the database's: one
# that is restored from a copy needs another, or followers take new revisions for old ones.
STATE: Final = Table(
    "policy_state",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("revision", BigInteger, nullable=False),
    Column("epoch", Text36, nullable=True),
    Column("jobs_vo_readable", Boolean, nullable=True),
)

# What each of the last revisions changed, as the contract's PolicyChange.
CHANGE: Final = Table(
    "policy_change",
    METADATA,
    Column("revision", BigInteger, primary_key=True, autoincrement=False),
    Column("time_us", Micros, nullable=False),
    Column("payload", LargeBinary, nullable=False),
)

# One row: the user that the first start of an embedded server made.
LOCAL_USER: Final = Table(
    "local_user",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("issuer", String(255), nullable=False),
    Column("subject", String(255), nullable=False),
    Column("vo", String(64), nullable=False),
    UniqueConstraint("issuer", "subject"),
)
