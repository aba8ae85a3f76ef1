"""Channels with shares and limits, held files, queues by VO and activity.

Revision 0007, after 0006. Expand only: what an older version of the service reads stays. Files that
it writes have no queue, and wait as those of a VO without a name.
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_BY_CODE_POINT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def _text(name: str, kind: sa.types.TypeEngine[str]) -> sa.Column[str]:
    return sa.Column(name, kind, nullable=False, server_default=sa.text("''"))


def _number(name: str, kind: type[sa.Integer] = sa.Integer) -> sa.Column[int]:
    return sa.Column(name, kind(), nullable=False, server_default="0")


def upgrade() -> None:
    for column in (
        sa.Column("vo_shares", sa.Text(), nullable=False, server_default="{}"),
        _number("max_streams"),
        _number("max_bandwidth", sa.BigInteger),
        _number("nominal_throughput", sa.BigInteger),
        _text("contact", sa.String(length=255)),
        _text("description", sa.String(length=1024)),
        sa.Column("default_max_retries", sa.Integer(), nullable=True),
        sa.Column("default_retry_delay_us", sa.BigInteger(), nullable=True),
        _number("optimizer_mode"),
        _number("optimizer_min"),
        _number("optimizer_max"),
        _number("update_us", sa.BigInteger),
        _number("revision", sa.BigInteger),
        sa.Column("delete_us", sa.BigInteger(), nullable=True),
    ):
        op.add_column("channel", column)
    op.execute("UPDATE channel SET update_us = create_us, revision = 1")
    _new_tables()
    op.add_column("file_transfer", _text("queue", _BY_CODE_POINT))
    op.add_column("file_transfer", sa.Column("held_us", sa.BigInteger(), nullable=True))
    op.execute(
        "UPDATE file_transfer SET queue = (SELECT vo FROM transfer_job"
        " WHERE transfer_job.number = file_transfer.job_number) || '/'"
        " WHERE state NOT IN (14, 15, 16, 17)"
    )
    op.drop_index("ix_file_transfer_due", "file_transfer")
    due, held = sa.text("state IN (2, 9)"), sa.text("held_us IS NOT NULL")
    for name, columns, where in (
        ("ix_file_transfer_due", ["channel_uid", "queue", "rank", "number"], due),
        ("ix_file_transfer_held", ["channel_uid", "held_us", "number"], held),
    ):
        op.create_index(name, "file_transfer", columns, sqlite_where=where, postgresql_where=where)


def _new_tables() -> None:
    op.create_table(
        "channel_optimizer",
        sa.Column("channel_uid", sa.String(length=36), nullable=False),
        sa.Column("allowed_files", sa.Integer(), nullable=False),
        _number("bytes_per_second", sa.BigInteger),
        sa.Column("decide_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("channel_uid", name=op.f("pk_channel_optimizer")),
    )
    op.create_table(
        "activity_shares",
        sa.Column("vo", sa.String(length=200), nullable=False),
        sa.Column("weights", sa.Text(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("update_us", sa.BigInteger(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("vo", name=op.f("pk_activity_shares")),
    )
