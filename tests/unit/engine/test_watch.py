"""Watching a machine: whether it ended, and why, in words."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from mayfly.engine import watch as watch_module
from mayfly.engine.monitor import Monitor
from mayfly.engine.process import Process
from mayfly.engine.session.job import JobResult
from mayfly.engine.watch import CONSOLE_LOG, Watch, console_lines, explained, save_console
from mayfly.errors import RUN_FAILED, Failed
from mayfly.model import Who

PATIENCE_S = 20.0


@dataclass
class FakeQemu:
    """A monitor that answers in a thread, and a process that stands for QEMU."""

    port: socket.socket
    child: subprocess.Popen[bytes]
    said: int
    console: str = ""
    asked: list[str] = field(default_factory=list)

    def answer(self) -> None:
        with contextlib.suppress(OSError):
            for line in self.port.makefile("rb"):
                request = json.loads(line)
                self.asked.append(request["execute"])
                text, self.console = self.console, ""
                reply = {"return": text, "id": request["id"]}
                self.port.sendall(json.dumps(reply).encode() + b"\n")

    def tell(self, name: str, **data: object) -> None:
        event = {"event": name, "data": data, "timestamp": {}}
        self.port.sendall(json.dumps(event).encode() + b"\n")

    def end(self, last_words: str = "") -> None:
        os.write(self.said, last_words.encode())
        self.child.kill()
        self.port.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def both(tmp_path: Path) -> Iterator[tuple[FakeQemu, Process]]:
    ours, theirs = socket.socketpair()
    output, said = os.pipe2(os.O_NONBLOCK)
    with subprocess.Popen(["/usr/bin/sleep", "600"]) as child, theirs:
        qemu = FakeQemu(theirs, child, said)
        thread = threading.Thread(target=qemu.answer)
        thread.start()
        process = Process(
            pid=child.pid,
            handle=os.pidfd_open(child.pid),
            monitor=Monitor(ours, timeout_s=PATIENCE_S),
            place=tmp_path,
            output=output,
        )
        yield qemu, process
        process.let_go()
        thread.join()
        child.kill()
    os.close(said)


@pytest.fixture
def watched(both: tuple[FakeQemu, Process]) -> Iterator[tuple[FakeQemu, Watch]]:
    qemu, process = both
    watch = Watch(process)
    watch.start()
    yield qemu, watch
    watch.stop()


def reason(watch: Watch) -> str:
    """Wait for the end of the machine and give its reason."""
    assert select.select([watch.fd], [], [], PATIENCE_S)[0], "the end was not noticed"
    return watch.reason


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        ("guest-reset", "it rebooted"),
        ("guest-shutdown", "it was powered off from inside"),
        ("host-signal", "it shut down (host-signal)"),
    ],
)
def test_a_guest_that_ends_itself(watched: tuple[FakeQemu, Watch], cause: str, words: str) -> None:
    qemu, watch = watched
    qemu.console = "Debian GNU/Linux 12\nlogin: \n"
    qemu.tell("SHUTDOWN", guest=True, reason=cause)
    assert reason(watch) == words
    assert not watch.host_full


def test_a_panic_is_found_on_the_console(watched: tuple[FakeQemu, Watch], tmp_path: Path) -> None:
    qemu, watch = watched
    panic = "Kernel panic - not syncing: Attempted to kill init!"
    qemu.console = f"booting\n[   12.0] {panic}\n[   12.1] CPU: 0 PID: 1\n"
    qemu.tell("SHUTDOWN", guest=True, reason="guest-reset")
    assert reason(watch) == f"its kernel panicked: {panic}"
    # It was taken out of QEMU's memory: whoever looks later must find it still.
    assert panic in (tmp_path / CONSOLE_LOG).read_text()


def test_a_full_host_is_known_by_its_disk_error(watched: tuple[FakeQemu, Watch]) -> None:
    qemu, watch = watched
    qemu.tell("BLOCK_IO_ERROR", device="root", action="stop", nospace=True, reason="No space")
    assert "no room" in reason(watch)
    assert watch.host_full


def test_another_disk_error_has_its_reason(watched: tuple[FakeQemu, Watch]) -> None:
    qemu, watch = watched
    qemu.tell("BLOCK_IO_ERROR", device="root", action="stop", nospace=False, reason="I/O error")
    assert reason(watch) == "its disk failed: I/O error"
    assert not watch.host_full


def test_the_first_reason_stands(watched: tuple[FakeQemu, Watch]) -> None:
    qemu, watch = watched
    full = json.dumps({"event": "BLOCK_IO_ERROR", "data": {"nospace": True}}).encode()
    down = json.dumps({"event": "SHUTDOWN", "data": {"reason": "guest-reset"}}).encode()
    qemu.port.sendall(full + b"\n" + down + b"\n")
    assert "no room" in reason(watch)


def test_a_qemu_that_is_gone(watched: tuple[FakeQemu, Watch]) -> None:
    qemu, watch = watched
    qemu.end()
    assert reason(watch) == "its QEMU ended (killed?)"


def test_a_qemu_that_said_why(watched: tuple[FakeQemu, Watch]) -> None:
    qemu, watch = watched
    qemu.end("x" * 1000 + "\nqemu: out of memory\n")
    assert reason(watch).startswith("its QEMU ended, saying: ")
    assert reason(watch).endswith("qemu: out of memory")
    assert len(reason(watch)) < 400


def test_what_means_nothing_is_passed_over(watched: tuple[FakeQemu, Watch]) -> None:
    qemu, watch = watched
    for name in ("STOP", "RESUME", "RTC_CHANGE", "NIC_RX_FILTER_CHANGED", "VSERPORT_CHANGE"):
        qemu.tell(name, id="x", open=True)
    assert not select.select([watch.fd], [], [], 0)[0]
    qemu.tell("SHUTDOWN", reason="guest-reset")
    assert reason(watch) == "it rebooted"
    assert qemu.asked == ["ringbuf-read"]


def test_the_monitor_is_free_after_the_watch(both: tuple[FakeQemu, Process]) -> None:
    qemu, process = both
    watch = Watch(process)
    watch.start()
    qemu.tell("STOP")
    watch.stop()
    qemu.console = "later"
    assert watch.reason == ""
    assert console_lines(process.monitor) == ["later"]


def test_an_end_that_came_with_an_answer_is_noticed(both: tuple[FakeQemu, Process]) -> None:
    qemu, process = both
    qemu.tell("SHUTDOWN", reason="guest-shutdown")
    process.monitor.call("query-status")  # Its answer comes after the event.
    watch = Watch(process)
    watch.start()
    assert reason(watch) == "it was powered off from inside"
    watch.stop()


def test_an_end_just_before_the_stop_is_noticed(both: tuple[FakeQemu, Process]) -> None:
    qemu, process = both
    qemu.end()
    watch = Watch(process)
    watch.start()
    watch.stop()
    assert watch.reason == "its QEMU ended (killed?)"


# --- the agent -----------------------------------------------------------------------------------


def port_closes(qemu: FakeQemu, port: str = "psession") -> None:
    qemu.tell("VSERPORT_CHANGE", id=port, open=False)


@pytest.mark.parametrize("port", ["pcontrol", "psession"])
def test_a_machine_without_its_agent_has_ended(
    watched: tuple[FakeQemu, Watch], monkeypatch: pytest.MonkeyPatch, port: str
) -> None:
    monkeypatch.setattr(watch_module, "AGENT_GRACE_S", 0.05)
    qemu, watch = watched
    port_closes(qemu, port)
    assert reason(watch) == watch_module.AGENT_GONE


def test_what_qemu_says_soon_after_is_the_better_reason(
    watched: tuple[FakeQemu, Watch], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_module, "AGENT_GRACE_S", PATIENCE_S)
    qemu, watch = watched
    port_closes(qemu)
    qemu.tell("SHUTDOWN", guest=True, reason="guest-reset")
    assert reason(watch) == "it rebooted"


def test_a_port_that_opens_or_is_not_the_agents_means_nothing(
    watched: tuple[FakeQemu, Watch], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_module, "AGENT_GRACE_S", 0)
    qemu, watch = watched
    qemu.tell("VSERPORT_CHANGE", id="psession", open=True)
    port_closes(qemu, "pshare")
    qemu.tell("SHUTDOWN", guest=True, reason="guest-shutdown")
    assert reason(watch) == "it was powered off from inside"


# --- what is made of it --------------------------------------------------------------------------

BROKEN = JobResult(code=125, phase="job", who=Who.MAYFLY, reason="port closed", warnings=("w",))


def test_the_reason_seen_from_outside_is_the_better_one(
    watched: tuple[FakeQemu, Watch],
) -> None:
    qemu, watch = watched
    qemu.tell("SHUTDOWN", guest=True, reason="guest-reset")
    result = explained(BROKEN, watch)
    assert (result.code, result.who, result.phase) == (RUN_FAILED, Who.MAYFLY, "job")
    assert result.reason == "the machine ended before the job did: it rebooted"
    assert result.warnings == ("w",)


def test_a_full_disk_is_the_sites_doing(watched: tuple[FakeQemu, Watch]) -> None:
    qemu, watch = watched
    qemu.tell("BLOCK_IO_ERROR", nospace=True)
    assert reason(watch)
    assert explained(BROKEN, watch).who is Who.SITE


def test_the_end_of_the_job_is_the_jobs_whatever_came_then(
    watched: tuple[FakeQemu, Watch],
) -> None:
    qemu, watch = watched
    qemu.tell("SHUTDOWN", guest=True, reason="guest-reset")
    assert reason(watch)
    own = replace(BROKEN, who=Who.JOB, code=3)
    assert explained(own, watch) == own


def test_without_a_reason_the_result_stands(
    watched: tuple[FakeQemu, Watch], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_module, "REASON_S", 0.01)
    assert explained(BROKEN, watched[1]) == BROKEN


# --- console -------------------------------------------------------------------------------------


def test_the_console_is_moved_to_the_machines_directory(
    both: tuple[FakeQemu, Process], tmp_path: Path
) -> None:
    qemu, process = both
    save_console(process.monitor, tmp_path)
    assert not (tmp_path / CONSOLE_LOG).exists(), "nothing was said"
    qemu.console = "one\r\ntwo\n"
    save_console(process.monitor, tmp_path)
    qemu.console = "thr\ufffdee"
    save_console(process.monitor, tmp_path)
    assert (tmp_path / CONSOLE_LOG).read_text().splitlines() == ["one", "two", "thr\ufffdee"]


# --- the process itself --------------------------------------------------------------------------


def test_a_process_is_known_to_have_ended(both: tuple[FakeQemu, Process]) -> None:
    _, process = both
    assert not process.has_ended()
    process.kill()
    assert process.has_ended()
    with pytest.raises(ChildProcessError):
        os.waitpid(process.pid, 0)
    process.kill()  # Once more is no error.


def test_what_it_said_is_given_once(both: tuple[FakeQemu, Process]) -> None:
    qemu, process = both
    assert process.said() == ""
    os.write(qemu.said, b" qemu: \xff oh \n")
    assert process.said() == "qemu: \ufffd oh"
    assert process.said() == ""


def test_a_port_that_nobody_listens_on(both: tuple[FakeQemu, Process], tmp_path: Path) -> None:
    _, process = both
    with pytest.raises(Failed, match="session socket"):
        process.connect("session")
    before = set(os.listdir("/proc/self/fd"))
    with socket.socket(socket.AF_UNIX) as closed:
        closed.bind(str(tmp_path / "session"))
    with pytest.raises(Failed, match="session socket"):
        process.connect("session")
    assert set(os.listdir("/proc/self/fd")) == before
