"""After a start: what an earlier service has left is taken over, or removed, by what it is."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from mayfly.engine.linux import start_time
from mayfly.engine.monitor import Monitor
from mayfly.engine.process import connect_socket
from mayfly.host.adopt import Fate, adopt_all, fate_of
from mayfly.host.state import Hosted
from mayfly.model import State
from tests.integration.waiting import wait_until
from tests.unit.engine.machines import NOW, a_record
from tests.unit.host.services import ALICE, Desk, claim_fields, desk

__all__ = ["desk"]

FATES = [
    (State.RUNNING, True, True, Fate.ADOPT),
    (State.PAUSED, True, True, Fate.ADOPT),
    (State.RUNNING, True, False, Fate.REMOVE),
    (State.RUNNING, False, True, Fate.REMOVE),
    (State.STARTING, True, True, Fate.REMOVE),
    (State.STANDBY, True, False, Fate.REMOVE),
    (State.STOPPING, True, True, Fate.REMOVE),
    (State.WANTED, False, False, Fate.REMOVE),
    (State.SUSPENDED, False, False, Fate.STAY),
    (State.KEPT, False, False, Fate.STAY),
]


@pytest.fixture
def client_process() -> Iterator[subprocess.Popen[bytes]]:
    """A process that stands for a client, which outlives the service."""
    with subprocess.Popen(["/usr/bin/sleep", "600"]) as process:
        yield process
        process.kill()


def killed(pid: int) -> None:
    """End a QEMU, and wait for that."""
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: start_time(pid) is None, "its end")


@pytest.mark.parametrize(("state", "alive", "client_alive", "fate"), FATES)
def test_the_fate_of_a_machine(state: State, alive: bool, client_alive: bool, fate: Fate) -> None:
    record = a_record(state=state)
    assert fate_of(record, alive=alive, client_alive=client_alive, now=NOW) is fate


@pytest.mark.parametrize(("after_s", "fate"), [(-1, Fate.STAY), (0, Fate.REMOVE)])
def test_what_lies_on_disk_stays_until_its_time_is_over(after_s: float, fate: Fate) -> None:
    record = a_record(state=State.KEPT, expires_at=NOW)
    assert fate_of(record, alive=False, client_alive=False, now=NOW + after_s) is fate


def test_one_that_shall_outlive_its_client_needs_none() -> None:
    record = a_record(outlive=True)
    assert fate_of(record, alive=True, client_alive=False, now=NOW) is Fate.ADOPT


def test_a_machine_goes_on_with_its_client(
    desk: Desk, client_process: subprocess.Popen[bytes]
) -> None:
    desk.pid = client_process.pid
    name = desk.connect().claim(outlive=False, label="make test")["machine"]
    before = desk.only().record
    # Not the connection counts, which is lost with the service, but the process.
    desk.lose_callers()
    desk.die()
    adopt_all(desk.service)
    desk.until(lambda: desk.only().busy == "", "it to be taken over")
    assert (desk.only().id, desk.only().record) == (name, before)
    assert desk.connect().ask("pause", machine=name)["machine"]["state"] == "paused"
    client_process.kill()
    desk.emptied()


def test_one_whose_client_ended_meanwhile_is_removed(
    desk: Desk, client_process: subprocess.Popen[bytes]
) -> None:
    desk.pid = client_process.pid
    desk.connect().claim()
    pid = desk.only().record.pid
    desk.lose_callers()
    desk.die()
    client_process.kill()
    client_process.wait()
    adopt_all(desk.service)
    assert ([*desk.service.table], desk.places(), start_time(pid)) == ([], [], None)


def test_one_whose_qemu_ended_meanwhile_is_removed(desk: Desk) -> None:
    desk.connect().claim(outlive=True)
    pid = desk.only().record.pid
    desk.die()
    killed(pid)
    adopt_all(desk.service)
    assert ([*desk.service.table], desk.places()) == ([], [])


def test_standbys_are_made_anew(desk: Desk) -> None:
    desk.keep_ready(2)
    desk.service.hot.clear()
    pids = [one.record.pid for one in desk.ready()]
    desk.die()
    adopt_all(desk.service)
    assert ([*desk.service.table], desk.places()) == ([], [])
    assert [start_time(pid) for pid in pids] == [None, None]


def test_a_paused_machine_stays_paused(desk: Desk) -> None:
    name = desk.connect().claim(outlive=True)["machine"]
    desk.connect().ask("pause", machine=name)
    desk.die()
    adopt_all(desk.service)
    desk.until(lambda: desk.only().busy == "", "it to be taken over")
    assert desk.only().record.state is State.PAUSED
    assert desk.connect().ask("resume", machine=name)["machine"]["state"] == "running"


def test_its_time_goes_on(desk: Desk) -> None:
    desk.connect().claim(outlive=True, life_s=3600)
    expires_at = desk.only().record.expires_at
    desk.die()
    adopt_all(desk.service)
    assert desk.only().record.expires_at == expires_at


def test_limits_count_it(desk: Desk) -> None:
    desk.limit(machines=1)
    desk.connect().claim(outlive=True)
    desk.die()
    adopt_all(desk.service)
    desk.until(lambda: desk.only().busy == "", "it to be taken over")
    client = desk.connect(ALICE)
    client.send("claim", **claim_fields())
    desk.until(lambda: client.of("line") != [], "the line")
    assert desk.made == 1


@pytest.mark.parametrize("verb", ["list", "show", "delete"])
def test_a_qemu_that_is_stopped_is_not_dead(desk: Desk, verb: str) -> None:
    name = desk.connect().claim(outlive=True)["machine"]
    pid = desk.only().record.pid
    desk.die()
    os.kill(pid, signal.SIGSTOP)
    try:
        adopt_all(desk.service)
        assert "stopped" in desk.only().busy
        desk.connect().ask(verb, machine=name)
        if verb == "delete":
            desk.emptied()
            return
        assert "is busy" in str(desk.connect().why_not("pause", machine=name))
    finally:
        if verb != "delete":
            os.kill(pid, signal.SIGCONT)
    desk.until(lambda: desk.only().busy == "", "it to be taken over")
    assert desk.connect().ask("pause", machine=name)["machine"]["state"] == "paused"


def tell(hosted: Hosted, command: str) -> object:
    """Tell a QEMU something while no service is there."""
    with Monitor(connect_socket(hosted.place.path, "qmp")) as monitor:
        monitor.negotiate()
        return monitor.call(command)


@pytest.mark.parametrize(
    ("written", "done", "status"),
    [("running", "stop", "running"), ("paused", "cont", "paused"), ("running", "cont", "running")],
)
def test_what_was_under_way_is_set_right(desk: Desk, written: str, done: str, status: str) -> None:
    """Whoever takes a snapshot stops the machine, and may be killed before it lets it go on."""
    name = desk.connect().claim(outlive=True)["machine"]
    if written == "paused":
        desk.connect().ask("pause", machine=name)
    hosted = desk.only()
    desk.die()
    tell(hosted, done)
    adopt_all(desk.service)
    desk.until(lambda: desk.only().busy == "", "it to be taken over")
    assert desk.connect().ask("show", machine=name)["machine"]["state"] == written
    desk.die()
    assert tell(hosted, "query-status") == {"status": status}
    adopt_all(desk.service)


def test_a_saved_machine_whose_qemu_had_not_ended_yet_has_none(desk: Desk) -> None:
    name = desk.connect().claim(outlive=True)["machine"]
    hosted = desk.only()
    hosted.write(replace(hosted.record, state=State.SUSPENDED))
    desk.die()
    adopt_all(desk.service)
    assert start_time(hosted.record.pid) is None
    assert desk.connect().ask("show", machine=name)["machine"]["state"] == "suspended"


UNREADABLE = {
    "nothing": None,
    "not JSON": "{",
    "no object": "[]",
    "half": '{"id": "x"}',
    "another's": '{"id": "zzzzzzzz", "image": "debian-12"}',
}


@pytest.mark.parametrize("text", UNREADABLE.values(), ids=UNREADABLE)
def test_what_cannot_be_read_is_removed(desk: Desk, text: str | None) -> None:
    place = desk.service.engine.paths.machines / "a2b3c4d5"
    place.mkdir(parents=True)
    (place / "disk.qcow2").touch()
    if text is not None:
        (place / "record.json").write_text(text)
    adopt_all(desk.service)
    assert desk.places() == []


def test_what_has_no_name_yet_or_no_more_is_removed(desk: Desk) -> None:
    machines = desk.service.engine.paths.machines
    for name in (".new-a2b3c4d5", ".gone-a2b3c4d6-17"):
        (machines / name).mkdir(parents=True)
    adopt_all(desk.service)
    assert desk.places() == []


def test_a_pid_that_is_somebody_elses_by_now_is_let_live(desk: Desk) -> None:
    desk.connect().claim(outlive=True)
    hosted = desk.only()
    record, place = hosted.record, hosted.place.path
    desk.die()
    killed(record.pid)
    with subprocess.Popen(["/usr/bin/sleep", "600"]) as other:
        text = (place / "record.json").read_text()
        mine = text.replace(f'"pid": {record.pid}', f'"pid": {other.pid}')
        assert mine != text
        (place / "record.json").write_text(mine)
        adopt_all(desk.service)
        assert (desk.places(), other.poll()) == ([], None)
        other.kill()


def test_a_kept_machine_is_there_until_its_time_is_over(desk: Desk) -> None:
    name = desk.connect().claim(outlive=True)["machine"]
    hosted = desk.only()
    hosted.write(replace(hosted.record, state=State.KEPT, expires_at=time.time() + 3600))
    desk.die()
    adopt_all(desk.service)
    assert desk.connect().ask("show", machine=name)["machine"]["state"] == "kept"
    kept = desk.only()
    kept.write(replace(kept.record, expires_at=time.time() - 1))
    desk.die()
    adopt_all(desk.service)
    assert (desk.places(), [*desk.service.table]) == ([], [])
