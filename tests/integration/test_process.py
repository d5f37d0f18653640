"""Starting QEMU: what is left when it does not come up, and how it is told."""

from __future__ import annotations

import functools
import json
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mayfly.config import Settings
from mayfly.engine import process
from mayfly.engine.argv import Drive, Plan
from mayfly.engine.launch import Isolation
from mayfly.engine.monitor import Monitor
from mayfly.engine.probe import Qemu, probe_qemu
from mayfly.engine.process import Process, start_process
from mayfly.engine.records import RECORD, Place, Record, is_alive, new_place, read_record
from mayfly.errors import Failed
from mayfly.model import Shape, State
from tests.integration.shut_in import UID

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]


@pytest.fixture
def qemu(tmp_path_factory: pytest.TempPathFactory) -> Qemu:
    return probe_qemu(Settings(), tmp_path_factory.getbasetemp() / "probe")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    _, made = new_place(tmp_path / "machines")
    yield made
    made.remove()


@pytest.fixture
def plan(tmp_path: Path) -> Iterator[Plan]:
    """A machine with an empty disk, which boots nothing."""
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(1 << 20))
    # QEMU takes a descriptor for a read-only disk only if it cannot be written to.
    fds = [os.memfd_create("memory"), os.open(disk, os.O_RDWR), os.open(disk, os.O_RDONLY)]
    os.ftruncate(fds[0], 128 << 20)
    yield Plan(
        name="mayfly-test",
        shape=Shape(cpus=1, memory_mib=128),
        accelerator="tcg",
        memory_fd=fds[0],
        share_memory=True,
        incoming=False,
        disks=(Drive(fd=fds[1], format="raw"),),
        agent_disk_fd=fds[2],
        sockets={},
    )
    for fd in fds:
        os.close(fd)


def start(
    qemu: Qemu, plan: Plan, place: Place, isolation: Isolation | None = None
) -> tuple[Process, Record]:
    record = Record(
        id=place.path.name,
        image="none",
        template="",
        cpus=1,
        memory_mib=128,
        network="none",
        state=State.WANTED,
        command="",
        created_at=time.time(),
    )
    found, record = start_process(qemu, plan, isolation or Isolation(uid=UID), place, record)
    try:
        found.ready()
    except Failed:
        found.let_go()
        raise
    return found, record


def test_qemu_runs_shut_in_with_its_pid_written_down(qemu: Qemu, plan: Plan, place: Place) -> None:
    found, record = start(qemu, plan, place)
    try:
        assert read_record(place.path) == record
        assert (record.pid, record.state) == (found.pid, State.STARTING)
        assert is_alive(record)
        assert found.monitor.call("query-status")["running"] is True
        status = Path(f"/proc/{found.pid}/status").read_text()
        assert f"Uid:\t{UID}\t{UID}\t{UID}\t{UID}\n" in status
        assert "Seccomp:\t2\n" in status
        assert "CapEff:\t0000000000000000\n" in status
        for name in ("control", "session", "share"):
            found.connect(name).close()
    finally:
        found.kill()
        found.let_go()
    assert not is_alive(record)


def children() -> set[str]:
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


def check_nothing_left(qemu: Qemu, plan: Plan, place: Place, said: str) -> None:
    before, descriptors = children(), set(os.listdir("/proc/self/fd"))
    with pytest.raises(Failed, match=said):
        start(qemu, plan, place)
    assert children() == before
    assert set(os.listdir("/proc/self/fd")) == descriptors
    assert not is_alive(read_record(place.path))


def test_what_qemu_says_when_it_does_not_start(qemu: Qemu, plan: Plan, place: Place) -> None:
    plan = replace(plan, cpu_model="no-such-cpu")
    check_nothing_left(qemu, plan, place, "QEMU did not start: .*no-such-cpu")


def test_a_qemu_that_is_not_there(qemu: Qemu, plan: Plan, place: Place) -> None:
    missing = replace(qemu, path="/usr/bin/no-such-qemu")
    check_nothing_left(missing, plan, place, "cannot start QEMU: .*No such file")


def test_a_qemu_that_says_nothing(
    qemu: Qemu, plan: Plan, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "qemu_argv", lambda *_: ["/usr/bin/sleep", "600"])
    monkeypatch.setattr(process, "Monitor", functools.partial(Monitor, timeout_s=0.3))
    check_nothing_left(qemu, plan, place, r"QEMU did not start: .*in time")


def test_a_record_that_cannot_be_written(
    qemu: Qemu, plan: Plan, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Place, record: Record) -> None:
        (self.path / RECORD).write_text(json.dumps({"pid": record.pid}))
        raise OSError(28, "No space left on device")

    before = children()
    monkeypatch.setattr(Place, "write", full)
    with pytest.raises(OSError, match="No space"):
        start(qemu, plan, place)
    assert children() == before
