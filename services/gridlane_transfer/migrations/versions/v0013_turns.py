"""The lock by which processes take turns at changing files.

Revision 0013, after 0012. Expand only: an older version of the service takes no turn, and is run
again where it met another one.
"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.create_table(
            "write_turn",
            sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
            sa.PrimaryKeyConstraint("id", name=op.f("pk_write_turn")),
        )
