"""The active group of the owner, by which job sharers reach a transfer job.

Revision 0004, after 0003. Expand only: what an older version of the service reads stays, and what
it writes has no group.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("transfer_job", sa.Column("owner_group", sa.String(length=255), nullable=True))
    grouped = sa.text("owner_group IS NOT NULL")
    for columns in (["owner_group", "number"], ["owner_group", "state", "number"]):
        op.create_index(
            op.f(f"ix_transfer_job_{'_'.join(columns)}"),
            "transfer_job",
            columns,
            sqlite_where=grouped,
            postgresql_where=grouped,
        )
