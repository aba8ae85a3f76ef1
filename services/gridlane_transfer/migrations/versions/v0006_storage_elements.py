"""Storage elements, and bans of them.

Revision 0006, after 0005. Expand only: an older version of the service knows the configured storage
elements alone.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    revisions = op.create_table(
        "settings_revision",
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("kind", name=op.f("pk_settings_revision")),
    )
    op.bulk_insert(
        revisions,
        [{"kind": "storage_elements", "revision": 0}, {"kind": "channels", "revision": 0}],
    )
    op.create_table(
        "storage_element",
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("settings", sa.LargeBinary(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("create_us", sa.BigInteger(), nullable=False),
        sa.Column("update_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_storage_element")),
    )
    op.create_table(
        "storage_ban",
        sa.Column("uid", sa.String(length=36), nullable=False),
        sa.Column("storage_element", sa.String(length=80), nullable=False),
        sa.Column("operations", sa.String(length=64), nullable=False),
        sa.Column("vo", sa.String(length=200), nullable=False),
        sa.Column("action", sa.Integer(), nullable=False),
        sa.Column("wait_timeout_us", sa.BigInteger(), nullable=True),
        sa.Column("accept_submissions", sa.Boolean(), nullable=False),
        sa.Column("expires_us", sa.BigInteger(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("creator", sa.Text(), nullable=False),
        sa.Column("create_us", sa.BigInteger(), nullable=False),
        sa.Column("affected_files", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("uid", name=op.f("pk_storage_ban")),
    )
    op.create_index(
        op.f("ix_storage_ban_storage_element_uid"), "storage_ban", ["storage_element", "uid"]
    )
    op.create_index(op.f("ix_replica_storage_element"), "replica", ["storage_element"])
    # Every state but FINISHED, CATALOG_FAILED, FAILED and CANCELED.
    unfinished = sa.text("state BETWEEN 1 AND 13 OR state = 18")
    for end in ("source", "target"):
        op.create_index(
            f"ix_file_transfer_at_{end}",
            "file_transfer",
            [f"{end}_element", "number"],
            sqlite_where=unfinished,
            postgresql_where=unfinished,
        )
    blocked = sa.text("state IN (7)")
    op.create_index(
        "ix_file_transfer_blocked",
        "file_transfer",
        ["due_us", "number"],
        sqlite_where=blocked,
        postgresql_where=blocked,
    )
