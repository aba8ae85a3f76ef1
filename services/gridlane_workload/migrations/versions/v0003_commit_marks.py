"""The marks by which a commit whose answer was lost is found again.

Revision 0003, after 0002. Expand only: what an older version of the service reads stays.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.create_table(
            "commit_mark",
            sa.Column("id", sa.Uuid(as_uuid=False), nullable=False),
            sa.PrimaryKeyConstraint("id", name=op.f("pk_commit_mark")),
        )
