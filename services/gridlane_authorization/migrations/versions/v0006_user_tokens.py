"""Tokens signed for users.

Revision 0006, after 0005. Expand only.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_LISTED = (
    ("owner", "jti"),
    ("subject", "jti"),
    ("exchanged_for",),
    ("expires_us",),
    ("revoke_time_us",),
)


def upgrade() -> None:
    op.create_table(
        "user_token",
        sa.Column("jti", sa.String(length=36), nullable=False),
        sa.Column("owner", sa.String(length=512), nullable=False),
        sa.Column("subject", sa.String(length=255), nullable=False),
        sa.Column("principal", sa.Text(), nullable=False),
        sa.Column("creator", sa.Text(), nullable=False),
        sa.Column("audience", sa.String(length=255), nullable=False),
        sa.Column("create_time_us", sa.BigInteger(), nullable=False),
        sa.Column("expires_us", sa.BigInteger(), nullable=False),
        sa.Column("revoke_time_us", sa.BigInteger(), nullable=True),
        sa.Column("reason", sa.String(length=1024), nullable=False),
        sa.Column("exchanged_for", sa.String(length=255), nullable=False),
        sa.PrimaryKeyConstraint("jti", name=op.f("pk_user_token")),
    )
    for columns in _LISTED:
        op.create_index(op.f(f"ix_user_token_{'_'.join(columns)}"), "user_token", list(columns))
