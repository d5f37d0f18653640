"""Machines that another process takes over, from a maker that lives or that has died."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mayfly.engine.control import Control
from mayfly.engine.machine import Machine
from mayfly.engine.monitor import Monitor
from mayfly.engine.process import Process
from mayfly.engine.reattach import handles, rebuild, reconnect
from mayfly.engine.records import Place, Record, new_place
from mayfly.errors import Failed, Unavailable
from mayfly.guest.framing import Kind, Parser, pack, pack_message, pack_sync
from tests.unit.engine.machines import of_process, sleeping

HELLO = {"type": "hello", "protocol": 1, "protocol_min": 1, "features": ["refresh", 7]}


def serve_monitor(port: socket.socket) -> None:
    """Answer each command with its own name."""
    with contextlib.suppress(OSError):
        for line in port.makefile("rb"):
            asked = json.loads(line)
            reply = {"return": asked["execute"], "id": asked["id"]}
            port.sendall(json.dumps(reply).encode() + b"\n")


def serve_agent(port: socket.socket, *, synced: bool = False) -> None:
    """Greet, and answer each request with its own type."""
    parser = Parser(synced=synced)
    with contextlib.suppress(OSError):
        while data := port.recv(65536):
            for frame in parser.feed(data):
                if frame.kind is Kind.SYNC:
                    port.sendall(pack_sync(frame.payload) + pack_message(HELLO))
                else:
                    said = frame.message
                    port.sendall(pack_message({"type": "ok", "of": said["type"], "id": said["id"]}))


class Qemu:
    """A process that stands for QEMU, and its sockets in a machine's directory."""

    def __init__(self, process: subprocess.Popen[bytes], place: Place, *, silent: bool) -> None:
        self.record = of_process(process)
        self.place = place
        self.process = process
        self._silent = silent
        self.listeners = {name: self._listen(name) for name in ("qmp", "control")}
        self.connections: list[socket.socket] = []
        self.threads = [
            threading.Thread(target=self._serve, args=[name]) for name in self.listeners
        ]
        for thread in self.threads:
            thread.start()

    def _listen(self, name: str) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self.place.path / name))
        listener.listen(4)
        return listener

    def _serve(self, name: str) -> None:
        with contextlib.suppress(OSError):
            connection = self.listeners[name].accept()[0]
            self.connections.append(connection)
            if self._silent:
                return
            if name == "qmp":
                connection.sendall(b'{"QMP": {}}\n')
                serve_monitor(connection)
            else:
                serve_agent(connection)

    def close(self) -> None:
        for one in (*self.listeners.values(), *self.connections):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in self.threads:
            thread.join()
        for one in (*self.listeners.values(), *self.connections):
            one.close()


@contextlib.contextmanager
def running(machines: Path, *, silent: bool = False) -> Iterator[Qemu]:
    _, place = new_place(machines)
    with sleeping() as process:
        qemu = Qemu(process, place, silent=silent)
        yield qemu
        qemu.close()
    place.remove()


@pytest.fixture
def qemu(tmp_path: Path) -> Iterator[Qemu]:
    with running(tmp_path) as one:
        yield one


def let_go(machine: Machine) -> None:
    machine.control.close()
    machine.process.let_go()


# --- after the death of the maker ----------------------------------------------------------------


def test_a_machine_is_found_again_by_its_sockets(qemu: Qemu) -> None:
    machine = reconnect(qemu.record, qemu.place, patience_s=10)
    assert machine.process.monitor.call("query-status") == "query-status"
    assert machine.control.request({"type": "sample"})["of"] == "sample"
    assert machine.control.features == frozenset({"refresh", "7"})
    assert (machine.record, machine.place) == (qemu.record, qemu.place)
    assert not machine.process.has_ended()
    let_go(machine)


def test_a_stopped_guest_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.serve_agent", lambda _: None)
    with running(tmp_path) as qemu:
        machine = reconnect(qemu.record, qemu.place, patience_s=10)
        assert machine.process.monitor.call("cont") == "cont"
        let_go(machine)


def test_a_frozen_qemu_is_not_waited_for_long(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with running(tmp_path, silent=True) as qemu:
        with pytest.raises(Unavailable, match="in time"):
            reconnect(qemu.record, qemu.place, patience_s=0.05)
        assert qemu.process.poll() is None, "it must go on"
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_qemu_that_takes_no_more_connections(tmp_path: Path) -> None:
    _, place = new_place(tmp_path)
    with sleeping() as process, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place.path / "qmp"))
        listener.listen(0)
        with socket.socket(socket.AF_UNIX) as first:
            first.connect(str(place.path / "qmp"))
            with pytest.raises(Failed, match="busy"):
                reconnect(of_process(process), place, patience_s=0.05)
    place.remove()


@pytest.mark.parametrize("changes", [{"started": 1}, {"pid": 0}, {"pid": 1 << 22}])
def test_another_process_of_that_pid_is_not_the_machine(
    qemu: Qemu, changes: dict[str, int]
) -> None:
    values = {name: getattr(qemu.record, name) for name in Record.__slots__}
    with pytest.raises(Failed, match="not running any more"):
        reconnect(Record(**{**values, **changes}), qemu.place, patience_s=1)


def test_a_machine_whose_sockets_are_gone(qemu: Qemu) -> None:
    (qemu.place.path / "control").unlink()
    with pytest.raises(Failed, match="control socket"):
        reconnect(qemu.record, qemu.place, patience_s=1)


# --- from a maker that lives ---------------------------------------------------------------------


def a_machine(qemu: Qemu, monitor: socket.socket, control: socket.socket) -> Machine:
    handle = os.pidfd_open(qemu.record.pid)
    output = os.open("/dev/null", os.O_RDONLY)
    process = Process(
        pid=qemu.record.pid,
        handle=handle,
        monitor=Monitor(monitor, timeout_s=10),
        place=qemu.place.path,
        output=output,
    )
    talk = Control(control, handle)
    return Machine(process, talk, qemu.record, qemu.place)


@pytest.fixture
def made(qemu: Qemu) -> Iterator[tuple[Machine, socket.socket, socket.socket]]:
    """A machine of this process, and QEMU's ends of its monitor and of its control port."""
    (ours, theirs), (mine, guest) = socket.socketpair(), socket.socketpair()
    machine = a_machine(qemu, ours, mine)
    with theirs, guest:
        yield machine, theirs, guest
    let_go(machine)


def sent_away(machine: Machine) -> list[int]:
    """Give the descriptors as another process would have them."""
    left, right = socket.socketpair()
    with left, right:
        socket.send_fds(left, [b"x"], handles(machine))
        return socket.recv_fds(right, 1, 4)[1]


def test_another_process_goes_on_with_monitor_and_agent(
    qemu: Qemu, made: tuple[Machine, socket.socket, socket.socket]
) -> None:
    machine, monitor, guest = made
    other = rebuild(qemu.record, qemu.place, sent_away(machine))
    answering = [
        threading.Thread(target=serve_monitor, args=[monitor]),
        threading.Thread(target=serve_agent, args=[guest], kwargs={"synced": True}),
    ]
    for thread in answering:
        thread.start()
    assert other.process.monitor.call("query-status") == "query-status"
    assert other.control.request({"type": "claim"}, timeout_s=10)["of"] == "claim"
    assert not other.process.has_ended()
    for port in (monitor, guest):
        port.shutdown(socket.SHUT_RDWR)
    for thread in answering:
        thread.join()
    let_go(other)


def test_nothing_is_asked_of_qemu_or_guest_when_a_machine_is_rebuilt(
    qemu: Qemu, made: tuple[Machine, socket.socket, socket.socket]
) -> None:
    machine, monitor, guest = made
    other = rebuild(qemu.record, qemu.place, sent_away(machine))
    for port in (monitor, guest):
        with pytest.raises(BlockingIOError):
            port.recv(1, socket.MSG_DONTWAIT)
    let_go(other)


def test_an_answer_to_the_maker_is_not_taken_for_ones_own(
    qemu: Qemu, made: tuple[Machine, socket.socket, socket.socket]
) -> None:
    machine, _, guest = made
    late = machine.control.send({"type": "sample"})
    other = rebuild(qemu.record, qemu.place, sent_away(machine))
    guest.sendall(pack_message({"type": "ok", "id": late, "random": "old"}))
    number = other.control.send({"type": "refresh"})
    guest.sendall(pack_message({"type": "ok", "id": number, "random": "new"}))
    assert other.control.answer(number, "refresh", timeout_s=10)["random"] == "new"
    let_go(other)


def test_what_is_half_read_is_read_whole_before_it_is_handed_on(
    qemu: Qemu, made: tuple[Machine, socket.socket, socket.socket]
) -> None:
    machine, monitor, _ = made
    monitor.sendall(b'{"event": "RES')
    assert machine.process.monitor.events() == []
    rest = threading.Timer(0.05, monitor.sendall, [b'UME"}\n'])
    rest.start()
    fds = sent_away(machine)
    rest.join()
    other = rebuild(qemu.record, qemu.place, fds)
    monitor.sendall(b'{"return": 1, "id": 1}\n')
    assert other.process.monitor.call("x") == 1
    let_go(other)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_machine_that_ended_is_not_handed_on(
    made: tuple[Machine, socket.socket, socket.socket], when: str
) -> None:
    machine, monitor, _ = made
    event: dict[str, Any] = {"event": "BLOCK_IO_ERROR", "data": {"reason": "Input/output error"}}
    monitor.sendall(json.dumps(event).encode() + b"\n")
    if when == "before":
        monitor.sendall(b'{"return": 1, "id": 1}\n')
        machine.process.monitor.call("query-status")
    with pytest.raises(Failed, match="its disk failed"):
        handles(machine)


def test_a_guest_that_was_cut_off_only_hurts_itself(
    qemu: Qemu, made: tuple[Machine, socket.socket, socket.socket]
) -> None:
    machine, _, guest = made
    other = rebuild(qemu.record, qemu.place, sent_away(machine))
    guest.sendall(pack(Kind.DATA, 0, b"x" * 10)[3:])
    with pytest.raises((Failed, Unavailable)):
        other.control.request({"type": "claim"}, timeout_s=0.05)
    let_go(other)
