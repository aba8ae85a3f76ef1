"""GUIDs in the catalogue, listings of it by VO, and registrations that are tried again.

Revision 0010, after 0009. Expand only: an older version of the service writes files without GUIDs,
and leaves no registration owed.
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("logical_file", sa.Column("guid", sa.String(length=36), nullable=True))
    op.add_column("file_transfer", sa.Column("arrived", sa.Text(), nullable=True))
    has_guid = sa.text("guid IS NOT NULL")
    op.create_index(
        op.f("ix_logical_file_guid"),
        "logical_file",
        ["guid"],
        unique=True,
        sqlite_where=has_guid,
        postgresql_where=has_guid,
    )
    op.create_index(op.f("ix_logical_file_vo_lfn"), "logical_file", ["vo", "lfn"])
    owed = sa.text("arrived IS NOT NULL")
    op.create_index(
        "ix_file_transfer_registering",
        "file_transfer",
        ["due_us", "number"],
        sqlite_where=owed,
        postgresql_where=owed,
    )
