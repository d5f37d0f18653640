"""The socket: where it is, who may stay connected, and what becomes of those who leave."""

from __future__ import annotations

import os
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mayfly.errors import Conflict, Denied, Invalid, Quota
from mayfly.host import door
from mayfly.host.door import close_door, listen
from tests.unit.host.services import ALICE, BOB, Desk, claim_fields, desk, refused

__all__ = ["desk"]


@pytest.fixture
def place() -> Iterator[Path]:
    """A path for a socket, short enough."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "run" / "host.sock"


# --- the socket ----------------------------------------------------------------------------------


def test_it_is_everybodys_and_appears_open(place: Path) -> None:
    with listen(place):
        assert stat.S_IMODE(place.stat().st_mode) == 0o666
        assert os.listdir(place.parent) == ["host.sock"]
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
            client.connect(str(place))


def test_a_dead_one_is_replaced(place: Path) -> None:
    listen(place).close()
    before = place.stat().st_ino
    with listen(place):
        assert place.stat().st_ino != before


@pytest.mark.parametrize("kind", [socket.SOCK_SEQPACKET, socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_living_one_is_not(place: Path, kind: int) -> None:
    place.parent.mkdir()
    with socket.socket(socket.AF_UNIX, kind) as other:
        other.bind(str(place))
        if kind != socket.SOCK_DGRAM:
            other.listen()
        error = refused(lambda: listen(place))
    assert isinstance(error, Conflict)
    assert os.listdir(place.parent) == ["host.sock"]


@pytest.mark.parametrize("what", ["file", "directory", "link", "pipe"])
def test_what_is_no_socket_is_left_alone(place: Path, what: str) -> None:
    place.parent.mkdir()
    make: dict[str, Callable[[], object]] = {
        "file": lambda: place.write_text("mine"),
        "directory": place.mkdir,
        "link": lambda: place.symlink_to("/etc/passwd"),
        "pipe": lambda: os.mkfifo(place),
    }
    make[what]()
    before = place.lstat()
    error = refused(lambda: listen(place))
    assert isinstance(error, Conflict)
    assert "is no socket" in error.message
    assert place.lstat() == before


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 120)
    long.mkdir()
    error = refused(lambda: listen(long / "host.sock"))
    assert isinstance(error, Denied)
    assert f"cannot listen at {long}/host.sock" in error.message


def test_who_comes_when_it_is_closed_finds_nobody(desk: Desk) -> None:
    path = desk.service.settings.socket
    with listen(path.with_name("other.sock")) as other:
        door.open_door(desk.service, other)
        close_door(desk.service, other, path.with_name("other.sock"))
    assert not path.with_name("other.sock").exists()
    assert desk.connect().ask("status")["callers"] == 1


# --- those who do nothing ------------------------------------------------------------------------


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Idle connections are not borne for long."""
    monkeypatch.setattr(door, "IDLE_S", 0.05)
    monkeypatch.setattr(door, "SWEEP_S", 0.01)


@pytest.mark.usefixtures("impatient")
def test_who_does_nothing_for_long_is_closed(desk: Desk) -> None:
    idle = [desk.connect() for _ in range(3)]
    desk.until(lambda: all(client.is_closed() for client in idle), "the end of the connections")
    assert not desk.service.callers


@pytest.mark.usefixtures("impatient")
def test_who_waits_or_has_something_is_not(desk: Desk) -> None:
    desk.limit(machines=1)
    has = desk.connect()
    has.claim()
    waits = desk.connect()
    waits.send("claim", **claim_fields())
    desk.until(lambda: waits.of("line") != [], "the line")
    idle = desk.connect()
    desk.until(idle.is_closed, "the end of the idle one")
    assert len(desk.service.callers) == 2
    has.close()
    assert waits.answer()["path"] == "clone"


@pytest.mark.usefixtures("impatient")
def test_also_not_while_others_are_told_that_they_ask_too_much(desk: Desk) -> None:
    """A second request must not make the first one idle."""
    desk.limit(machines=1)
    has = desk.connect()
    has.claim()
    waits = desk.connect()
    waits.send("claim", **claim_fields())
    desk.until(lambda: waits.of("line") != [], "the line")
    assert isinstance(waits.why_not("status"), Conflict)
    idle = desk.connect()
    desk.until(idle.is_closed, "the end of the idle one")
    has.close()
    assert waits.answer()["path"] == "clone"


def test_each_user_may_have_so_many(desk: Desk) -> None:
    for _ in range(door.IDLE_MOST):
        desk.connect(ALICE)
    full = desk.connect(ALICE)
    assert isinstance(refused(full.answer), Quota)
    assert full.is_closed()
    assert desk.connect(BOB).ask("status")["callers"] == door.IDLE_MOST + 1
    assert door.idle_callers(desk.service) == {ALICE: door.IDLE_MOST, BOB: 1}


def test_those_with_machines_count_for_none_of_these(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "IDLE_MOST", 2)
    for _ in range(3):
        desk.connect(ALICE).claim()
    assert desk.connect(ALICE).ask("status")["callers"] == 4


# --- those who leave, or are wrong ---------------------------------------------------------------


def test_one_who_leaves_is_forgotten(desk: Desk) -> None:
    client = desk.connect()
    client.ask("status")
    client.close()
    desk.until(lambda: not desk.service.callers, "it to be forgotten")
    assert desk.connect().ask("status")["callers"] == 1


def test_what_somebody_said_before_leaving_is_done(desk: Desk) -> None:
    client = desk.connect()
    name = client.claim()["machine"]
    client.send("release", outcome={"code": 3, "reason": "it failed"})
    client.close()
    desk.emptied()
    assert '"code": 3' in desk.service.logs.read(name, ALICE, log="status.json")


def test_a_request_of_another_version_is_told_which_there_are(desk: Desk) -> None:
    client = desk.connect()
    for version in (0, 2, "1", None, 1.5):
        client.raw(
            b'{"op": "status", "v": %s}'
            % repr(version).encode().replace(b"None", b"null").replace(b"'", b'"')
        )
        error = refused(client.answer)
        assert isinstance(error, Invalid)
        assert "speaks protocols 1 to 1" in error.message
    assert client.ask("status")["callers"] == 1


def test_who_cannot_be_known_is_turned_away(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(_: socket.socket) -> None:
        raise Denied("the client (pid 0, uid 0) is gone, or is not of this host")

    monkeypatch.setattr(door, "peer_of", nobody)
    client = desk.connect()
    desk.until(client.is_closed, "it to be turned away")
    assert not desk.service.callers
