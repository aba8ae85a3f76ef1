"""Attempts of files, jobs that come in as streams, the audit, and what verbs on jobs read.

Revision 0008, after 0007. Expand only: what an older version of the service reads stays, and what
it writes has no attempts, sizes or classes of failures.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for column in (
        sa.Column("kind", sa.Integer(), server_default="1", nullable=False),
        sa.Column("revision", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("retry_of", sa.String(length=36), nullable=True),
        sa.Column("total_bytes", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("moved_bytes", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("start_us", sa.BigInteger(), nullable=True),
        sa.Column("cancel_failure", sa.LargeBinary(), nullable=True),
    ):
        op.add_column("transfer_job", column)
    counted = ["state", "counts", "total_bytes", "moved_bytes", "create_us", "end_us"]
    ended = sa.text("end_us IS NOT NULL")
    for name, columns in (
        ("ix_transfer_job_counted_owner", ["owner", *counted]),
        ("ix_transfer_job_counted_vo", ["vo", *counted, "owner"]),
    ):
        op.create_index(name, "transfer_job", columns, sqlite_where=ended, postgresql_where=ended)
    op.add_column("file_transfer", sa.Column("failure_class", sa.Integer(), nullable=True))
    op.create_index(
        op.f("ix_file_transfer_job_number_state_n"),
        "file_transfer",
        ["job_number", "state", "n"],
    )
    op.create_table(
        "file_attempt",
        sa.Column("file_number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("attempt", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("hop", sa.Integer(), server_default="0", nullable=False),
        sa.Column("channel_uid", sa.String(length=36), nullable=False),
        sa.Column("source_url", sa.Text(), nullable=False),
        sa.Column("target_url", sa.Text(), nullable=False),
        sa.Column("source_element", sa.String(length=80), nullable=False),
        sa.Column("target_element", sa.String(length=80), nullable=False),
        sa.Column("start_us", sa.BigInteger(), nullable=False),
        sa.Column("end_us", sa.BigInteger(), nullable=True),
        sa.Column("transferred_bytes", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("outcome", sa.Integer(), nullable=False),
        sa.Column("failure", sa.LargeBinary(), nullable=True),
        sa.Column("actual_checksum", sa.String(length=80), nullable=True),
        sa.PrimaryKeyConstraint("file_number", "attempt", name=op.f("pk_file_attempt")),
    )
    ended = sa.text("end_us IS NOT NULL")
    op.create_index(
        op.f("ix_file_attempt_channel_uid_end_us"),
        "file_attempt",
        ["channel_uid", "end_us"],
        sqlite_where=ended,
        postgresql_where=ended,
    )
    op.create_table(
        "staged_job",
        sa.Column("uuid", sa.String(length=36), nullable=False),
        sa.Column("job_number", sa.BigInteger(), nullable=False),
        sa.Column("create_us", sa.BigInteger(), nullable=False),
        sa.Column("lease_holder", sa.String(length=200), nullable=True),
        sa.Column("lease_epoch", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("lease_until_us", sa.BigInteger(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("uuid", name=op.f("pk_staged_job")),
    )
    op.create_table(
        "sweep",
        sa.Column("job_number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("create_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("job_number", "kind", name=op.f("pk_sweep")),
    )
    op.create_table(
        "audit_entry",
        sa.Column("uid", sa.String(length=36), nullable=False),
        sa.Column("time_us", sa.BigInteger(), nullable=False),
        sa.Column("principal", sa.Text(), nullable=False),
        sa.Column("actor", sa.String(length=255), nullable=False),
        sa.Column("service", sa.String(length=32), nullable=False),
        sa.Column("method", sa.String(length=200), nullable=False),
        sa.Column("resource", sa.String(length=255), nullable=False),
        sa.Column("vo", sa.String(length=200), nullable=False),
        sa.Column("reason", sa.String(length=1024), nullable=False),
        sa.Column("permission", sa.String(length=64), nullable=False),
        sa.Column("rule", sa.String(length=64), nullable=False),
        sa.Column("before_json", sa.Text(), nullable=True),
        sa.Column("after_json", sa.Text(), nullable=True),
        sa.Column("trace_id", sa.String(length=32), nullable=False),
        sa.Column("peer", sa.String(length=128), nullable=False),
        sa.PrimaryKeyConstraint("uid", name=op.f("pk_audit_entry")),
    )
