"""The bell: each ring is heard, only one's own user may ring, nobody there is no error."""

from __future__ import annotations

import stat
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mayfly.errors import Denied
from mayfly.server.bell import bell_of, hung, ring

LIMIT_S = 20.0


@pytest.fixture
def bell() -> Iterator[Path]:
    # A socket's path is short; pytest's are not.
    with tempfile.TemporaryDirectory() as short:
        yield bell_of(Path(short) / "server.sock")


def test_a_ring_is_heard(bell: Path) -> None:
    heard = threading.Event()
    with hung(bell, heard.set):
        assert stat.S_IMODE(bell.stat().st_mode) == 0o600
        for _ in range(3):
            ring(bell)
            assert heard.wait(LIMIT_S)
            heard.clear()
    assert not bell.exists()
    assert not heard.is_set()


def test_nobody_there_is_no_error(bell: Path) -> None:
    ring(bell)
    assert not bell.exists()
    bell.write_text("no socket")
    ring(bell)
    assert bell.read_text() == "no socket"


def test_more_rings_than_are_heard_do_not_wait(bell: Path) -> None:
    goes_on, heard = threading.Event(), threading.Event()

    def busy() -> None:
        heard.set()
        assert goes_on.wait(LIMIT_S)

    with hung(bell, busy):
        for _ in range(2000):
            ring(bell)
        assert heard.wait(LIMIT_S)
        goes_on.set()


def test_one_that_was_left_behind_is_replaced(bell: Path) -> None:
    bell.write_text("left by a server that was killed")
    heard = threading.Event()
    with hung(bell, heard.set):
        ring(bell)
        assert heard.wait(LIMIT_S)


def test_where_nothing_can_be_hung(tmp_path: Path) -> None:
    with pytest.raises(Denied, match="bell"), hung(tmp_path / "no" / "such", lambda: None):
        pass
