"""The jobs of each channel, so that its managers' listings go along an index; and how far work on
the files of a large job has come.

Revision 0011, after 0010. Expand only: what an older version of the service submits meanwhile is
missing in the listings of those who see it by its channel alone, until `retention` has looked.
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "job_channel",
        sa.Column("channel_uid", sa.String(length=36), nullable=False),
        sa.Column("job_number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("channel_uid", "job_number", name=op.f("pk_job_channel")),
        sqlite_with_rowid=False,
    )
    op.execute(
        "INSERT INTO job_channel (channel_uid, job_number)"
        " SELECT DISTINCT channel_uid, job_number FROM file_transfer WHERE channel_uid <> ''"
    )
    op.create_index(op.f("ix_job_channel_job_number"), "job_channel", ["job_number"])
    op.add_column("sweep", sa.Column("after_n", sa.Integer(), server_default="0", nullable=False))
