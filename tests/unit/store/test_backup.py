"""Backups of SQLite: what is refused, and that nothing is left half done."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from mayfly.errors import Conflict, Denied, Invalid, Missing
from mayfly.store import schema
from mayfly.store.backup import TABLES, backup, restore
from mayfly.store.database import Database
from tests.unit.site.samples import lease
from tests.unit.store.backups import fill, rows_of
from tests.unit.store.contract import add
from tests.unit.store.databases import sqlite_at


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = sqlite_at(tmp_path)
    yield database
    database.close()


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path}/other.db")
    yield database
    database.close()


def test_a_file_that_is_there_is_not_written_over(database: Database, tmp_path: Path) -> None:
    file = tmp_path / "b.gz"
    file.write_text("mine")
    with pytest.raises(Conflict, match="already"):
        backup(database, file)
    assert file.read_text() == "mine"


def test_what_a_killed_one_left_goes(database: Database, tmp_path: Path) -> None:
    (tmp_path / ".b.gz.part").write_text("half")
    backup(database, tmp_path / "b.gz")
    assert (tmp_path / "b.gz").stat().st_mode & 0o777 == 0o600
    assert not (tmp_path / ".b.gz.part").exists()


def test_nowhere_to_write(database: Database, tmp_path: Path) -> None:
    with pytest.raises(Denied, match="cannot write"):
        backup(database, tmp_path / "none" / "b.gz")


def test_a_database_of_another_schema(empty: Database, tmp_path: Path) -> None:
    with pytest.raises(Conflict, match="schema"):
        backup(empty, tmp_path / "b.gz")
    assert not (tmp_path / "b.gz").exists()


def test_it_is_not_put_over_rows(database: Database, tmp_path: Path) -> None:
    fill(database)
    backup(database, tmp_path / "b.gz")
    before = rows_of(database)
    with pytest.raises(Conflict, match="has rows"):
        restore(database, tmp_path / "b.gz")
    assert rows_of(database) == before


def test_writers_go_on_meanwhile(database: Database) -> None:
    fill(database)
    before = rows_of(database)
    with database.snapshot() as connection:
        assert connection.execute(select(TABLES["leases"])).first() is not None
        add(database, lease(99, name="late"))
        names = connection.execute(select(TABLES["leases"].c.name)).scalars().all()
    assert "late" not in names
    assert len(rows_of(database)["leases"]) == len(before["leases"]) + 1


def test_no_backup_at_all(empty: Database, tmp_path: Path) -> None:
    with pytest.raises(Missing):
        restore(empty, tmp_path / "none.gz")
    with pytest.raises(Denied, match="cannot read"):
        restore(empty, tmp_path)


HEAD = {"mayfly_backup": 1, "schema": schema.newest()}
ACCOUNT = {"table": "ledger", "row": {"account": "user:a"}}


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [{"mayfly_backup": 99, "schema": schema.newest()}],
        [HEAD],
        [HEAD, ACCOUNT],
        [HEAD, ACCOUNT, {"end": 2}],
        [HEAD, ACCOUNT, {"end": 1}, ACCOUNT],
        [HEAD, {"table": "passwords", "row": {}}, {"end": 1}],
        [HEAD, {"table": ["ledger"], "row": {}}, {"end": 1}],
        [HEAD, {"table": "ledger", "row": {"account": 1}}, {"end": 1}],
        [HEAD, {"table": "ledger", "row": {"account": "a", "more": 1}}, {"end": 1}],
        [HEAD, {"table": "ledger", "row": None}, {"end": 1}],
        [HEAD, 7],
    ],
)
def test_what_is_no_backup_changes_nothing(
    empty: Database, tmp_path: Path, lines: list[object]
) -> None:
    file = tmp_path / "b.gz"
    file.write_bytes(gzip.compress("".join(json.dumps(one) + "\n" for one in lines).encode()))
    with pytest.raises(Invalid):
        restore(empty, file)
    schema.migrate(empty)
    assert not any(rows_of(empty).values())


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_part_of_one(database: Database, empty: Database, tmp_path: Path, share: float) -> None:
    fill(database)
    backup(database, tmp_path / "b.gz")
    data = (tmp_path / "b.gz").read_bytes()
    (tmp_path / "cut.gz").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(Invalid):
        restore(empty, tmp_path / "cut.gz")
    schema.migrate(empty)
    assert not any(rows_of(empty).values())


def test_nonsense(empty: Database, tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"\x00\xff nonsense")
    with pytest.raises(Invalid):
        restore(empty, tmp_path / "b")


def test_one_of_another_schema(empty: Database, tmp_path: Path) -> None:
    head = json.dumps({"mayfly_backup": 1, "schema": "0000"}).encode()
    (tmp_path / "b").write_bytes(gzip.compress(head + b"\n"))
    with pytest.raises(Conflict, match="schema 0000"):
        restore(empty, tmp_path / "b")
