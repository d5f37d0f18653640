"""Homes of endorsers; a key is made once, since it takes a while."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mayfly.images.lists.keypair import make_pair
from tests.unit.cli.endorsing import JO, admit


@pytest.fixture(scope="session")
def made_key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key, made once: it takes a while."""
    place = tmp_path_factory.mktemp("endorse")
    make_pair(place, JO, 30)
    return place


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own, with nothing in it."""
    monkeypatch.setenv("MAYFLY_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def endorser(home: Path, made_key: Path) -> Path:
    """A home with a key, and image el9 in the catalogue."""
    for file in ("key.pem", "cert.pem"):
        (home / "state/endorse").mkdir(parents=True, exist_ok=True)
        shutil.copy(made_key / file, home / "state/endorse" / file)
    admit(home, "el9")
    return home
