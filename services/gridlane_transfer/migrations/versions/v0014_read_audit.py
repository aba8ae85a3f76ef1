"""The audit is read: by whom, on what, of which virtual organisation, by which method.

Revision 0014, after 0013. Expand only.
"""

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name in ("actor", "resource", "vo", "method"):
        op.create_index(op.f(f"ix_audit_entry_{name}_uid"), "audit_entry", [name, "uid"])
