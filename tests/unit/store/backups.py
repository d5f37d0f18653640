"""A database with something in it, and all that it has."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select

from mayfly.ec2.credentials import Credential
from mayfly.server.ec2.notes import Notes
from mayfly.site.quota import Amounts, Quotas
from mayfly.store import leases
from mayfly.store.backup import TABLES
from mayfly.store.database import Database
from tests.unit.site.samples import lease


def fill(database: Database) -> None:
    """Put leases, and a row with bytes in it, into a database."""
    odd = lease(4, name="odd", reason="'; DROP TABLE leases; -- \u00e9\U0001f98b\n")
    with database.writing() as connection:
        for one in [*(lease(number, name=f"m{number}") for number in range(1, 4)), odd]:
            leases.add(connection, one, Quotas(user=Amounts()))
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    Notes(database).add_credential(
        Credential(access_key="AK1", owner="alice", sealed=b"\x01\x00\xff", created_at=moment)
    )


def rows_of(database: Database) -> dict[str, list[tuple[Any, ...]]]:
    """Give all rows of all tables, in an order of their own."""
    with database.reading() as connection:
        return {
            name: sorted((tuple(row) for row in connection.execute(select(table))), key=repr)
            for name, table in TABLES.items()
        }
