"""Issuers that are believed by policy.

Revision 0007, after 0006. Expand only.
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "issuer",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("url", sa.String(length=255), nullable=False),
        sa.Column("vo", sa.String(length=64), nullable=False),
        sa.Column("audiences", sa.Text(), nullable=False),
        sa.Column("algorithms", sa.Text(), nullable=False),
        sa.Column("jwks_uri", sa.String(length=1024), nullable=False),
        sa.Column("jwks", sa.Text(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("max_group_age_us", sa.BigInteger(), nullable=True),
        sa.Column("max_token_lifetime_us", sa.BigInteger(), nullable=True),
        sa.Column("description", sa.String(length=1024), nullable=False),
        sa.Column("create_time_us", sa.BigInteger(), nullable=False),
        sa.Column("update_time_us", sa.BigInteger(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_issuer")),
        sa.UniqueConstraint("url", name=op.f("uq_issuer_url")),
    )
    op.create_index(op.f("ix_issuer_vo_id"), "issuer", ["vo", "id"])
