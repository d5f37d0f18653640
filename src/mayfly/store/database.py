"""One database: SQLite in a file, or PostgreSQL. Transactions that write exclude each other."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from mayfly.errors import Failed, Invalid, MayflyError, Quota, Unavailable

BUSY_S = 30.0
POOL_SIZE = 10


class Database:
    """A database that is there, or will be again."""

    def __init__(self, url: str) -> None:
        """Name it: ``sqlite:////path/to/file`` or ``postgresql://user@host/name``."""
        self.url = url
        self.engine = _engine(url)

    @property
    def is_sqlite(self) -> bool:
        """Whether it is a file of ours."""
        return self.engine.dialect.name == "sqlite"

    @contextlib.contextmanager
    def writing(self) -> Iterator[Connection]:
        """Give a transaction; all of it is written, or nothing."""
        with _translated(), self.engine.begin() as connection:
            yield connection

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """Give a transaction that only looks."""
        with _translated(), self._plain().begin() as connection:
            yield connection

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """Give a transaction that only looks, and sees all tables as of one moment."""
        # SQLite's readers do so anyway.
        level = {} if self.is_sqlite else {"isolation_level": "REPEATABLE READ"}
        options = {"mayfly_reads": True, **level}
        with _translated(), self.engine.execution_options(**options).begin() as connection:
            yield connection

    def _plain(self) -> Engine:
        return self.engine.execution_options(mayfly_reads=True)

    def close(self) -> None:
        """Let go of all connections."""
        self.engine.dispose()


def _engine(url: str) -> Engine:
    if url.startswith("sqlite:///"):
        engine = create_engine(url, connect_args={"timeout": BUSY_S, "check_same_thread": False})
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    if url.startswith("postgresql://"):
        driver = url.replace("postgresql://", "postgresql+psycopg://", 1)
        options: dict[str, Any] = {"pool_size": POOL_SIZE, "max_overflow": POOL_SIZE}
        return create_engine(driver, pool_pre_ping=True, **options)
    raise Invalid(
        f"'{url.partition(':')[0]}' is no database that the server knows",
        hint="write sqlite:////var/lib/mayfly/site.db or postgresql://user@host/name",
    )


def _set_up_sqlite(connection: Any, _: object) -> None:
    # Python's own module would begin transactions when it sees fit, and never in time.
    connection.isolation_level = None
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute("PRAGMA foreign_keys=ON")


def _begin_sqlite(connection: Connection) -> None:
    reads = connection.get_execution_options().get("mayfly_reads")
    # A writer that begins as a reader may find at its first write that it came too late.
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except MayflyError:
        raise
    except (OperationalError, PoolTimeout) as error:
        words = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        if "full" in words.lower() or "No space" in words:
            raise Quota(f"the database cannot grow: {words}", hint="free some space") from error
        raise Unavailable(f"the database does not answer: {words}", hint="try again") from error
    except DBAPIError as error:
        if error.connection_invalidated:
            raise Unavailable("the database went away", hint="try again") from error
        raise Failed(f"the database refused: {error.orig}") from error


def new_id() -> str:
    """Give a UUIDv7 (RFC 9562, section 5.7): such ids sort by their time."""
    number = (time.time_ns() // 1_000_000 & (1 << 48) - 1) << 80
    number |= secrets.randbits(80)
    number = number & ~(0xF << 76) | 0x7 << 76
    number = number & ~(0x3 << 62) | 0x2 << 62
    text = f"{number:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
