"""The database's schema: brought up to date by Alembic, with the versions beside this file."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from mayfly.errors import Conflict
from mayfly.store.database import Database

MIGRATIONS = Path(__file__).parent / "migrations"


def _config(database: Database | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["database"] = database
    return config


def newest() -> str:
    """Give the version that this Mayfly wants."""
    return ScriptDirectory.from_config(_config()).get_current_head() or ""


def current(database: Database) -> str:
    """Give the version that the database has; empty: none."""
    with database.reading() as connection:
        return MigrationContext.configure(connection).get_current_revision() or ""


def migrate(database: Database) -> tuple[str, str]:
    """Bring the schema up to date; gives the versions before and after. Safe to call again."""
    before = current(database)
    command.upgrade(_config(database), "head")
    return before, current(database)


def check(database: Database) -> None:
    """Raise ``Conflict`` unless the schema is the one that this Mayfly wants."""
    there, wanted = current(database), newest()
    if there != wanted:
        raise Conflict(
            f"the database has schema {there or 'none'}, this Mayfly wants {wanted}",
            hint="'mayfly server migrate' brings it up to date",
        )
