"""An index by which it is seen at once whether a job has a file on a channel, whatever number of
files it has: managers of the channel see the job.

Revision 0005, after 0004. Expand only.
"""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(
        op.f("ix_file_transfer_job_number_channel_uid"),
        "file_transfer",
        ["job_number", "channel_uid"],
    )
