"""The active group of the owner, by which job sharers reach a record.

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
    op.add_column(
        "accounting_record", sa.Column("owner_group", sa.String(length=255), nullable=True)
    )
    grouped = sa.text("owner_group IS NOT NULL")
    op.create_index(
        op.f("ix_accounting_record_owner_group_end_us_uid"),
        "accounting_record",
        ["owner_group", "end_us", "uid"],
        sqlite_where=grouped,
        postgresql_where=grouped,
    )
