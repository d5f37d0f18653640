"""What goes wrong in a machine, with its QEMU or with whoever started it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import re
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.conftest import Cli
from tests.integration.faults import (
    IMAGE,
    assert_nothing_left,
    assert_sentence,
    machines_of,
    run_job,
    started,
)
from tests.integration.waiting import gone, wait_until

pytestmark = pytest.mark.integration

SEED = 20_26
KILLS = 20
CRASH = "echo 1 > /proc/sys/kernel/sysrq; echo c > /proc/sysrq-trigger"


def cpu_s(pid: int) -> float:
    """Give the seconds of CPU that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (CRASH, "its kernel panicked: Kernel panic - not syncing: sysrq triggered crash"),
        ("reboot -f", "it rebooted"),
        ("poweroff -f", "it was powered off from inside"),
        ("pkill -f mayfly.guest.agent", "the agent in it was killed"),
    ],
)
def test_a_root_job_that_ends_its_machine(cli: Cli, command: str, words: str) -> None:
    began = time.monotonic()
    ended = run_job(cli, "--root", "--", "sh", "-c", f"{command}; sleep 1000")
    ended.assert_failed("the machine ended before the job did", words)
    assert ended.status["phase"] == "job"
    assert time.monotonic() - began < 20
    assert_nothing_left(cli.home)


def test_a_root_job_that_stops_the_agent(cli: Cli) -> None:
    command = "echo ready; kill -STOP $(pgrep -f mayfly.guest.agent); sleep 1000"
    with started(cli, "--no-workdir", "--root", "--", "sh", "-c", command) as run:
        run.interrupt()
        ended = run.end()
    assert ended.code == 130
    assert_sentence(ended.said, "interrupted three times")
    assert_nothing_left(cli.home)


def test_qemu_killed_in_mid_job(cli: Cli) -> None:
    with started(cli, "--no-workdir", "--", "sh", "-c", "echo ready; sleep 1000") as run:
        os.kill(run.qemu(), signal.SIGKILL)
        ended = run.end()
    ended.assert_failed("the machine ended before the job did", "its QEMU ended", "killed?")
    assert_nothing_left(cli.home)


def test_qemu_stopped_in_mid_job_can_be_left_with_ctrl_c(cli: Cli) -> None:
    with started(cli, "--no-workdir", "--", "sh", "-c", "echo ready; sleep 1000") as run:
        os.kill(run.qemu(), signal.SIGSTOP)
        run.interrupt()
        ended = run.end()
    assert (ended.code, ended.status["who"]) == (130, "job")
    assert_sentence(ended.said, "interrupted three times")
    assert_nothing_left(cli.home)


@pytest.mark.slow
def test_qemu_stopped_in_mid_job_ends_at_the_time_limit(cli: Cli) -> None:
    words = ("--no-workdir", "--for", "2s", "--", "sh", "-c", "echo ready; sleep 1000")
    with started(cli, *words) as run:
        os.kill(run.qemu(), signal.SIGSTOP)
        ended = run.end(timeout_s=60)
    assert (ended.code, ended.status["who"]) == (124, "job")
    assert_sentence(ended.said, "time limit of 2.00 s reached", "did not confirm the job's end")
    assert_nothing_left(cli.home)


def test_a_killed_client_leaves_nothing_for_long(cli: Cli, tmp_path: Path) -> None:
    """At random moments: before the machine, in it, in the copy there and back."""
    for number in range(30):
        (tmp_path / f"file{number}").write_bytes(os.urandom(20_000))
    moments = random.Random(SEED)
    for number in range(KILLS):
        more = ["--keep-on-failure"] if number % 2 else []
        process = cli.start(
            "run", "-q", IMAGE, *more, "--", "sh", "-c", "cat file*>all", cwd=tmp_path
        )
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(moments.uniform(0.05, 0.9))
        process.kill()
        process.communicate()
        assert cli("machine", "list", "--json", check=True).stdout == b"[]\n"
        assert_nothing_left(cli.home)
    assert run_job(cli, "--", "true").code == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_at_any_moment(cli: Cli, number: int) -> None:
    moments = random.Random(SEED)
    for _ in range(2):
        process = cli.start("run", IMAGE, "--no-workdir", "--", "sleep", "1000")
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(moments.uniform(0.2, 0.9))
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
        assert process.returncode in (128 + number, -number)
        assert b"Traceback" not in said
        assert cli("machine", "list", "--json", check=True).stdout == b"[]\n"
        assert_nothing_left(cli.home)


def test_what_a_killed_client_had_running_is_ended_with_it(cli: Cli) -> None:
    with started(cli, "--no-workdir", "--", "sh", "-c", "echo ready; sleep 1000") as run:
        qemu = run.qemu()
        run.process.kill()
        wait_until(lambda: gone(qemu), "the machine ended with its client")
    assert len(machines_of(cli.home)) == 1
    assert run_job(cli, "--", "true").code == 0
    assert_nothing_left(cli.home)


def test_a_flood_for_a_slow_reader_is_held_back(cli: Cli) -> None:
    size = 64 << 20
    script = f"echo ready; yes 0123456789 | head -c {size}"
    seen = hashlib.sha256()
    with started(cli, "--no-workdir", "--", "sh", "-c", script) as run:
        assert run.process.stdout is not None
        for _ in range(size >> 18):
            time.sleep(0.005)
            seen.update(run.process.stdout.read(1 << 18))
        status = Path(f"/proc/{run.process.pid}/status").read_text()
        ended = run.end()
    most = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert most is not None
    assert int(most[1]) << 10 < size
    assert (ended.code, ended.output) == (0, b"")
    assert seen.digest() == hashlib.sha256((b"0123456789\n" * (size // 11 + 1))[:size]).digest()
    assert_nothing_left(cli.home)


def test_two_hundred_children(cli: Cli) -> None:
    script = "for (1..200) { fork or sleep 1000 and exit } print 'all there'"
    ended = run_job(cli, "--", "perl", "-e", script)
    assert (ended.code, ended.output) == (0, b"all there")
    assert_nothing_left(cli.home)


def test_a_job_that_wants_more_memory_than_there_is(cli: Cli) -> None:
    script = "my @all; while (1) { push @all, 'x' x (16 << 20) }"
    ended = run_job(cli, "--", "sh", "-c", f'perl -e "{script}"; cat /proc/self/oom_score_adj')
    assert (ended.code, ended.output) == (0, b"0\n")
    assert "Killed" in ended.said


@pytest.mark.slow
def test_many_small_processes_that_use_up_the_memory(cli: Cli) -> None:
    """What the kernel must never end for them is the agent, which has to end the job."""
    script = "for (1..1500) { fork or do { my $x = 'x' x (1 << 20); sleep 1000 } } sleep 1000"
    began = time.monotonic()
    ended = run_job(cli, "--for", "10s", "--", "perl", "-e", script)
    assert (ended.code, ended.status["who"]) == (124, "job")
    assert ended.status["reason"] == "time limit of 10 s reached: job ended"
    assert time.monotonic() - began < 25
    assert_nothing_left(cli.home)


def test_a_fork_bomb_can_be_ended(cli: Cli) -> None:
    script = "echo ready; bomb() { bomb | bomb & }; bomb; sleep 1000"
    with started(cli, "--no-workdir", "--", "bash", "-c", script) as run:
        qemu = run.qemu()
        before = cpu_s(qemu)
        wait_until(lambda: cpu_s(qemu) > before + 1, "it spreads")
        run.interrupt()
        ended = run.end()
    assert ended.code == 130
    assert_nothing_left(cli.home)


def test_ten_at_once_while_nobody_holds_the_memory(own_cli: Cli) -> None:
    with ThreadPoolExecutor(10) as pool:
        runs = [pool.submit(run_job, own_cli, "--", "sh", "-c", f"echo {n}") for n in range(10)]
        ended = [run.result() for run in runs]
    assert [(run.code, run.output) for run in ended] == [(0, b"%d\n" % n) for n in range(10)]
    assert_nothing_left(own_cli.home)
