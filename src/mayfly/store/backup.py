"""All rows in one file, and back: the same file for SQLite and PostgreSQL.

The file is gzip (RFC 1952) over lines of JSON: a head with the format and the schema, a line for
each row, and an end with their number, so that half a file is not taken for a whole one.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import Column, Connection, Table, insert, select

from mayfly.errors import Conflict, Denied, Invalid, Missing
from mayfly.store import schema
from mayfly.store.database import Database
from mayfly.store.ec2tables import metadata

FORMAT = 1
AT_ONCE = 500
"""Rows that go to the database together."""
LINE_MOST = 4 * 1024 * 1024
"""Bytes of a line; no row of ours comes near."""
TABLES = {table.name: table for table in metadata.sorted_tables}


def backup(database: Database, target: Path) -> int:
    """Write all rows, as of one moment, into a new file of mode 0600; gives how many.

    Others may go on writing. Raises ``Conflict`` if the file is there already or the schema is not
    this Mayfly's, ``Denied`` where it cannot be written.
    """
    if target.exists():
        raise Conflict(f"{target} is there already", hint="name a new file")
    schema.check(database)
    # One that was killed leaves this name; the next one takes it over.
    part = target.with_name(f".{target.name}.part")
    try:
        part.unlink(missing_ok=True)
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as raw:
            with gzip.open(raw, "wb", compresslevel=6) as file, database.snapshot() as connection:
                count = 0
                for line, number in _lines(connection):
                    file.write(json.dumps(line).encode() + b"\n")
                    count = number
            raw.flush()
            os.fsync(raw.fileno())
        os.link(part, target)
    except FileExistsError as error:
        raise Conflict(f"{target} is there already", hint="name a new file") from error
    except OSError as error:
        raise Denied(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)
    return count


def restore(database: Database, source: Path) -> int:
    """Put all rows of a backup into a database that has none; gives how many.

    All of them or nothing. Raises ``Missing`` without a file, ``Invalid`` for one that is no whole
    backup, ``Conflict`` for another schema and for a database that has rows.
    """
    try:
        with gzip.open(source, "rb") as file:
            lines = _read(file)
            _check_head(next(lines, {}))
            schema.migrate(database)
            with database.writing() as connection:
                _refuse_rows(connection)
                return _insert_all(connection, lines)
    except FileNotFoundError as error:
        raise Missing(f"there is no {source}") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise Invalid(f"{source} is no whole backup: {error}") from error
    except OSError as error:
        raise Denied(f"cannot read {source}: {error.strerror or error}") from error


def _lines(connection: Connection) -> Iterator[tuple[dict[str, Any], int]]:
    yield {"mayfly_backup": FORMAT, "schema": schema.newest()}, 0
    count = 0
    for name, table in TABLES.items():
        rows = connection.execution_options(yield_per=AT_ONCE).execute(select(table))
        for row in rows.mappings():
            count += 1
            yield {"table": name, "row": {key: _plain(row[key]) for key in row}}, count
    yield {"end": count}, count


def _plain(value: Any) -> Any:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


def _read(file: gzip.GzipFile) -> Iterator[Mapping[str, Any]]:
    while line := file.readline(LINE_MOST):
        try:
            words = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise Invalid("a line of the backup is not JSON") from error
        if not isinstance(words, dict):
            raise Invalid("a line of the backup is not an object")
        yield words


def _check_head(head: Mapping[str, Any]) -> None:
    if head.get("mayfly_backup") != FORMAT:
        raise Invalid("this is no backup that this Mayfly can read")
    if head.get("schema") != schema.newest():
        raise Conflict(
            f"the backup has schema {head.get('schema')}, this Mayfly wants {schema.newest()}",
            hint="restore it with the Mayfly that made it, then 'mayfly server migrate'",
        )


def _refuse_rows(connection: Connection) -> None:
    for name, table in TABLES.items():
        if connection.execute(select(table).limit(1)).first() is not None:
            raise Conflict(
                f"the database has rows already (in '{name}')",
                hint="name an empty database in 'database' of server.toml",
            )


def _insert_all(connection: Connection, lines: Iterator[Mapping[str, Any]]) -> int:
    name, rows = "", list[dict[str, Any]]()
    for count, line in enumerate(lines):
        if "end" in line:
            _insert(connection, name, rows)
            if line["end"] != count or next(lines, None) is not None:
                raise Invalid("the backup does not have as many rows as it says")
            return count
        table = _table_of(line)
        if table.name != name or len(rows) == AT_ONCE:
            _insert(connection, name, rows)
            name, rows = table.name, []
        rows.append(_row(table, line.get("row")))
    raise Invalid("the backup has no end: it was cut off")


def _insert(connection: Connection, name: str, rows: list[dict[str, Any]]) -> None:
    if rows:
        connection.execute(insert(TABLES[name]), rows)


def _table_of(line: Mapping[str, Any]) -> Table:
    name = line.get("table")
    if not isinstance(name, str) or name not in TABLES:
        raise Invalid(f"the backup has rows of a table that there is not: {str(name)[:80]}")
    return TABLES[name]


def _row(table: Table, row: object) -> dict[str, Any]:
    if not isinstance(row, dict) or set(row) != set(table.columns.keys()):
        raise Invalid(f"a row of '{table.name}' in the backup has other columns than the table")
    return {column.name: _value(column, row[column.name]) for column in table.columns}


def _value(column: Column[Any], value: Any) -> Any:
    wanted = column.type.python_type
    if value is None and column.nullable:
        return None
    if wanted is bytes and isinstance(value, str):
        try:
            return base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError) as error:
            raise Invalid(f"'{column.name}' in the backup is not base64") from error
    if wanted is float and type(value) in (int, float):
        return value
    if type(value) is not wanted:
        raise Invalid(f"'{column.name}' in the backup is {type(value).__name__}")
    return value
