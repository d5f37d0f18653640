"""Leases in a real PostgreSQL: the suite that SQLite passes too."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mayfly.errors import Unavailable
from mayfly.store import log, schema
from mayfly.store.database import Database
from tests.integration.postgres import Postgres, postgres
from tests.unit.store.contract import StoreContract

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres() as started:
        yield started


class TestPostgres(StoreContract):
    @pytest.fixture
    def database(self, server: Postgres) -> Iterator[Database]:
        database = Database(server.new_database())
        schema.migrate(database)
        yield database
        database.close()


def test_it_goes_away_and_comes_back(server: Postgres) -> None:
    database = Database(server.new_database())
    schema.migrate(database)
    server.stop()
    with pytest.raises(Unavailable), database.reading() as connection:
        log.newest(connection)
    server.start()
    with database.reading() as connection:
        assert log.newest(connection) == ""
    database.close()
