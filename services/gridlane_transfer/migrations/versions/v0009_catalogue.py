"""GUIDs and prefixes of the catalogue.

Revision 0009, after 0008. Expand only.
"""

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass
