"""From a request to a machine in somebody's hands, and what becomes of it when that fails."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mayfly.engine.linux import start_time
from mayfly.errors import Conflict, Denied, Failed, Quota
from mayfly.host import claims
from mayfly.host.rights import parse_right, put_into_cgroup
from mayfly.model import State
from tests.unit.host.services import ALICE, BOB, SMALL, Desk, desk, refused

__all__ = ["desk"]

KEY = "site/17/0"


def right(**changes: object) -> dict[str, object]:
    return {"key": KEY, "uid": ALICE, "cpus": 2, "memory_mib": 2048, "wall_s": 3600, **changes}


def register(desk: Desk, **changes: object) -> None:
    desk.service.rights.register(parse_right(right(**changes), created_at=time.time()))


@pytest.fixture
def client_process() -> Iterator[subprocess.Popen[bytes]]:
    """A process that stands for a client."""
    with subprocess.Popen(["/usr/bin/sleep", "600"]) as process:
        yield process
        process.kill()


# --- it works ------------------------------------------------------------------------------------


def test_a_machine_is_made_and_handed_over(desk: Desk) -> None:
    client = desk.connect(ALICE)
    answer = client.claim()
    hosted = desk.only()
    record = hosted.record
    assert (answer["path"], answer["machine"]) == ("clone", hosted.id)
    assert (record.owner, record.state, hosted.busy) == (ALICE, State.RUNNING, "")
    # The session's port, and a handle on QEMU's process.
    assert len(client.fds) == 2


def test_a_standby_is_handed_over(desk: Desk) -> None:
    desk.keep_ready()
    waiting = desk.only().id
    answer = desk.connect().claim()
    assert (answer["machine"], answer["path"]) == (waiting, "standby")


def test_shared_directories_get_a_port_of_their_own(desk: Desk) -> None:
    client = desk.connect()
    client.claim(shares=[{"path": "/data", "read_only": True}])
    assert len(client.fds) == 3


def test_what_the_machine_is_for_is_written_down(desk: Desk) -> None:
    register(desk)
    desk.connect(ALICE).claim(job=KEY, label="make test", life_s=60, outlive=True)
    record = desk.only().record
    assert (record.job, record.command, record.outlive) == (KEY, "make test", True)
    assert record.expires_at == pytest.approx(time.time() + 60, abs=30)
    events = desk.service.logs.read(record.id, ALICE, log="events.jsonl")
    assert f"given to uid {ALICE}: make test" in events


# --- its end -------------------------------------------------------------------------------------


def test_it_ends_with_the_connection(desk: Desk) -> None:
    client = desk.connect()
    client.claim()
    pid = desk.only().record.pid
    client.close()
    desk.emptied()
    assert start_time(pid) is None


def test_it_ends_with_the_process(desk: Desk, client_process: subprocess.Popen[bytes]) -> None:
    desk.pid = client_process.pid
    # Something else holds the connection open.
    desk.connect().claim()
    client_process.kill()
    desk.emptied()
    assert not desk.clients[0].is_closed()


def test_one_that_shall_outlive_its_client_does(desk: Desk) -> None:
    client = desk.connect()
    client.claim(outlive=True)
    client.close()
    desk.until(lambda: not desk.service.callers, "the client's end")
    assert desk.only().record.state is State.RUNNING


# --- it fails ------------------------------------------------------------------------------------


def test_nothing_is_left_of_one_that_does_not_start(desk: Desk) -> None:
    desk.script(start_fails="QEMU did not start: bad disk")
    error = refused(desk.connect().claim)
    assert isinstance(error, Failed)
    assert "bad disk" in error.message
    desk.emptied()


def test_nothing_is_left_of_one_that_refuses_its_user(desk: Desk) -> None:
    desk.script(claim_fails="no room for the user")
    error = refused(desk.connect().claim)
    assert "no room for the user" in error.message
    desk.emptied()


def test_nothing_is_left_after_a_fault_of_the_service(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fault(*_: object) -> None:
        raise ZeroDivisionError("a fault that a test has made")

    monkeypatch.setattr(claims, "features_of", fault)
    error = refused(desk.connect().claim)
    assert "a fault in the host service itself: ZeroDivisionError" in error.message
    desk.emptied()


def test_a_standby_that_fails_is_replaced_by_a_clone(desk: Desk) -> None:
    desk.script(claim_fails="it slept too long")
    desk.keep_ready()
    standby = desk.only().id
    desk.script()
    desk.service.hot.clear()
    answer = desk.connect().claim()
    assert answer["path"] == "clone"
    desk.until(lambda: desk.service.table.find(standby) is None, "the standby's end")


def test_a_standby_that_does_not_answer_is_replaced_by_a_clone(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mayfly.host.qemu.REPLY_LIMIT_S", 0.05)
    desk.script(deaf=("cont",))
    desk.keep_ready()
    desk.script()
    desk.service.hot.clear()
    assert desk.connect().claim()["path"] == "clone"


def test_nothing_is_left_when_the_client_ends_meanwhile(desk: Desk, tmp_path: Path) -> None:
    desk.script(gate=tmp_path / "gate")
    client = desk.connect()
    client.send("claim", image="debian-12", cpus=1, memory_mib=512)
    desk.until(lambda: desk.service.starting == 1, "the start")
    client.close()
    desk.until(lambda: not desk.service.callers, "the client's end")
    (tmp_path / "gate").touch()
    desk.emptied()
    assert desk.made == 1


def test_no_other_machine_is_made_for_a_client_that_ended(
    desk: Desk, client_process: subprocess.Popen[bytes]
) -> None:
    desk.keep_ready()
    desk.service.hot.clear()
    desk.pid = client_process.pid
    client = desk.connect()
    client_process.kill()
    client_process.wait()
    client.send("claim", image="debian-12", cpus=1, memory_mib=512)
    desk.until(lambda: client.of("error") != [], "an answer")
    assert "clone" not in str(client.told)
    assert desk.made == 1
    desk.emptied()


def test_one_connection_has_one_machine(desk: Desk) -> None:
    client = desk.connect()
    client.claim()
    error = refused(client.claim)
    assert isinstance(error, Conflict)
    assert len(desk.service.table.machines) == 1


# --- jobs of a batch system ----------------------------------------------------------------------


def test_a_job_has_no_more_machines_than_it_was_given(desk: Desk) -> None:
    register(desk)
    desk.connect(ALICE).claim(job=KEY)
    error = refused(lambda: desk.connect(ALICE).claim(job=KEY))
    assert isinstance(error, Quota)
    assert "1 of 1 machines" in error.message


def test_also_not_while_the_first_is_being_made(desk: Desk, tmp_path: Path) -> None:
    register(desk)
    desk.script(gate=tmp_path / "gate")
    first = desk.connect(ALICE)
    first.send("claim", image="debian-12", cpus=1, memory_mib=512, job=KEY)
    desk.until(lambda: desk.service.starting == 1, "the start")
    error = refused(lambda: desk.connect(ALICE).claim(job=KEY))
    assert isinstance(error, Quota)
    (tmp_path / "gate").touch()
    assert first.answer()["machine"] == desk.only().id


def test_also_not_while_the_first_waits_in_line(desk: Desk) -> None:
    register(desk, machines=2)
    desk.limit(machines=1)
    desk.connect(BOB).claim()
    for _ in range(2):
        desk.connect(ALICE).send("claim", image="debian-12", cpus=1, memory_mib=512, job=KEY)
    desk.until(lambda: len(desk.service.line) == 2, "the line")
    assert isinstance(refused(lambda: desk.connect(ALICE).claim(job=KEY)), Quota)


def test_a_job_that_ends_while_its_machine_is_made_gets_none(desk: Desk, tmp_path: Path) -> None:
    register(desk)
    desk.script(gate=tmp_path / "gate")
    client = desk.connect(ALICE)
    client.send("claim", image="debian-12", cpus=1, memory_mib=512, job=KEY)
    desk.until(lambda: desk.service.starting == 1, "the start")
    desk.connect(0).ask("unregister", job=KEY)
    (tmp_path / "gate").touch()
    assert isinstance(refused(client.answer), Denied | Failed)
    desk.emptied()


def test_a_job_that_ends_while_it_waits_in_line_gets_no_machine(desk: Desk) -> None:
    register(desk)
    desk.limit(machines=1)
    first = desk.connect(BOB)
    first.claim()
    client = desk.connect(ALICE)
    client.send("claim", image="debian-12", cpus=1, memory_mib=512, job=KEY)
    desk.until(lambda: len(desk.service.line) == 1, "the line")
    desk.connect(0).ask("unregister", job=KEY)
    first.close()
    assert isinstance(refused(client.answer), Denied)
    desk.emptied()


@pytest.fixture
def cgroups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tree of cgroups in which one job is."""
    top = tmp_path / "cgroups"
    (top / "job_17").mkdir(parents=True)
    (top / "cgroup.controllers").touch()
    (top / "job_17/cgroup.procs").touch()

    def put(pid: int, cgroup: str) -> None:
        put_into_cgroup(pid, cgroup, top=top)

    monkeypatch.setattr(claims, "put_into_cgroup", put)
    return top


@pytest.mark.parametrize("ready", [True, False], ids=["standby", "clone"])
def test_the_machine_is_in_the_jobs_cgroup(desk: Desk, cgroups: Path, ready: bool) -> None:
    if ready:
        desk.keep_ready()
    register(desk, cgroup="/job_17")
    machine = desk.connect(ALICE).claim(job=KEY)["machine"]
    hosted = desk.service.table.find(machine)
    assert hosted is not None
    assert (cgroups / "job_17/cgroup.procs").read_text() == str(hosted.record.pid)


@pytest.mark.usefixtures("cgroups")
def test_no_machine_runs_outside_of_the_jobs_cgroup(desk: Desk) -> None:
    register(desk, cgroup="/job_18")
    error = refused(lambda: desk.connect(ALICE).claim(job=KEY))
    assert "cgroup /job_18 is not there" in error.message
    desk.emptied()


def test_without_a_cgroup_it_stays_where_it_is(desk: Desk, cgroups: Path) -> None:
    register(desk)
    desk.connect(ALICE).claim(job=KEY)
    assert (cgroups / "job_17/cgroup.procs").read_text() == ""


def test_sizes_are_those_that_were_asked_for(desk: Desk) -> None:
    desk.keep_ready()
    answer = desk.connect().claim(memory_mib=1000)
    hosted = desk.service.table.find(answer["machine"])
    assert hosted is not None
    assert (answer["path"], hosted.shape.memory_mib) == ("clone", 1024)
    assert hosted.shape != SMALL
