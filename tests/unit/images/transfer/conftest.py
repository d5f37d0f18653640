"""Fixtures of the tests of transfers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.images.transfer.fetching import Fetching
from tests.unit.images.web import Server, serving


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


@pytest.fixture
def fetch(tmp_path: Path) -> Fetching:
    return Fetching(directory=tmp_path / "downloads")
