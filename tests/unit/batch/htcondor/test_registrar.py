"""Root's program beside the startd: who may ask, and when a right ends."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mayfly.batch.htcondor.desk import Desk
from mayfly.batch.htcondor.places import RECORD, place_of
from mayfly.batch.htcondor.registrar import (
    OF_A_USER_MOST,
    REQUEST_LONGEST,
    Answered,
    Held,
    Peer,
    Registrar,
    began,
    read_record,
)
from mayfly.batch.htcondor.slots import Process, cgroup_of, job_of, process_of, slot_of
from mayfly.batch.program import Site
from mayfly.batch.settings import BatchSettings
from mayfly.errors import Denied, Failed

STARTER = Path("/usr/sbin/condor_starter")
REQUEST = b'{"options": {"image": "el9"}, "restart": 1}\n'


class Lab:
    """A registrar whose right ends with a process of the test's."""

    def __init__(self, settings: BatchSettings) -> None:
        self.settings = settings
        self.child = subprocess.Popen(["sleep", "1000"])
        self.asked: list[tuple[Peer, dict[str, Any]]] = []
        self.released: list[str] = []
        self.start()

    def start(self) -> None:
        """Start one, in place of an earlier one."""
        self.registrar = Registrar(self.settings, self.answer, self.release)

    def answer(self, peer: Peer, told: dict[str, Any]) -> Answered:
        """Give a right to whoever asks."""
        self.asked.append((peer, told))
        pid = self.child.pid
        held = Held(key="c/1.0/0", pid=pid, began=began(pid))
        return Answered(reply=b"{}\n", held=held)

    def release(self, held: Held) -> None:
        """Note what ended."""
        self.released.append(held.key)

    def until(self, done: Any) -> None:
        """Let it work until something is so."""
        end = time.monotonic() + 20
        while not done():
            assert time.monotonic() < end
            self.registrar.step(0.05)

    def ask(self, text: bytes) -> bytes:
        """Ask, and give the answer."""
        heard: list[bytes] = []
        thread = threading.Thread(target=lambda: heard.append(self._ask(text)))
        thread.start()
        self.until(lambda: heard)
        thread.join()
        return heard[0]

    def _ask(self, text: bytes) -> bytes:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(20)
            connection.connect(str(place_of(self.settings)))
            with contextlib.suppress(OSError):
                connection.sendall(text)
                if not text.endswith(b"\n"):
                    connection.shutdown(socket.SHUT_WR)
                return connection.recv(1 << 16)
            return b""


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """One that runs."""
    made = Lab(BatchSettings(socket=tmp_path / "host.sock"))
    yield made
    made.child.kill()
    made.child.wait()
    made.registrar.close()


def test_a_right_ends_with_its_process(lab: Lab) -> None:
    assert lab.ask(REQUEST) == b"{}\n"
    ((peer, told),) = lab.asked
    assert (peer.pid, peer.uid) == (os.getpid(), os.getuid())
    assert told == {"options": {"image": "el9"}, "restart": 1}
    assert lab.released == []
    lab.child.kill()
    lab.until(lambda: lab.released == ["c/1.0/0"])
    assert read_record(place_of(lab.settings, RECORD)) == []


def test_another_one_goes_on(lab: Lab) -> None:
    lab.ask(REQUEST)
    lab.registrar.close()
    lab.start()
    assert lab.released == []
    lab.child.kill()
    lab.until(lambda: lab.released == ["c/1.0/0"])


def test_what_ended_meanwhile_is_let_go(lab: Lab) -> None:
    lab.ask(REQUEST)
    lab.registrar.close()
    lab.child.kill()
    lab.child.wait()
    lab.start()
    lab.until(lambda: lab.released)
    assert lab.released == ["c/1.0/0"]


def test_a_number_that_is_used_again_is_not_believed(lab: Lab) -> None:
    record = place_of(lab.settings, RECORD)
    lab.registrar.close()
    record.write_text(json.dumps([{"key": "c/2.0/0", "pid": os.getpid(), "began": "1"}]))
    lab.start()
    lab.until(lambda: lab.released)
    assert lab.released == ["c/2.0/0"]


@pytest.mark.parametrize(
    "text",
    [b"", b"\n", b"{}\n", b"[]\n", b'{"options": []}\n', b'{"options": {"image": 1}}\n', b"\xff\n",
     b'{"options": {}, "restart": -1}\n', b"[" * 50_000 + b"\n", b"x" * (REQUEST_LONGEST + 10)],
)  # fmt: skip
def test_nonsense_is_refused(lab: Lab, text: bytes) -> None:
    answer = lab.ask(text)
    assert answer == b"" or "refused" in json.loads(answer)
    assert lab.asked == []
    assert lab.ask(REQUEST) == b"{}\n"


def test_one_user_does_not_shut_others_out(lab: Lab) -> None:
    idle = [socket.socket(socket.AF_UNIX) for _ in range(OF_A_USER_MOST + 5)]
    for one in idle:
        one.connect(str(place_of(lab.settings)))
        lab.registrar.step(0.05)
    closed = 0
    for one in idle:
        one.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            closed += one.recv(1) == b""
    assert closed == 5
    for one in idle:
        one.close()
    lab.until(lambda: lab.ask(REQUEST) == b"{}\n")


@pytest.mark.parametrize(
    "text", ["", "{", "[1]", "{}", '[{"key": "../x", "pid": "1", "began": ""}]', '[{"pid": 2}]']
)
def test_a_record_that_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / RECORD).write_text(text)
    assert read_record(tmp_path / RECORD) == []


# --- whose process it is --------------------------------------------------------------------------


def family(*chain: Process) -> dict[int, Process]:
    return {10 + number: each for number, each in enumerate(chain)}


def process(parent: int, *argv: str, uid: int = 1000, program: str = "/bin/sh") -> Process:
    return Process(parent=parent, uids=(uid, uid, uid, uid), argv=argv, program=program)


SLOT = ("condor_starter", "-f", "-local-name", "slot_type_1", "-a", "slot1_2", "host")


def test_a_job_is_found_by_its_ancestors() -> None:
    known = family(
        process(11), process(12, uid=1000), process(1, *SLOT, uid=0, program=str(STARTER))
    )
    assert slot_of(10, 1000, STARTER, known.__getitem__) == "slot1_2"
    gone = family(process(11), process(1, *SLOT, uid=0, program=f"{STARTER} (deleted)"))
    assert slot_of(10, 1000, STARTER, gone.__getitem__) == "slot1_2"


@pytest.mark.parametrize(
    "last",
    [
        process(1, *SLOT, uid=1000, program=str(STARTER)),
        process(1, *SLOT, uid=0, program="/home/eve/condor_starter"),
        process(1, "condor_starter", "-a", uid=0, program=str(STARTER)),
        process(1, "condor_starter", "-a", "x) || (", uid=0, program=str(STARTER)),
        process(11, *SLOT),
    ],
)
def test_others_are_denied(last: Process) -> None:
    known = family(process(11), last)
    with pytest.raises(Denied):
        slot_of(10, 1000, STARTER, known.__getitem__)


def test_a_number_that_is_another_users_by_now_is_denied() -> None:
    starter = process(1, *SLOT, uid=0, program=str(STARTER))
    known = family(process(11, uid=1001), starter)
    assert slot_of(10, 1001, STARTER, known.__getitem__) == "slot1_2"
    with pytest.raises(Denied, match="gone"):
        slot_of(10, 1000, STARTER, known.__getitem__)


def test_this_process_is_no_job() -> None:
    me = process_of(os.getpid())
    assert (me.parent, me.uids[0]) == (os.getppid(), os.getuid())
    with pytest.raises(Denied, match="only a job"):
        slot_of(os.getpid(), os.getuid(), STARTER)
    with pytest.raises(Denied, match="gone"):
        slot_of(999_999_999, 0, STARTER)


def test_what_the_startd_granted() -> None:
    ad = {"jobid": "12.3", "globaljobid": "ap-1.example#12.3#1", "cpus": "2", "memory": "2048"}
    job = job_of(ad, 5, "here")
    assert (job.key, job.cpus, job.memory_mib, job.uid) == ("ap-1.example/12.3/0", 2, 2048, 5)
    assert job_of({"jobid": "1.0"}, 5, "here").key == "here/1.0/0"
    for wrong in ("", "1", "1.0/x", "../1"):
        with pytest.raises(Failed):
            job_of({"jobid": wrong}, 5, "here")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("0::/system.slice/condor.service/htcondor/slot1@h\n", None),
        ("4:cpu,memory:/htcondor/slot1@h\n3:pids:/x\n", "/htcondor/slot1@h"),
        ("0::/user.slice\n", ""),
        ("", ""),
    ],
)
def test_the_cgroup(tmp_path: Path, text: str, place: str | None) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7/cgroup").write_text(text)
    wanted = text.partition("::")[2].strip() if place is None else place
    assert cgroup_of(7, tmp_path) == wanted
    assert cgroup_of(8, tmp_path) == ""


def test_a_right_that_another_process_has_by_now_stays(tmp_path: Path) -> None:
    ended: list[str] = []
    site = Site(cluster="c", config=tmp_path / "batch.toml")
    old, new = (Held(key="c/1.0/0", pid=pid, began="1") for pid in (5, 6))
    latest = {"c/1.0/0": new}
    one = Desk(site=site, trusted=STARTER, forget=ended.append, latest=latest)
    one.release(old)
    assert ended == []
    one.release(new)
    assert ended == ["c/1.0/0"]
    # After a restart of this program nothing is known of others.
    one.release(old)
    assert len(ended) == 2
