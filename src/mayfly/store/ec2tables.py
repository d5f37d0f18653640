"""The tables of the EC2 API; ``metadata`` has all others too. Times are seconds since the epoch."""

from __future__ import annotations

from sqlalchemy import Column, Double, Index, Integer, LargeBinary, String, Table, Text

from mayfly.store.tables import metadata

__all__ = ["credentials", "instances", "key_pairs", "metadata", "orders", "tags"]

credentials = Table(
    "ec2_credentials",
    metadata,
    Column("access_key", String(32), primary_key=True),
    Column("owner", String(64), nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("created_at", Double, nullable=False),
)
"""EC2 keys; the secret is sealed under a key that is not in the database."""

orders = Table(
    "ec2_orders",
    metadata,
    Column("owner", String(64), primary_key=True),
    Column("token", String(80), primary_key=True),
    Column("fingerprint", String(64), nullable=False),
    Column("reservation", String(20), nullable=False),
)
"""What a client token made: the same order again makes nothing."""

instances = Table(
    "ec2_instances",
    metadata,
    Column("lease", String(36), primary_key=True),
    Column("id", String(20), nullable=False),
    Column("owner", String(64), nullable=False),
    Column("reservation", String(20), nullable=False),
    Column("place", Integer, nullable=False),
    Column("type", String(64), nullable=False),
    Column("key_name", String(255), nullable=False),
    Column("token", String(64), nullable=False),
)
"""What EC2 knows of a lease and the lease does not."""
Index("ec2_instances_by_owner", instances.c.owner)

key_pairs = Table(
    "ec2_key_pairs",
    metadata,
    Column("owner", String(64), primary_key=True),
    Column("name", String(255), primary_key=True),
    Column("id", String(24), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("public", Text, nullable=False),
    Column("fingerprint", String(100), nullable=False),
    Column("created_at", Double, nullable=False),
)

tags = Table(
    "ec2_tags",
    metadata,
    Column("owner", String(64), primary_key=True),
    Column("resource", String(24), primary_key=True),
    Column("key", String(128), primary_key=True),
    Column("value", String(256), nullable=False),
)
