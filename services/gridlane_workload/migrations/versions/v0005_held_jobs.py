"""Jobs that are held, which are given no place to run.

Revision 0005, after 0004. What an older version of the service reads stays; it holds no jobs, and
looks for those that may start without an index of its own until it is replaced.
"""

import sqlalchemy as sa
from alembic import op

from gridlane_kit.database import Micros

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_STARTABLE = sa.text("state = 6 AND held_us IS NULL")


def upgrade() -> None:
    op.add_column("job", sa.Column("held_us", Micros, nullable=True))
    op.create_index(
        "ix_job_startable",
        "job",
        ["state", sa.text("priority DESC"), "number"],
        sqlite_where=_STARTABLE,
        postgresql_where=_STARTABLE,
    )
    op.drop_index("ix_job_waiting", "job")
