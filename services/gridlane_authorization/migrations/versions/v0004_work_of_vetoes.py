"""What a veto does to the work of those vetoed.

Revision 0004, after 0003. Expand only: what an older version of the service reads stays, and a veto
that it writes has the contract's defaults.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name in ("queued_work", "running_work"):
        op.add_column("role_binding", sa.Column(name, sa.String(length=8), nullable=True))
