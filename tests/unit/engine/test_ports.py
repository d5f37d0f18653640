"""Hanging up on whoever is connected to a machine's ports."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from mayfly.engine import ports
from mayfly.engine.monitor import Monitor
from mayfly.engine.ports import hang_up, is_connected
from mayfly.errors import Unavailable
from tests.unit.engine.qmp import FakeQmp, monitored


class Line:
    """What QEMU says of its ports; somebody is connected to the session port."""

    def __init__(self, *, looks: int) -> None:
        self.looks = looks
        """How often it takes a look until the end of a connection is seen."""
        self.yanked: list[Any] = []

    def query(self, _: object) -> list[dict[str, str]]:
        if self.yanked:
            self.looks -= 1
        gone = bool(self.yanked) and self.looks < 0
        return [
            {"label": "qmp", "filename": "unix:/x/qmp,server=on"},
            {"label": "share", "filename": "disconnected:unix:/x/share,server=on"},
            {"label": "session", "filename": "disconnected:unix:/x" if gone else "unix:/x"},
        ]

    def yank(self, arguments: dict[str, Any]) -> None:
        self.yanked.append(arguments["instances"])


@pytest.fixture
def both() -> Iterator[tuple[FakeQmp, Monitor]]:
    with monitored() as pair:
        yield pair


def test_who_is_connected_is_disconnected(both: tuple[FakeQmp, Monitor]) -> None:
    qmp, monitor = both
    line = Line(looks=2)
    qmp.answers |= {"query-chardev": line.query, "yank": line.yank}
    assert is_connected(monitor, "session")
    assert hang_up(monitor, "session")
    assert line.yanked == [[{"type": "chardev", "id": "session"}]]
    assert not is_connected(monitor, "session")


@pytest.mark.parametrize("port", ["share", "nosuch"])
def test_where_nobody_is_nothing_is_done(both: tuple[FakeQmp, Monitor], port: str) -> None:
    qmp, monitor = both
    qmp.answers["query-chardev"] = Line(looks=0).query
    assert not hang_up(monitor, port)
    assert qmp.names() == ["query-chardev"]


def test_a_connection_that_does_not_end(
    both: tuple[FakeQmp, Monitor], monkeypatch: pytest.MonkeyPatch
) -> None:
    qmp, monitor = both
    line = Line(looks=1_000_000)
    qmp.answers |= {"query-chardev": line.query, "yank": line.yank}
    monkeypatch.setattr(ports, "HANG_UP_S", 0.05)
    with pytest.raises(Unavailable, match="session port"):
        hang_up(monitor, "session")
