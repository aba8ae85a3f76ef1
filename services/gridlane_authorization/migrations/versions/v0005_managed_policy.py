"""Names of role bindings, groups, the audit, request ids; what people say of VOs.

Revision 0005, after 0004. Expand only: what an older version of the service reads stays, and what
it writes is completed at the next start.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_LISTED = {
    "role_binding": (
        ("subject", "uid"),
        ("issuer", "subject", "uid"),
        ("role", "uid"),
        ("vo", "uid"),
        ("vo", "role", "uid"),
        ("channel_uid", "uid"),
        ("expires_us",),
    ),
    "audit_entry": (
        ("actor", "uid"),
        ("resource", "uid"),
        ("vo", "uid"),
        ("method", "uid"),
    ),
}


def upgrade() -> None:
    for column in (
        sa.Column("uid", sa.String(length=36), nullable=True),
        sa.Column("revision", sa.BigInteger(), nullable=True),
        sa.Column("reason", sa.String(length=1024), nullable=True),
        sa.Column("creator", sa.Text(), nullable=True),
    ):
        op.add_column("role_binding", column)
    for column in (
        sa.Column("description", sa.String(length=1024), nullable=True),
        sa.Column("contact", sa.String(length=255), nullable=True),
        sa.Column("update_time_us", sa.BigInteger(), nullable=True),
        sa.Column("revision", sa.BigInteger(), nullable=True),
    ):
        op.add_column("vo", column)
    op.create_index(op.f("ix_role_binding_uid"), "role_binding", ["uid"], unique=True)
    _create_groups()
    _create_audit()
    _create_request_ids()
    for table, listed in _LISTED.items():
        for columns in listed:
            op.create_index(op.f(f"ix_{table}_{'_'.join(columns)}"), table, list(columns))


def _create_groups() -> None:
    op.create_table(
        "vo_group",
        sa.Column("vo", sa.String(length=64), nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("path", sa.String(length=255), nullable=False),
        sa.Column("description", sa.String(length=1024), nullable=False),
        sa.Column("dirac_group", sa.String(length=64), nullable=False),
        sa.Column("create_time_us", sa.BigInteger(), nullable=False),
        sa.Column("update_time_us", sa.BigInteger(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("vo", "id", name=op.f("pk_vo_group")),
        sa.UniqueConstraint("path", name=op.f("uq_vo_group_path")),
    )


def _create_audit() -> None:
    op.create_table(
        "audit_entry",
        sa.Column("uid", sa.String(length=36), nullable=False),
        sa.Column("time_us", sa.BigInteger(), nullable=False),
        sa.Column("principal", sa.Text(), nullable=False),
        sa.Column("actor", sa.String(length=255), nullable=False),
        sa.Column("service", sa.String(length=32), nullable=False),
        sa.Column("method", sa.String(length=200), nullable=False),
        sa.Column("resource", sa.String(length=255), nullable=False),
        sa.Column("vo", sa.String(length=64), nullable=False),
        sa.Column("reason", sa.String(length=1024), nullable=False),
        sa.Column("permission", sa.String(length=64), nullable=False),
        sa.Column("rule", sa.String(length=64), nullable=False),
        sa.Column("status", sa.LargeBinary(), nullable=True),
        sa.Column("before_json", sa.Text(), nullable=True),
        sa.Column("after_json", sa.Text(), nullable=True),
        sa.Column("policy_revision", sa.BigInteger(), nullable=False),
        sa.Column("trace_id", sa.String(length=32), nullable=False),
        sa.Column("peer", sa.String(length=128), nullable=False),
        sa.PrimaryKeyConstraint("uid", name=op.f("pk_audit_entry")),
    )


def _create_request_ids() -> None:
    op.create_table(
        "request_id",
        sa.Column("request_id", sa.String(length=36), nullable=False),
        sa.Column("owner", sa.String(length=512), nullable=False),
        sa.Column("method", sa.String(length=200), nullable=False),
        sa.Column("digest", sa.String(length=200), nullable=False),
        sa.Column("resource", sa.String(length=512), nullable=False),
        sa.PrimaryKeyConstraint("request_id", "owner", "method", name=op.f("pk_request_id")),
        sqlite_with_rowid=False,
    )
