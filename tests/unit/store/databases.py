"""Databases for tests: SQLite in a file."""

from __future__ import annotations

from pathlib import Path

from mayfly.store import schema
from mayfly.store.database import Database


def sqlite_at(directory: Path) -> Database:
    """Give a fresh SQLite database with all tables."""
    database = Database(f"sqlite:///{directory}/site.db")
    schema.migrate(database)
    return database
