"""Leases in SQLite; the same suite runs on PostgreSQL in the integration tests."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mayfly.errors import Invalid, Unavailable
from mayfly.store.database import Database, new_id
from tests.unit.store.contract import StoreContract
from tests.unit.store.databases import sqlite_at


class TestSqlite(StoreContract):
    @pytest.fixture
    def database(self, tmp_path: Path) -> Iterator[Database]:
        database = sqlite_at(tmp_path)
        yield database
        database.close()


def test_ids_sort_by_time() -> None:
    made = []
    for _ in range(3):
        made.append(new_id())
        # The clock of such ids has milliseconds.
        time.sleep(0.002)
    assert made == sorted(made)
    assert all(each[14] == "7" and each[19] in "89ab" for each in made)


@pytest.mark.parametrize("url", ["", "mysql://x/y", "sqlite:", "postgres://x/y"])
def test_a_database_that_is_none(url: str) -> None:
    with pytest.raises(Invalid):
        Database(url)


def test_a_database_that_is_not_there(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/none/site.db")
    with pytest.raises(Unavailable), database.reading():
        pass
