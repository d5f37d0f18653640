"""What any database that keeps leases must do: a class for each one runs all of this."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import text

from mayfly.errors import Conflict, Missing, Quota
from mayfly.model import State
from mayfly.site.lease import Lease, Wanted
from mayfly.site.quota import Amounts, Quotas
from mayfly.store import answers, leases, log, passes, schema
from mayfly.store.backup import backup, restore
from mayfly.store.database import Database
from mayfly.store.ec2tables import metadata
from mayfly.store.leases import Scope
from mayfly.store.log import By
from mayfly.store.passes import Pass, PassKind
from tests.unit.site.samples import NOW, lease
from tests.unit.store.backups import fill, rows_of

ALL = Scope(everything=True)
ALICE = Scope(owner="alice")
NONE = Quotas(user=Amounts())


def add(database: Database, *given: Lease, quotas: Quotas = NONE) -> None:
    for one in given:
        with database.writing() as connection:
            leases.add(connection, one, quotas)


class StoreContract:
    """Tests for a fixture ``database``."""

    def test_a_lease_comes_back_as_it_was(self, database: Database) -> None:
        odd = lease(host_keys=("a b", "c"), reason="'; DROP TABLE leases; -- \u00e9\U0001f98b")
        add(database, odd)
        with database.reading() as connection:
            assert leases.find(connection, odd.id, ALL) == odd
            assert leases.find(connection, "build1", ALICE) == odd
            assert leases.living(connection) == [odd]

    def test_others_do_not_see_it(self, database: Database) -> None:
        add(database, lease())
        with database.reading() as connection:
            for scope in (Scope(owner="mallory"), Scope(owner="m", groups=("chemistry",))):
                with pytest.raises(Missing):
                    leases.find(connection, lease().id, scope)
                assert leases.page(connection, scope) == []
            assert leases.page(connection, Scope(owner="bob", groups=("physics",))) != []
            # A name means one's own, whatever else one sees.
            with pytest.raises(Missing):
                leases.find(connection, "build1", ALL)

    def test_a_name_is_taken_until_its_lease_is_gone(self, database: Database) -> None:
        add(database, lease(1, name="x"))
        with pytest.raises(Conflict):
            add(database, lease(2, name="x"))
        add(database, lease(3, name="x", owner="bob"))
        with database.writing() as connection:
            gone = replace(lease(1, name="x"), state=State.GONE, ended_at=NOW)
            leases.save(connection, gone)
        add(database, lease(4, name="x"))

    def test_pages(self, database: Database) -> None:
        add(database, *(lease(number) for number in range(1, 8)))
        seen: list[str] = []
        with database.reading() as connection:
            while True:
                after = seen[-1] if seen else ""
                page = leases.page(connection, ALICE, after=after, limit=3)
                seen += [one.id for one in page]
                if len(page) < 3:
                    break
        assert seen == [lease(number).id for number in range(7, 0, -1)]

    def test_a_lost_update_is_refused(self, database: Database) -> None:
        add(database, lease())
        with database.writing() as connection:
            first = leases.save(connection, replace(lease(), wanted=Wanted.GONE))
        assert first.version == 2
        with pytest.raises(Conflict), database.writing() as connection:
            leases.save(connection, replace(lease(), wanted=Wanted.SUSPENDED))

    def test_a_hundred_at_once_do_not_get_more_than_there_is(self, database: Database) -> None:
        quotas = Quotas(user=Amounts(machines=7), group=Amounts(cpus=10))

        def try_one(number: int) -> bool:
            owner = "alice" if number % 2 else "bob"
            try:
                add(database, lease(number, owner=owner), quotas=quotas)
            except Quota:
                return False
            return True

        with ThreadPoolExecutor(20) as pool:
            won = list(pool.map(try_one, range(1, 101)))
        with database.reading() as connection:
            held = [leases.held_by(connection, owner).machines for owner in ("alice", "bob")]
        assert sum(won) == sum(held) == 10
        assert max(held) <= 7

    def test_events_are_told_to_those_whom_they_concern(self, database: Database) -> None:
        mine, other = lease(1), lease(2, owner="bob", group="chemistry")
        with database.writing() as connection:
            for one in (mine, other, mine):
                log.append(connection, "lease.created", one, NOW, By(actor="user:x"), image="é")
        with database.reading() as connection:
            found = log.events(connection, ALICE)
            assert [event.lease for event in found] == [mine.id, mine.id]
            assert found[0].detail == {"image": "é"}
            assert log.events(connection, ALICE, after=found[0].id) == found[1:]
            assert len(log.events(connection, ALL, limit=2)) == 2
            assert log.newest(connection) == log.events(connection, ALL)[-1].id

    def test_what_was_intended_when_a_server_died_is_closed(self, database: Database) -> None:
        with database.writing() as connection:
            done = log.intend(connection, "l1", "launch", "", NOW)
            log.finish(connection, done, "done", NOW)
            log.intend(connection, "l2", "launch", "", NOW)
        with database.writing() as connection:
            assert log.close_open(connection, NOW) == 1
            assert log.close_open(connection, NOW) == 0

    def test_a_key_stands_for_one_request(self, database: Database) -> None:
        with database.writing() as connection:
            assert answers.answered(connection, "alice", "k", "f") == ""
            answers.remember(connection, "alice", "k", "f", "l1", NOW)
        with database.writing() as connection:
            assert answers.answered(connection, "alice", "k", "f") == "l1"
            assert answers.answered(connection, "bob", "k", "f") == ""
            with pytest.raises(Conflict):
                answers.answered(connection, "alice", "k", "another")
            answers.remember(connection, "alice", "k2", "f", "l2", NOW + 2 * answers.KEPT_S)
            assert answers.answered(connection, "alice", "k", "f") == ""

    def test_nothing_of_what_failed_stays(self, database: Database) -> None:
        def fail_half_way() -> None:
            with database.writing() as connection:
                leases.add(connection, lease(), NONE)
                raise Conflict("no")

        with pytest.raises(Conflict):
            fail_half_way()
        with database.reading() as connection:
            assert leases.living(connection) == []

    def test_the_migrations_give_the_tables_that_the_code_has(self, database: Database) -> None:
        from alembic.autogenerate import compare_metadata
        from alembic.migration import MigrationContext

        assert schema.migrate(database) == (schema.newest(), schema.newest())
        schema.check(database)
        with database.reading() as connection:
            context = MigrationContext.configure(connection)
            assert compare_metadata(context, metadata) == []

    def test_an_older_schema_is_refused(self, database: Database) -> None:
        with database.writing() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = '0000'"))
        with pytest.raises(Conflict, match="0000"):
            schema.check(database)

    def test_a_backup_comes_back(self, database: Database, tmp_path: Path) -> None:
        fill(database)
        count = backup(database, tmp_path / "b.gz")
        before = rows_of(database)
        assert sum(map(len, before.values())) == count
        other = Database(f"sqlite:///{tmp_path}/restored.db")
        assert restore(other, tmp_path / "b.gz") == count
        assert rows_of(other) == before
        backup(other, tmp_path / "again.gz")
        with database.writing() as connection:
            for table in reversed(metadata.sorted_tables):
                connection.execute(table.delete())
        assert restore(database, tmp_path / "again.gz") == count
        assert rows_of(database) == before
        other.close()

    def test_a_pass_lets_in_until_its_end(self, database: Database) -> None:
        given = Pass(owner="alice", groups=("a b", "c"), created_at=NOW, expires_at=NOW + 60)
        with database.writing() as connection:
            secret = passes.issue(connection, PassKind.SESSION, given)
        with database.reading() as connection:
            assert passes.find(connection, PassKind.SESSION, secret, NOW + 59) == given
            assert passes.find(connection, PassKind.SESSION, secret, NOW + 60) is None
            assert passes.find(connection, PassKind.LINK, secret, NOW) is None
            assert passes.find(connection, PassKind.SESSION, passes.digest(secret), NOW) is None
        with database.writing() as connection:
            assert passes.remove(connection, secret)
            assert not passes.remove(connection, secret)

    def test_a_link_lets_one_in(self, database: Database) -> None:
        given = Pass(owner="alice", groups=(), created_at=NOW, expires_at=NOW + 60)
        with database.writing() as connection:
            secret = passes.issue(connection, PassKind.LINK, given)

        def redeem(_: int) -> bool:
            with database.writing() as connection:
                return passes.redeem(connection, secret, NOW) is not None

        with ThreadPoolExecutor(4) as pool:
            assert sorted(pool.map(redeem, range(4))) == [False, False, False, True]

    def test_passes_are_not_without_end(self, database: Database) -> None:
        secrets = []
        for second in range(passes.MOST + 1):
            at = NOW + second
            given = Pass(owner="alice", groups=(), created_at=at, expires_at=at + 60)
            with database.writing() as connection:
                secrets.append(passes.issue(connection, PassKind.SESSION, given))
        with database.reading() as connection:
            found = [passes.find(connection, PassKind.SESSION, each, NOW) for each in secrets]
        assert found[0] is None
        assert None not in found[1:]
