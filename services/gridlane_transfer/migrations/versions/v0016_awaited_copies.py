"""Files that a ban keeps waiting, by what they are read from.

Revision 0016, after 0015. Expand only: with an older version of the service they go on when the ban
ends.
"""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    blocked = sa.text("state IN (7) AND length(source) <= 512")
    op.create_index(
        "ix_file_transfer_blocked_for",
        "file_transfer",
        ["source"],
        sqlite_where=blocked,
        postgresql_where=blocked,
    )
