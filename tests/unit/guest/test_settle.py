"""Waiting for the end of a boot, with a clock that jumps; and what is done then."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from mayfly.guest.facts import init_name
from mayfly.guest.order import image_variables
from mayfly.guest.prepare import SECRETS, prepare, start_sshd
from mayfly.guest.settle import Clock, cpu_ticks, settle


class Guest:
    """A tree with the files that are looked at, a clock, and tools that say what they should."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.time = 100.0
        self.calls: list[list[str]] = []
        self.states: list[str] = []
        self.later: list[tuple[float, Callable[[], object]]] = []
        self.busy_until = 0.0
        self._idle = self._total = 0
        self.write("proc/1/comm", "init\n")
        self._tick(0)

    def write(self, name: str, text: str = "") -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def sleep(self, seconds: float) -> None:
        self.time += seconds
        for when, act in list(self.later):
            if when <= self.time:
                self.later.remove((when, act))
                act()
        self._tick(round(seconds * 100))

    def _tick(self, count: int) -> None:
        self._total += count
        self._idle += count if self.time > self.busy_until else count // 2
        self.write("proc/stat", f"cpu  {self._total - self._idle} 0 0 {self._idle} 0 0 0 0 9 9\n")

    def tool(self, argv: Sequence[str], *, timeout_s: float) -> tuple[int, bytes]:
        assert timeout_s > 0
        self.calls.append(list(argv))
        return 0, self.states.pop(0).encode() + b"\n" if self.states else b""

    def settle(self, timeout_s: float) -> tuple[bool, float, str]:
        clock = Clock(now=lambda: self.time, sleep=self.sleep)
        answer = settle(timeout_s, self.tool, root=str(self.root), clock=clock)
        return answer["settled"], answer["waited_s"], answer["detail"]


@pytest.fixture
def guest(tmp_path: Path) -> Guest:
    return Guest(tmp_path)


def test_systemd_is_asked_until_it_has_booted(guest: Guest) -> None:
    guest.write("run/systemd/system/x")
    guest.states = ["", "starting", "degraded"]
    assert guest.settle(60) == (True, 2.5, "settled")
    running = ["systemctl", "is-system-running"]
    assert guest.calls == [[*running, "--wait"], running, [*running, "--wait"]]


def test_systemd_that_never_ends_is_given_up(guest: Guest) -> None:
    guest.write("run/systemd/system/x")
    assert guest.settle(5) == (False, 5.0, "systemd is still starting")


def test_others_are_done_when_there_is_a_login_prompt(guest: Guest) -> None:
    guest.write("proc/70/comm", "rc\n")
    guest.later = [
        (103.0, lambda: guest.write("proc/71/comm", "agetty\n")),
        (105.0, lambda: guest.write("proc/70/comm", "rc-gone\n")),
    ]
    assert guest.settle(60) == (True, 5.5, "settled")
    assert guest.settle(60) == (True, 0.5, "settled")


def test_cloud_init_is_waited_for_where_it_runs(guest: Guest) -> None:
    guest.write("proc/71/comm", "getty\n")
    guest.write("run/cloud-init/enabled")
    assert guest.settle(3) == (False, 3.0, "cloud-init has not finished")
    guest.later = [(guest.time + 2, lambda: guest.write("run/cloud-init/result.json"))]
    assert guest.settle(3) == (True, 2.5, "settled")


def test_the_cpus_must_calm_down(guest: Guest) -> None:
    guest.write("proc/71/comm", "getty\n")
    guest.busy_until = 103.0
    assert guest.settle(60) == (True, 3.5, "settled")
    guest.busy_until = 1000.0
    assert guest.settle(2) == (False, 2.0, "CPUs are busy: 50 %")


def test_idle_ticks_are_read() -> None:
    assert cpu_ticks("cpu  1 2 3 40 5 6 7 8 9 10\ncpu0 1 2 3 4\n") == (45, 72)
    assert cpu_ticks("") == (0, 0)


@pytest.mark.parametrize("name", SECRETS)
def test_no_secret_is_left(guest: Guest, name: str) -> None:
    guest.write(name.lstrip("/").replace("*", "rsa_key"))
    guest.write("etc/ssh/sshd_config")
    prepare(guest.tool, root=str(guest.root), fuse=False)
    assert not list(guest.root.glob(name.lstrip("/")))
    assert (guest.root / "etc/ssh/sshd_config").exists()
    assert guest.calls == []


def test_what_would_go_off_is_stopped(guest: Guest) -> None:
    guest.write("run/systemd/system/x")
    prepare(guest.tool, root=str(guest.root), fuse=True)
    start_sshd(guest.tool, root=str(guest.root))
    assert [call[:3] for call in guest.calls] == [
        ["systemctl", "stop", "ssh.service"],
        ["systemctl", "mask", "--now"],
        ["modprobe", "fuse"],
        ["systemctl", "--no-block", "start"],
    ]
    assert "apt-daily.timer" in guest.calls[1]


def test_without_systemd_there_are_scripts(guest: Guest) -> None:
    guest.write("etc/init.d/ssh")
    prepare(guest.tool, root=str(guest.root), fuse=False)
    start_sshd(guest.tool, root=str(guest.root))
    script = f"{guest.root}/etc/init.d/ssh"
    assert guest.calls == [[script, "stop"], [script, "start"]]


def test_a_machine_that_was_a_container_has_no_login_to_wait_for(guest: Guest) -> None:
    guest.write("run/mayfly-init/start")
    settled, waited_s, _ = guest.settle(30)
    assert settled
    assert waited_s < 5
    assert init_name(str(guest.root)) == "mayfly"


def test_an_image_that_was_a_container_has_variables(tmp_path: Path) -> None:
    file = tmp_path / "environ"
    file.write_bytes(b"PATH=/opt/bin\0A=b=c\0\0=x\0HOME=/root\0ODD=\xff\0")
    expected = {b"PATH": b"/opt/bin", b"A": b"b=c", b"ODD": b"\xff"}
    assert image_variables(str(file)) == expected
    assert image_variables(str(tmp_path / "none")) == {}
