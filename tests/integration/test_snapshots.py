"""Real machines that are taken back to an earlier moment, with whoever is connected to them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mayfly.engine.machine import Machine
from mayfly.engine.ports import is_connected
from mayfly.engine.reattach import reconnect
from mayfly.engine.records import new_place
from mayfly.engine.refresh import read_drawn
from mayfly.engine.snapshots import delete_snapshot, list_snapshots, revert_to, save_snapshot
from mayfly.errors import Conflict, Failed, Invalid, Missing, Quota
from tests.integration.machines import (
    ORDER,
    Workshop,
    attempt,
    clock_error_s,
    in_background,
    run,
)
from tests.integration.waiting import wait_until

pytestmark = pytest.mark.integration

CHANGE = "echo new > /root/file; rm /dev/shm/memory; sync"
LOOK = "cat /root/file; sha1sum < /dev/shm/memory | cmp - /root/sum && echo same"
TICK = ": session42; while :; do echo tick; sleep 0.1; done"
NO_SESSION = "while pgrep -f session4[2]; do sleep 0.1; done"


@pytest.fixture
def machine(workshop: Workshop) -> Iterator[Machine]:
    """A machine with a file on disk and one in memory."""
    one = workshop.start()
    prepare(one)
    yield one
    one.delete()


def prepare(machine: Machine) -> None:
    run(
        machine, "head -c 20M /dev/urandom > /dev/shm/memory; sha1sum < /dev/shm/memory > /root/sum"
    )
    run(machine, "echo old > /root/file")


def names(machine: Machine) -> list[str]:
    return [snapshot.name for snapshot in list_snapshots(machine.process.monitor)]


def files(machine: Machine) -> list[str]:
    return sorted(path.name for path in machine.place.path.glob("snapshot-*"))


def test_memory_and_disk_are_as_they_were_and_the_time_is_right(machine: Machine) -> None:
    save_snapshot(machine, "clean")
    for _ in range(3):
        run(machine, CHANGE)
        revert_to(machine, "clean")
        assert run(machine, LOOK) == "old\nsame\n"
        assert clock_error_s(machine) < 2
    drawn = read_drawn(machine.place.path)
    assert len(set(drawn)) == len(drawn) == 3
    (snapshot,) = list_snapshots(machine.process.monitor)
    assert 20 << 20 < snapshot.memory_bytes < 600 << 20


def test_each_point_has_a_name_of_its_own(machine: Machine) -> None:
    save_snapshot(machine, "one")
    run(machine, "echo two > /root/file")
    save_snapshot(machine, "two")
    assert names(machine) == ["one", "two"]
    for name in ("two", "one", "two"):
        revert_to(machine, name)
        assert run(machine, "cat /root/file") == {"one": "old\n", "two": "two\n"}[name]
    with pytest.raises(Conflict, match="has a snapshot 'one' already"):
        save_snapshot(machine, "one")
    with pytest.raises(Missing, match="no snapshot 'three'") as caught:
        revert_to(machine, "three")
    assert "one, two" in caught.value.hint
    with pytest.raises(Missing):
        delete_snapshot(machine, "three")
    with pytest.raises(Invalid):
        save_snapshot(machine, "No/Name")
    delete_snapshot(machine, "one")
    assert names(machine) == ["two"]
    assert files(machine) == ["snapshot-two.qcow2"]
    revert_to(machine, "two")
    assert run(machine, LOOK) == "two\nsame\n"


def test_what_is_deleted_gives_its_room_back(machine: Machine) -> None:
    def open_files() -> int:
        links = Path(f"/proc/{machine.process.pid}/fd").iterdir()
        return sum("snapshot-" in str(link.readlink()) for link in links)

    save_snapshot(machine, "one")
    assert open_files() > 0
    delete_snapshot(machine, "one")
    assert (files(machine), open_files()) == ([], 0)
    save_snapshot(machine, "one")
    assert names(machine) == ["one"]


# --- who is connected ----------------------------------------------------------------------------


@pytest.mark.parametrize("open_then", [False, True])
@pytest.mark.parametrize("paused", [False, True])
def test_a_session_ends_on_both_sides(machine: Machine, *, open_then: bool, paused: bool) -> None:
    if not open_then:
        save_snapshot(machine, "point")
    with in_background(machine, TICK) as ended:
        if open_then:
            save_snapshot(machine, "point")
        if paused:
            machine.process.monitor.call("stop")
        revert_to(machine, "point")
        assert ended().code == 125
    assert attempt(machine, NO_SESSION, time_limit_s=30)[0].code == 0
    assert run(machine, "echo here") == "here\n"


def test_a_session_that_was_open_then_is_none_now(machine: Machine) -> None:
    with in_background(machine, "sleep 1; : session42; while test ! -e /root/end; do :; done"):
        save_snapshot(machine, "point")
        machine.process.monitor.call("yank", {"instances": [{"type": "chardev", "id": "session"}]})
    run(machine, "echo here")
    revert_to(machine, "point")
    assert attempt(machine, NO_SESSION, time_limit_s=30)[0].code == 0


def test_shared_directories_cannot_go_back_in_time(machine: Machine) -> None:
    save_snapshot(machine, "point")
    with machine.process.connect("share"):
        wait_until(lambda: is_connected(machine.process.monitor, "share"), "the connection")
        for act, name in (save_snapshot, "other"), (revert_to, "point"):
            with pytest.raises(Conflict, match="shared directories"):
                act(machine, name)
    assert run(machine, "echo here") == "here\n"
    wait_until(lambda: not is_connected(machine.process.monitor, "share"), "the end of it")
    revert_to(machine, "point")


def test_another_process_may_take_it_back(workshop: Workshop) -> None:
    one = workshop.start()
    prepare(one)
    save_snapshot(one, "point")
    run(one, CHANGE)
    one.control.close()
    one.process.monitor.close()
    other = reconnect(one.record, one.place, patience_s=10)
    try:
        assert names(other) == ["point"]
        revert_to(other, "point")
        assert run(other, LOOK) == "old\nsame\n"
    finally:
        other.delete()


# --- no room, and other machines -----------------------------------------------------------------


def test_a_machine_that_may_write_too_little(workshop: Workshop) -> None:
    one = workshop.start(order=replace(ORDER, disk_bytes=64 << 20))
    try:
        with pytest.raises(Quota, match="may write files of 64 MiB"):
            save_snapshot(one, "point")
        assert run(one, "echo here") == "here\n"
        assert (names(one), files(one)) == ([], [])
    finally:
        one.delete()


def test_a_disk_that_is_too_small(
    workshop: Workshop, small_disk: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    small = workshop.engine.paths.state / "small"
    small_disk(small, "size=150m")
    one = workshop.start(held=new_place(small))
    try:
        prepare(one)
        with pytest.raises(Quota, match="needs up to 576 MiB"):
            save_snapshot(one, "point")
        monkeypatch.setattr("mayfly.engine.snapshots._check_room", lambda _: None)
        for _ in range(2):
            with pytest.raises(Quota, match="disk of this host is full"):
                save_snapshot(one, "point")
            assert (names(one), files(one)) == ([], [])
            assert shutil.disk_usage(small).free > 100 << 20, "what was written must be gone"
            assert run(one, "head -c 20M /dev/urandom > /root/big; sync; echo here") == "here\n"
    finally:
        one.delete()


def test_a_snapshot_that_was_spoilt_ends_the_machine(machine: Machine) -> None:
    save_snapshot(machine, "point")
    run(machine, CHANGE)
    (path,) = machine.place.path.glob("snapshot-*")
    with open(path, "r+b") as file:
        # Behind the tables of the file, in the state itself.
        file.seek(4 << 20)
        while file.tell() < path.stat().st_size:
            file.write(b"\xff" * 4096)
    with pytest.raises(Failed, match="go back to the snapshot 'point'"):
        revert_to(machine, "point")
    assert not machine.process.monitor.call("query-status")["running"]


def test_a_machine_that_has_shut_down(machine: Machine) -> None:
    save_snapshot(machine, "point")
    machine.process.monitor.call("system_reset")
    machine.process.monitor.wait_event("SHUTDOWN", timeout_s=30)
    for act, name in (save_snapshot, "other"), (revert_to, "point"):
        with pytest.raises(Conflict, match="does not run any more"):
            act(machine, name)


def test_memory_of_its_own_is_in_the_snapshot(workshop: Workshop) -> None:
    one = workshop.start(own_memory=True)
    try:
        prepare(one)
        save_snapshot(one, "point")
        run(one, CHANGE)
        revert_to(one, "point")
        assert run(one, LOOK) == "old\nsame\n"
    finally:
        one.delete()
