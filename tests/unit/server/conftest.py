"""A little site for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.server.sites import Little, little_site


@pytest.fixture
def little(tmp_path: Path) -> Iterator[Little]:
    with little_site(tmp_path) as site:
        yield site
