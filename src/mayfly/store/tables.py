"""The tables. Times are seconds since the epoch; lists are JSON."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    text,
)

metadata = MetaData()

leases = Table(
    "leases",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("owner", String(64), nullable=False),
    Column("group", String(64), nullable=False),
    Column("name", String(64), nullable=False),
    Column("purpose", String(16), nullable=False),
    Column("image", String(200), nullable=False),
    Column("cpus", Integer, nullable=False),
    Column("memory_mib", BigInteger, nullable=False),
    Column("network", String(16), nullable=False),
    Column("ssh_keys", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("starts_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False),
    Column("wanted", String(16), nullable=False),
    Column("state", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("machine", String(64), nullable=False),
    Column("host_keys", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("retry_at", Double, nullable=False),
    Column("reminders", Integer, nullable=False),
    Column("expired", Boolean, nullable=False),
    Column("ended_at", Double),
    Column("version", Integer, nullable=False),
    Column("live", Boolean, nullable=False),
)
Index("leases_by_owner", leases.c.owner, leases.c.id)
Index("leases_by_group", leases.c.group, leases.c.id)
Index(
    "leases_living",
    leases.c.id,
    sqlite_where=leases.c.live,
    postgresql_where=leases.c.live,
)
Index(
    "leases_name",
    leases.c.owner,
    leases.c.name,
    unique=True,
    sqlite_where=leases.c.live,
    postgresql_where=leases.c.live,
)

ledger = Table(
    "ledger",
    metadata,
    Column("account", String(80), primary_key=True),
)
"""One row for each user and group: who holds its lock may count what it has, and add to it."""

events = Table(
    "events",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("at", Double, nullable=False),
    Column("kind", String(32), nullable=False),
    Column("lease", String(36), nullable=False),
    Column("owner", String(64), nullable=False),
    Column("group", String(64), nullable=False),
    Column("actor", String(80), nullable=False),
    Column("source", String(80), nullable=False),
    Column("detail", Text, nullable=False),
)
Index("events_by_owner", events.c.owner, events.c.id)
Index("events_by_lease", events.c.lease, events.c.id)

intents = Table(
    "intents",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("lease", String(36), nullable=False),
    Column("verb", String(16), nullable=False),
    Column("machine", String(64), nullable=False),
    Column("at", Double, nullable=False),
    Column("done_at", Double),
    Column("outcome", Text, nullable=False, server_default=text("''")),
)
Index("intents_by_lease", intents.c.lease, intents.c.id)

answers = Table(
    "answers",
    metadata,
    Column("owner", String(64), primary_key=True),
    Column("key", String(128), primary_key=True),
    Column("fingerprint", String(64), nullable=False),
    Column("lease", String(36), nullable=False),
    Column("at", Double, nullable=False),
)
"""What a request with an Idempotency-Key made: the same request again makes nothing."""

passes = Table(
    "passes",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("kind", String(8), nullable=False),
    Column("owner", String(64), nullable=False),
    Column("groups", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False),
)
"""What lets a browser in: one-time links and sessions, by the digest of their secret."""
Index("passes_by_owner", passes.c.owner, passes.c.kind, passes.c.created_at)
Index("passes_by_end", passes.c.expires_at)
