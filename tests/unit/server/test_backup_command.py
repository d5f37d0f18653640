"""`mayfly server backup|restore`: from the command line to the database and back."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from mayfly.cli.server import server
from mayfly.errors import Conflict, Denied
from mayfly.server.settings import load_server_settings
from mayfly.site_wiring import database_of
from tests.unit.store.backups import fill, rows_of
from tests.unit.store.databases import sqlite_at


def settings_at(directory: Path) -> Path:
    directory.mkdir()
    file = directory / "server.toml"
    file.write_text(f'database = "sqlite:///{directory}/site.db"\n')
    return file


def test_there_and_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The suite runs as root, which may not put a backup back.
    monkeypatch.setattr(os, "geteuid", lambda: 1)
    old, new = settings_at(tmp_path / "old"), settings_at(tmp_path / "new")
    first = sqlite_at(old.parent)
    fill(first)
    count = sum(map(len, rows_of(first).values()))
    file = str(tmp_path / "b.gz")
    done = CliRunner().invoke(server, ["backup", file, "--config", str(old)])
    assert (done.exit_code, done.output) == (0, f"{count} rows are in {file}\n")
    done = CliRunner().invoke(server, ["restore", file, "--config", str(new)])
    assert (done.exit_code, done.output) == (0, f"{count} rows were put back\n")
    second = database_of(load_server_settings(new))
    assert rows_of(second) == rows_of(first)
    again = CliRunner().invoke(server, ["restore", file, "--config", str(new)])
    assert isinstance(again.exception, Conflict)
    assert rows_of(second) == rows_of(first)
    first.close()
    second.close()


def test_root_puts_nothing_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    new = settings_at(tmp_path / "new")
    done = CliRunner().invoke(server, ["restore", str(tmp_path / "b.gz"), "--config", str(new)])
    assert isinstance(done.exception, Denied)
    assert not (new.parent / "site.db").exists()
