"""What submissions ask for of their files.

Revision 0009, after 0008. Expand only: an older version of the service does not do what these
columns say, and writes none.
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in ("transfer_job", "file_transfer"):
        op.add_column(table, sa.Column("activity", sa.String(length=255), nullable=True))
        op.add_column(table, sa.Column("metadata", sa.Text(), nullable=True))
    op.add_column("transfer_job", sa.Column("expire_us", sa.BigInteger(), nullable=True))
    op.add_column("transfer_job", sa.Column("options", sa.Text(), nullable=True))
    op.add_column("file_transfer", sa.Column("scitag", sa.Integer(), nullable=True))
    op.add_column("file_transfer", sa.Column("guid", sa.String(length=36), nullable=True))
    op.add_column("file_transfer", sa.Column("queue_until_us", sa.BigInteger(), nullable=True))
    op.add_column("file_transfer", sa.Column("alternatives", sa.Text(), nullable=True))
    op.add_column("file_transfer", sa.Column("route", sa.Text(), nullable=True))
    hop = sa.Column("hop", sa.Integer(), server_default="0", nullable=False)
    op.add_column("file_transfer", hop)
    op.add_column("file_transfer", sa.Column("target_report", sa.LargeBinary(), nullable=True))
    expires = sa.text("expire_us IS NOT NULL AND end_us IS NULL")
    op.create_index(
        op.f("ix_transfer_job_expire_us"),
        "transfer_job",
        ["expire_us"],
        sqlite_where=expires,
        postgresql_where=expires,
    )
    in_queue = sa.text("queue_until_us IS NOT NULL")
    op.create_index(
        op.f("ix_file_transfer_queue_until_us"),
        "file_transfer",
        ["queue_until_us"],
        sqlite_where=in_queue,
        postgresql_where=in_queue,
    )
    op.create_table(
        "leftover",
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("tries", sa.Integer(), server_default="0", nullable=False),
        sa.Column("due_us", sa.BigInteger(), nullable=False),
        sa.Column("lease_holder", sa.String(length=200), nullable=True),
        sa.Column("lease_epoch", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("lease_until_us", sa.BigInteger(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("url", name=op.f("pk_leftover")),
    )
    op.create_index(op.f("ix_leftover_due_us"), "leftover", ["due_us"])
