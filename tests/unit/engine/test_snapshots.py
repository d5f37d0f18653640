"""Snapshots: what is refused before anything is done, and what is left when QEMU fails."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mayfly.engine import snapshots
from mayfly.engine.control import Control
from mayfly.engine.machine import Machine
from mayfly.engine.memoryfile import file_of, node_of
from mayfly.engine.process import Process
from mayfly.engine.records import new_place
from mayfly.engine.snapshots import (
    MOST,
    check_name,
    delete_snapshot,
    list_snapshots,
    revert_to,
    save_snapshot,
)
from mayfly.errors import Conflict, Failed, Invalid, Missing, Quota
from tests.unit.engine.machines import of_process, sleeping
from tests.unit.engine.qmp import FakeQmp, monitored


class Disks:
    """What QEMU has open, with the snapshots in it."""

    def __init__(self, qmp: FakeQmp) -> None:
        self.names: list[str] = []
        self.running = True
        self.ports: list[dict[str, str]] = []
        qmp.jobs_end()
        qmp.answers |= {
            "query-named-block-nodes": lambda _: self._nodes(),
            "query-status": lambda _: self._status(),
            "query-chardev": lambda _: self.ports,
            "stop": lambda _: self._run(on=False),
            "cont": lambda _: self._run(on=True),
        }
        qmp.tell("add-fd", {"fdset-id": 9, "fd": 30})
        qmp.tell("query-fdsets", [])

    def _run(self, *, on: bool) -> None:
        self.running = on

    def _status(self) -> dict[str, Any]:
        return {"running": self.running, "status": "running" if self.running else "paused"}

    def _nodes(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = [
            {"name": name, "date-sec": 1000 - at, "date-nsec": 500_000_000, "vm-state-size": 7}
            for at, name in enumerate(self.names)
        ]
        top = {"node-name": "disk0", "image": {"virtual-size": 1 << 30, "snapshots": found}}
        memories = [
            {"node-name": node_of(one["name"]), "image": {"virtual-size": 1, "snapshots": [one]}}
            for one in found
        ]
        return [{"node-name": "#block1", "image": {"virtual-size": 1}}, top, *memories]


@pytest.fixture
def made(tmp_path: Path) -> Iterator[tuple[Machine, FakeQmp, Disks]]:
    _, place = new_place(tmp_path / "machines")
    (place.path / "disk.qcow2").write_bytes(b"x")
    ours, theirs = socket.socketpair()
    with sleeping() as child, monitored() as (qmp, monitor), ours, theirs:
        process = Process(
            pid=child.pid,
            handle=os.pidfd_open(child.pid),
            monitor=monitor,
            place=place.path,
            output=-1,
        )
        machine = Machine(process, Control(ours, process.handle), of_process(child), place)
        yield machine, qmp, Disks(qmp)
        os.close(process.handle)
    place.remove()


def left(machine: Machine) -> list[str]:
    return [path.name for path in machine.place.path.glob("snapshot-*")]


@given(st.from_regex(r"[a-z0-9-]{1,40}", fullmatch=True))
def test_good_names(name: str) -> None:
    check_name(name)
    assert len(f"{node_of(name)}-file") <= 31, "QEMU's limit of such names"
    assert file_of(Path("/m"), name).parent == Path("/m")


@pytest.mark.parametrize(
    "name", ["", "A", "a b", "a/b", "..", "a" * 41, "a\n", "\u00e9", "a_b", "a\0"]
)
def test_bad_names(made: tuple[Machine, FakeQmp, Disks], name: str) -> None:
    machine, qmp, _ = made
    with pytest.raises(Invalid, match="cannot be the name"):
        save_snapshot(machine, name)
    assert qmp.names() == []


def test_they_are_listed_oldest_first(made: tuple[Machine, FakeQmp, Disks]) -> None:
    machine, _, disks = made
    assert list_snapshots(machine.process.monitor) == []
    disks.names = ["late", "early"]
    found = list_snapshots(machine.process.monitor)
    assert [(one.name, one.created_at, one.memory_bytes) for one in found] == [
        ("early", 999.5, 7),
        ("late", 1000.5, 7),
    ]


@pytest.mark.parametrize("running", [True, False])
def test_a_machine_is_stopped_meanwhile_and_is_then_as_it_was(
    made: tuple[Machine, FakeQmp, Disks], *, running: bool
) -> None:
    machine, qmp, disks = made
    disks.running = running
    save_snapshot(machine, "point")
    names = qmp.names()
    assert names.index("stop") < names.index("snapshot-save")
    assert disks.running is running
    (_, arguments), *_ = [item for item in qmp.asked if item[0] == "snapshot-save"]
    assert arguments["tag"] == "point"
    assert arguments["devices"] == ["disk0", arguments["vmstate"]]
    assert left(machine) == ["snapshot-point.qcow2"]


@pytest.mark.parametrize("command", ["add-fd", "blockdev-add", "blockdev-create", "snapshot-save"])
def test_a_failure_leaves_nothing_and_the_machine_goes_on(
    made: tuple[Machine, FakeQmp, Disks], command: str
) -> None:
    machine, qmp, disks = made
    qmp.refuse(command, "no such thing")
    with pytest.raises(Failed, match="no such thing"):
        save_snapshot(machine, "point")
    assert left(machine) == []
    assert disks.running


def test_a_name_that_is_taken(made: tuple[Machine, FakeQmp, Disks]) -> None:
    machine, qmp, disks = made
    disks.names = ["point"]
    with pytest.raises(Conflict, match="already"):
        save_snapshot(machine, "point")
    assert "stop" not in qmp.names()


def test_there_is_an_end_to_them(made: tuple[Machine, FakeQmp, Disks]) -> None:
    machine, qmp, disks = made
    disks.names = [f"s{number}" for number in range(MOST)]
    with pytest.raises(Quota, match=f"has {MOST} snapshots"):
        save_snapshot(machine, "one-more")
    assert "stop" not in qmp.names()


def test_room_is_looked_for_first(
    made: tuple[Machine, FakeQmp, Disks], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine, qmp, _ = made
    usage = type("Usage", (), {"free": 100 << 20})
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(Quota, match="which has 100 MiB free"):
        save_snapshot(machine, "point")
    assert "stop" not in qmp.names()


@pytest.mark.parametrize("act", [revert_to, delete_snapshot])
def test_what_is_not_there(made: tuple[Machine, FakeQmp, Disks], act: Any) -> None:
    machine, qmp, disks = made
    disks.names = ["one"]
    with pytest.raises(Missing, match="no snapshot 'two'") as caught:
        act(machine, "two")
    assert caught.value.hint == "it has: one"
    assert qmp.names() == ["query-named-block-nodes"]


def test_a_machine_whose_memory_may_be_anything_is_not_let_run(
    made: tuple[Machine, FakeQmp, Disks],
) -> None:
    machine, qmp, disks = made
    disks.names = ["point"]
    qmp.jobs_end(error="Error -22 while loading VM state")
    with pytest.raises(Failed, match="go back to the snapshot 'point': Error -22"):
        revert_to(machine, "point")
    assert not disks.running
    assert "cont" not in qmp.names()


def test_a_machine_that_cannot_be_refreshed_is_stopped_again(
    made: tuple[Machine, FakeQmp, Disks], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        assert disks.running
        raise Failed("its random numbers repeat")

    machine, _, disks = made
    disks.names = ["point"]
    monkeypatch.setattr(snapshots, "refresh", refuse)
    with pytest.raises(Failed, match="repeat"):
        revert_to(machine, "point")
    assert not disks.running


def test_shared_directories_are_told_by_their_port(made: tuple[Machine, FakeQmp, Disks]) -> None:
    machine, qmp, disks = made
    disks.names = ["point"]
    disks.ports = [{"label": "share", "filename": "unix:/x/share,server=on"}]
    with pytest.raises(Conflict, match="shared directories"):
        revert_to(machine, "point")
    with pytest.raises(Conflict, match="shared directories"):
        save_snapshot(machine, "other")
    assert "stop" not in qmp.names()
