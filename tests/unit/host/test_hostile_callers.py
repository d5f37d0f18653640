"""Callers who want too much, read nothing, or come back to what is no longer theirs; set clocks."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import signal
import socket
import time
from collections.abc import Callable, Generator
from typing import Any

import pytest

from mayfly.engine.records import read_record
from mayfly.errors import Conflict, Failed, Missing, Quota, Unavailable
from mayfly.host import door, expiry, limits, line, machines, names, work
from mayfly.host.caller import SEND_BYTES
from mayfly.host.loop import Loop, Task, Timer, Wait
from tests.unit.host.services import ALICE, BOB, Desk, claim_fields, desk, refused
from tests.unit.host.test_fuzz_protocol import assert_goes_on

__all__ = ["desk"]

# --- too much ------------------------------------------------------------------------------------


def test_who_never_reads_is_given_up(desk: Desk) -> None:
    client = desk.connect(ALICE)
    client.port.setblocking(True)
    client.port.settimeout(0.2)
    asked = 0
    with contextlib.suppress(OSError):
        while asked < 100 * SEND_BYTES // 300:
            client.raw(b'{"v":1,"op":"status"}')
            desk.service.loop.run_once(0)
            asked += 1
    desk.settle()
    assert list(desk.service.callers) == []
    assert asked < 4 * SEND_BYTES // 300
    assert_goes_on(desk)


def test_a_user_has_so_many_idle_connections_and_keeps_nobody_out(desk: Desk) -> None:
    clients = [desk.connect(ALICE) for _ in range(door.IDLE_MOST + 10)]
    assert sum(client.is_closed() for client in clients) == 10
    assert_goes_on(desk)


def test_thousands_of_requests_at_once_look_a_name_up_once(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []

    def counted(body: Any, *, name: str, **more: Any) -> Generator[Wait, int | None, work.Done]:
        if "lookup" in name:
            begun.append(name)
        return (yield from work.work(body, name=name, **more))

    monkeypatch.setattr(names, "work", counted)
    desk.limit(machines=-1)
    clients = [desk.connect(ALICE) for _ in range(door.IDLE_MOST)]
    for client in clients:
        client.send("claim", **claim_fields())
    desk.until(lambda: all(client.of("error") for client in clients), "all answers")
    assert len(begun) == 1


def test_requests_whose_user_is_looked_up_are_limited_too(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hangs(*_: Any, **__: Any) -> Generator[Wait, int | None, work.Done]:
        yield Wait(seconds=1000)
        raise AssertionError

    monkeypatch.setattr(names, "work", hangs)
    desk.limit(line_user=5)
    clients = [desk.connect(ALICE) for _ in range(8)]
    for client in clients:
        client.send("claim", **claim_fields())
    desk.settle()
    kinds = [one["kind"] for client in clients for one in client.of("error")]
    assert kinds == ["Quota"] * 3


def test_a_host_without_processes_left_refuses_and_goes_on(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: Any, **__: Any) -> None:
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    with monkeypatch.context() as short:
        short.setattr(work, "start_forked", none)
        error = refused(desk.connect(ALICE).claim)
    assert isinstance(error, Unavailable)
    assert desk.connect(ALICE).claim()["machine"]


def test_hundreds_in_line_hold_nobody_up(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    holder = desk.connect(BOB)
    holder.claim()
    desk.limit(machines=1)
    clients = []
    for _ in range(200):
        client = desk.connect(ALICE)
        client.send("claim", **claim_fields())
        clients.append(client)
        desk.settle()
    assert len(desk.service.line) == len(clients)
    asked: list[str] = []

    def counted(*words: Any) -> str:
        asked.append("")
        return limits.why(*words)

    monkeypatch.setattr(line, "why", counted)
    # Everybody's place is another now.
    clients[0].close()
    desk.settle()
    # Why there is no room takes long to find out, and is the same for all of them.
    assert len(asked) == 1
    assert {one["place"] for client in clients[1:] for one in client.of("line")[-1:]} == {
        *range(1, len(clients))
    }


class FullDoor:
    """A door at which somebody waits, and no descriptor is left to take him in."""

    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.theirs.send(b"x")
        self.asked = 0

    def fileno(self) -> int:
        return self.ours.fileno()

    def accept(self) -> None:
        self.asked += 1
        raise OSError(errno.EMFILE, "Too many open files")


def test_without_descriptors_the_service_does_not_run_in_circles(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = FullDoor()
    monkeypatch.setattr(door, "FULL_S", 3600.0)
    door.open_door(desk.service, full)  # type: ignore[arg-type]
    for _ in range(20):
        desk.service.loop.run_once(0)
    assert full.asked == 1
    full.ours.close()
    full.theirs.close()


def test_timers_that_were_cancelled_are_not_kept() -> None:
    loop = Loop()
    read, write = os.pipe()
    os.write(write, b"x")
    turns = 5000

    def waits() -> Task:
        for _ in range(turns):
            yield Wait(fds=(read,), seconds=3600)

    loop.spawn(waits())
    for _ in range(turns):
        loop.run_once(0)
    os.close(read)
    os.close(write)
    assert sum(isinstance(one, Timer) for one in gc.get_objects()) < turns / 2


def test_who_does_not_read_a_long_log_is_not_waited_for(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    logs = desk.service.logs
    assert logs.begin("abcdefgh", ALICE, image="i", now=1.0) == ""
    assert logs.console("abcdefgh", b"\x1b" * 700_000) == ""
    monkeypatch.setattr(machines, "READ_LIMIT_S", 0.1)
    client = desk.connect(ALICE)
    client.send("logs", machine="abcdefgh")
    desk.settle()
    (seen,) = desk.service.callers
    assert not seen.is_idle
    assert_goes_on(desk)
    desk.until(lambda: seen.is_idle, "the service to give up")
    assert client.of("error")[-1]["kind"] == "Unavailable"


# --- the clock -----------------------------------------------------------------------------------


@pytest.mark.parametrize("jump_s", [86_400.0 * 365, -86_400.0 * 365])
def test_a_clock_that_is_set_ends_no_machine(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, jump_s: float
) -> None:
    desk.connect(ALICE).claim(outlive=True, life_s=100.0)
    expiry.end_expired(desk.service)
    before = desk.only().record.expires_at or 0.0
    clock = time.time
    monkeypatch.setattr(time, "time", lambda: clock() + jump_s)
    expiry.end_expired(desk.service)
    desk.settle()
    hosted = desk.only()
    assert hosted.doomed == ""
    assert hosted.record.expires_at == pytest.approx(before + jump_s, abs=5)
    assert read_record(hosted.place.path).expires_at == hosted.record.expires_at


def test_time_that_has_passed_ends_a_machine(desk: Desk) -> None:
    desk.connect(ALICE).claim(outlive=True, life_s=0.3)
    expiry.end_expired(desk.service)
    assert desk.only().doomed == ""
    desk.emptied()


# --- what a connection holds ---------------------------------------------------------------------


def test_a_connection_is_idle_again_when_the_machine_that_it_entered_is_gone(desk: Desk) -> None:
    owner = desk.connect(ALICE)
    name = owner.claim(outlive=True)["machine"]
    owner.close()
    desk.settle()
    visitor = desk.connect(ALICE)
    visitor.ask("enter", machine=name)
    (seen,) = desk.service.callers
    assert not seen.is_idle
    assert desk.connect(ALICE).ask("delete", machine=name)
    desk.emptied()
    assert seen.is_idle


def test_a_visitor_cannot_end_the_machine_by_giving_it_back(desk: Desk) -> None:
    name = desk.connect(ALICE).claim(outlive=True)["machine"]
    desk.clients[-1].close()
    desk.settle()
    visitor = desk.connect(ALICE)
    visitor.ask("enter", machine=name)
    # Somebody else has thrown the visitor out meanwhile.
    desk.only().visitor = None
    error = refused(lambda: visitor.ask("release"))
    assert isinstance(error, Missing)
    assert (desk.only().id, desk.only().doomed) == (name, "")


def test_a_guest_and_a_qemu_that_do_not_read_do_not_stop_the_service(desk: Desk) -> None:
    desk.connect(ALICE).claim()
    machine = desk.only().machine
    assert machine is not None
    os.kill(machine.process.pid, signal.SIGSTOP)
    for send in (
        lambda: machine.control.send({"type": "refresh"}),
        lambda: machine.process.monitor.send("stop"),
    ):
        with pytest.raises(Failed):
            repeated(send)
    assert_goes_on(desk)


def repeated(call: Callable[[], object]) -> None:
    for _ in range(100_000):
        call()


def test_who_keeps_the_sessions_of_earlier_visits_stops_nobody(desk: Desk) -> None:
    name = desk.connect(ALICE).claim(outlive=True)["machine"]
    desk.clients[-1].close()
    os.kill(desk.only().record.pid, signal.SIGSTOP)
    kept: list[int] = []
    errors = []
    began = time.monotonic()
    for _ in range(8):
        desk.settle()
        visitor = desk.connect(ALICE)
        try:
            visitor.ask("enter", machine=name)
        except (Failed, Conflict) as error:
            errors.append(error)
        kept += visitor.fds
        visitor.fds.clear()
        visitor.close()
    assert time.monotonic() - began < 5
    assert errors
    assert all("busy" in error.message for error in errors)
    for fd in kept:
        os.close(fd)


def test_a_user_who_is_refused_for_too_many_requests_is_told_so(desk: Desk) -> None:
    holder = desk.connect(ALICE)
    holder.claim()
    desk.limit(machines=1, line_user=2)
    clients = [desk.connect(ALICE) for _ in range(4)]
    for client in clients:
        client.send("claim", **claim_fields())
    desk.settle()
    errors = [one for client in clients for one in client.of("error")]
    assert [one["kind"] for one in errors] == [Quota.__name__] * 2
    other = desk.connect(BOB)
    other.send("claim", **claim_fields())
    desk.settle()
    assert other.of("error") == []
