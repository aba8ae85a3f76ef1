"""A file's own overwrite mode, leases of uploads, indexes for listings by state, and what
PostgreSQL has of its own: where events wait for their positions, the numbers of jobs and files, an
order that no language decides.

Revision 0002, after 0001. Expand only: what an older version of the service reads stays; there is
none that knows PostgreSQL. Files from before have the mode 0, which is what their job says.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "file_transfer", sa.Column("overwrite", sa.Integer(), server_default="0", nullable=False)
    )
    for column in (
        sa.Column("lease_holder", sa.String(length=200), nullable=True),
        sa.Column("lease_epoch", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("lease_until_us", sa.BigInteger(), server_default="0", nullable=False),
    ):
        op.add_column("upload", column)
    for whose in ("owner", "vo"):
        columns = [whose, "state", "number"]
        op.create_index(op.f(f"ix_transfer_job_{'_'.join(columns)}"), "transfer_job", columns)
    if op.get_bind().dialect.name == "postgresql":
        _have_its_own()


def _have_its_own() -> None:
    op.create_table(
        "event_pending",
        sa.Column("id", sa.BigInteger(), autoincrement=True, nullable=False),
        sa.Column("event_id", sa.String(length=36), nullable=False),
        sa.Column("subject", sa.String(length=300), nullable=False),
        sa.Column("kind", sa.String(length=100), nullable=False),
        sa.Column("time_us", sa.BigInteger(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.Column("owner", sa.String(length=512), nullable=False),
        sa.Column("vo", sa.String(length=200), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_event_pending")),
    )
    for name in ("transfer_job_number", "file_transfer_number"):
        op.execute(sa.schema.CreateSequence(sa.Sequence(name)))
    op.drop_table("last_number")
    op.alter_column("logical_file", "lfn", type_=sa.Text(collation="C"))
