"""What a pid means: a process, and no later one of the same number."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time

import pytest

from mayfly.engine.linux import start_time

PR_SET_NAME = 15


def test_a_process_has_one_start() -> None:
    first = start_time(os.getpid())
    assert first is not None
    assert start_time(os.getpid()) == first
    ticks = os.sysconf("SC_CLK_TCK")
    with open("/proc/uptime") as file:
        up = float(file.read().split()[0])
    assert 0 < first / ticks <= up


def test_a_later_process_started_later() -> None:
    with subprocess.Popen(["/usr/bin/sleep", "600"]) as process:
        ours, theirs = start_time(os.getpid()), start_time(process.pid)
        process.kill()
    assert ours is not None
    assert theirs is not None
    assert theirs >= ours


def test_no_process_has_no_start() -> None:
    with open("/proc/sys/kernel/pid_max") as file:
        assert start_time(int(file.read()) + 1) is None


def test_a_zombie_has_no_start() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert start_time(pid) is None
    os.waitpid(pid, 0)
    assert start_time(pid) is None


@pytest.mark.parametrize("name", [b") Z 1 1", b"a b", b"(((", b"\n) X "])
def test_the_name_of_a_process_misleads_nobody(name: bytes) -> None:
    told, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        ctypes.CDLL(None).prctl(PR_SET_NAME, name, 0, 0, 0)
        os.write(tell, b"x")
        signal.pause()
    os.read(told, 1)
    found, ours = start_time(pid), start_time(os.getpid())
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(told)
    os.close(tell)
    assert found is not None
    assert ours is not None
    assert ours <= found
    assert found / os.sysconf("SC_CLK_TCK") <= time.clock_gettime(time.CLOCK_BOOTTIME) + 1
