"""The places that files are written to, by an index: each has one writer at a time.

Revision 0015, after 0014. Expand only: an older version of the service does not ask who writes.
"""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # On their way, or there and not registered yet; PostgreSQL indexes no text of any length.
    writing = sa.text("(state = 8 OR state = 11 OR state = 13) AND length(target_url) <= 2000")
    op.create_index(
        "ix_file_transfer_writing",
        "file_transfer",
        ["target_url"],
        sqlite_where=writing,
        postgresql_where=writing,
    )
