"""Certificates that many tests share; making them takes a while."""

from __future__ import annotations

from pathlib import Path

import pytest

from mayfly.images.lists.openssl import Signer
from tests.unit.images.lists.pki import SPACE, Ca, make_ca


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the authorities of the tests lie."""
    return tmp_path_factory.mktemp("pki")


@pytest.fixture(scope="session")
def root_ca(pki: Path) -> Ca:
    """An authority of a grid."""
    return make_ca(pki / "root", f"{SPACE}/CN=Root CA", "rsa:2048")


@pytest.fixture(scope="session")
def jo(root_ca: Ca) -> Signer:
    """Somebody with a certificate of that authority."""
    return root_ca.issue("Jo Endorser", kind="rsa:2048")


@pytest.fixture
def grid(tmp_path: Path, root_ca: Ca) -> Path:
    """A grid's directory with that authority, its names, and a fresh revocation list."""
    place = tmp_path / "grid"
    root_ca.install(place)
    return place
