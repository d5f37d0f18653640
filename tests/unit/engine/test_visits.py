"""Ports that are added to a running machine, as QEMU tells of them."""

from __future__ import annotations

from mayfly.engine.argv import PORTS_MOST
from mayfly.engine.visits import FIRST, adding, port_name, read_doors, removing
from mayfly.guest.sessions import VISIT


def device(label: str, filename: str) -> dict[str, object]:
    return {"label": label, "filename": filename, "frontend-open": True}


def test_who_is_at_which_port_is_read() -> None:
    found = [
        device("qmp", "unix:/x,server=on"),
        device("session", "disconnected:unix:/x,server=on"),
        device("visit4", "unix:,peer=1"),
        device("visit5", "disconnected:fd"),
        device("visitor", "disconnected:fd"),
        {},
    ]
    doors = read_doors(found)
    assert (doors.main_free, doors.used, doors.left) == (True, (4,), (5,))
    assert doors.next == 6


def test_a_machine_without_a_session_port_has_no_free_one() -> None:
    doors = read_doors([])
    assert not doors.main_free
    assert doors.next == FIRST


def test_there_is_room_for_so_many_and_no_more() -> None:
    full = [device(f"visit{number}", "unix:") for number in range(FIRST, PORTS_MOST)]
    assert read_doors(full[1:]).next == FIRST
    assert read_doors(full).next is None


def test_a_port_is_added_and_removed_under_one_name() -> None:
    (_, backend), (_, added) = adding(7)
    (_, removed), (_, chardev) = removing(7)
    assert backend["id"] == added["chardev"] == chardev["id"]
    assert added["id"] == removed["id"]
    assert added["name"] == port_name(7)
    assert VISIT.fullmatch(port_name(7))
