"""Hosts with several users, a clock that jumps, or a /dev/kvm that promises too much."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mayfly.config import Settings
from mayfly.engine import kvm
from mayfly.engine.memory import end_holder
from mayfly.engine.probe import probe_qemu
from tests.conftest import Cli
from tests.integration.faults import IMAGE, assert_nothing_left, qemus_of, run_job, started

pytestmark = pytest.mark.integration

NOBODY = 65534
AS_NOBODY = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
SPACES = ("user", "pid", "net", "mnt", "ipc", "uts")

STEPPED = """
import sys, time
from mayfly.cli.main import main

def stepped(real, step):
    calls = []
    def clock():
        calls.append(1)
        return real() + (step if len(calls) > 1 else 0)
    return clock

step = int(sys.argv.pop(1))
time.time_ns = stepped(time.time_ns, step * 10**9)
time.time = stepped(time.time, step)
main()
"""


def status_of(pid: int) -> dict[str, str]:
    """Give what the kernel says about a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def own_spaces(pid: int) -> set[str]:
    """Give the kinds of namespaces that a process does not share with us."""
    links = ((name, os.readlink(f"/proc/{pid}/ns/{name}")) for name in SPACES)
    return {name for name, link in links if link != os.readlink(f"/proc/self/ns/{name}")}


def assert_shut_in(pid: int, uid: int) -> None:
    """A QEMU has that uid and no way to more."""
    status = status_of(pid)
    assert set(status["Uid"].split()) == set(status["Gid"].split()) == {str(uid)}
    assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert own_spaces(pid) >= set(SPACES) - {"user"}


def test_a_machine_of_root_runs_as_nobody_in_particular(cli: Cli) -> None:
    with started(cli, "--no-workdir", "--", "sh", "-c", "echo ready; read x") as run:
        (record,) = json.loads(cli("machine", "list", "--json", check=True).stdout)
        assert record["uid"] >= Settings().uid_first
        assert_shut_in(run.qemu(), record["uid"])
        assert run.end(b"\n").code == 0
    assert_nothing_left(cli.home)


# --- another user --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plain_home(warm_home: Path) -> Iterator[Path]:
    """The home of a user without any rights: the image is there, nothing else."""
    home = Path(tempfile.mkdtemp(prefix="plain-", dir=warm_home.parent))
    try:
        image = home / "state/images" / IMAGE
        image.parent.mkdir(parents=True)
        subprocess.run(["cp", "-a", str(warm_home / "state/images" / IMAGE), image], check=True)
        subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", home], check=True)
        yield home
    finally:
        for template in home.glob("cache/templates/*"):
            end_holder(template)
        shutil.rmtree(home)


def as_nobody(home: Path, *words: str, cwd: Path | None = None) -> subprocess.Popen[bytes]:
    """Start a command of the user without rights."""
    return subprocess.Popen(
        [*AS_NOBODY, *Cli(home=home).argv(*words)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=cwd or "/",
        env={**Cli(home=home).environment(), "HOME": "/nonexistent"},
    )


@pytest.mark.slow
def test_two_users_at_once(cli: Cli, plain_home: Path) -> None:
    work = plain_home / "work"
    work.mkdir()
    (work / "mine").write_text("mine")
    (work / "secret").write_text("of root")
    (work / "secret").chmod(0o600)
    os.chown(work, NOBODY, NOBODY)
    script = "echo ready; read x; id -un; id -u; ls; cat secret; echo done > new"
    with started(cli, "--no-workdir", "--", "sh", "-c", "echo ready; read x") as ours:
        theirs = as_nobody(plain_home, "run", IMAGE, "--", "sh", "-c", script, cwd=work)
        assert theirs.stdout is not None
        first = theirs.stdout.readline()
        assert first == b"ready\n", theirs.communicate()
        (qemu,) = qemus_of(plain_home)
        assert_shut_in(qemu, NOBODY)
        assert "user" in own_spaces(qemu)
        assert qemu != ours.qemu()
        output, said = theirs.communicate(b"\n", timeout=60)
        assert ours.end(b"\n").code == 0
    assert theirs.returncode == 0, said
    assert output.split() == [b"nobody", str(NOBODY).encode(), b"mine"]
    assert b"not copied into the machine: secret (Permission denied)" in said
    assert (work / "new").stat().st_uid == NOBODY
    assert_nothing_left(plain_home)
    assert_nothing_left(cli.home)


# --- the clock -----------------------------------------------------------------------------------


@pytest.mark.parametrize("step_s", [3600, -3600, 10 * 365 * 86_400])
def test_the_hosts_clock_is_set_during_the_start(cli: Cli, step_s: int) -> None:
    """Only as that process sees it."""
    words = ("run", "-q", IMAGE, "--no-workdir", "--", "date", "+%s")
    done = subprocess.run(
        [sys.executable, "-I", "-c", STEPPED, str(step_s), *words],
        capture_output=True,
        env=cli.environment(),
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done
    # It was told the time once more when it was claimed.
    assert abs(int(done.stdout) - time.time() - step_s) < 5
    assert_nothing_left(cli.home)


# --- KVM -----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(not os.access(kvm.DEVICE, os.R_OK | os.W_OK), reason="there is no /dev/kvm")
def test_kvm_is_believed_only_when_a_guest_boots(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device that opens says little: on some hosts guests hang."""
    # The mode of the real one would decide before that; QEMU opens the real one.
    device = tmp_path / "kvm"
    os.mknod(device, stat.S_IFCHR | 0o600, os.stat(kvm.DEVICE).st_rdev)
    device.chmod(0o660)
    monkeypatch.setattr(kvm, "DEVICE", str(device))
    kernel = tmp_path / "vmlinuz"
    kernel.write_bytes(run_job(cli, "--root", "--", "sh", "-c", "cat /boot/vmlinuz*").output)
    qemu = probe_qemu(Settings(), tmp_path)
    assert kvm.boots(qemu, kernel, "tcg", patience_s=60)
    began = time.monotonic()
    verdict = kvm.choose_accelerator(qemu, Settings(), tmp_path, [kernel])
    assert time.monotonic() - began < kvm.PATIENCE_S + 10
    if verdict.accelerator == "kvm":
        assert verdict.reason == "a guest booted under KVM"
    else:
        assert "opens, but a guest did not boot under KVM" in verdict.reason
    began = time.monotonic()
    assert kvm.choose_accelerator(qemu, Settings(), tmp_path, [kernel]) == verdict
    assert time.monotonic() - began < 1, "it is remembered"
