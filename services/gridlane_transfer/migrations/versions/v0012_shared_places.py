"""Small files that share a place.

Revision 0012, after 0011. Expand only: a file that an older version of the service starts takes a
place of its own.
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("file_transfer", sa.Column("place", sa.BigInteger(), nullable=True))
