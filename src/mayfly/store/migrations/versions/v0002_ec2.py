"""What the EC2 API notes: keys, orders, instances, key pairs, tags."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make its tables."""
    op.create_table(
        "ec2_credentials",
        sa.Column("access_key", sa.String(length=32), nullable=False),
        sa.Column("owner", sa.String(length=64), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("access_key"),
    )
    op.create_table(
        "ec2_orders",
        sa.Column("owner", sa.String(length=64), nullable=False),
        sa.Column("token", sa.String(length=80), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("reservation", sa.String(length=20), nullable=False),
        sa.PrimaryKeyConstraint("owner", "token"),
    )
    _make_instances()
    op.create_table(
        "ec2_key_pairs",
        sa.Column("owner", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("id", sa.String(length=24), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("public", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.String(length=100), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("owner", "name"),
    )
    op.create_table(
        "ec2_tags",
        sa.Column("owner", sa.String(length=64), nullable=False),
        sa.Column("resource", sa.String(length=24), nullable=False),
        sa.Column("key", sa.String(length=128), nullable=False),
        sa.Column("value", sa.String(length=256), nullable=False),
        sa.PrimaryKeyConstraint("owner", "resource", "key"),
    )


def _make_instances() -> None:
    op.create_table(
        "ec2_instances",
        sa.Column("lease", sa.String(length=36), nullable=False),
        sa.Column("id", sa.String(length=20), nullable=False),
        sa.Column("owner", sa.String(length=64), nullable=False),
        sa.Column("reservation", sa.String(length=20), nullable=False),
        sa.Column("place", sa.Integer(), nullable=False),
        sa.Column("type", sa.String(length=64), nullable=False),
        sa.Column("key_name", sa.String(length=255), nullable=False),
        sa.Column("token", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("lease"),
    )
    op.create_index("ec2_instances_by_owner", "ec2_instances", ["owner"], unique=False)
