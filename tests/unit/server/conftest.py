"""A little site for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.server.browsing import Browser
from tests.unit.server.sites import Little, little_site


@pytest.fixture
def little(tmp_path: Path) -> Iterator[Little]:
    with little_site(tmp_path) as site:
        yield site


@pytest.fixture
def browser(little: Little) -> Browser:
    return Browser(little=little)


@pytest.fixture
def alice(browser: Browser) -> Browser:
    assert browser.sign_in("alice").headers["location"] == "/machines"
    return browser
