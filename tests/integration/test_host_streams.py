"""Jobs through the host service whose service, client or QEMU is killed while they run."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.host import IMAGE, MARKS, Host, Job, host_of, processes_with
from tests.integration.waiting import descendants, gone, wait_until

pytestmark = MARKS

STREAM_BYTES = 50_000_000
TYPED = os.urandom(1 << 20) * 8
NEEDS_PASST = pytest.mark.skipif(shutil.which("pasta") is None, reason="passt is not installed")


@pytest.fixture(scope="module")
def service(warm_home: Path) -> Iterator[Host]:
    """A service that keeps one standby."""
    with host_of(warm_home, f'[[standby]]\nimage = "{IMAGE}"\nmost = 1\n') as host:
        yield host


@pytest.fixture
def host(service: Host) -> Iterator[Host]:
    """That service, with its standby ready and no machine else, before and after."""
    service.refilled()
    yield service
    service.forget_jobs()
    service.emptied()


def helpers(host: Host) -> set[int]:
    """Give the processes that the service has, QEMUs and those that hold memory left out."""
    assert host.process is not None
    others = {*host.qemus(), *processes_with(b"mayfly-template")}
    return set(descendants(host.process.pid)) - others


def ended(pids: set[int]) -> None:
    """Wait for the end of processes, and tell which go on."""

    def left() -> list[str]:
        found = []
        for pid in pids:
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
                found += [] if gone(pid) else [f"{pid}: {words}"]
        return found

    with contextlib.suppress(AssertionError):
        wait_until(lambda: left() == [], "the network's processes to end")
    assert left() == []


def reader_of(job: Job, total: int) -> Iterator[bytes]:
    """Give the output of a job piece by piece."""
    assert job.process.stdout is not None
    left = total
    while left > 0 and (piece := job.process.stdout.read(min(left, 1 << 20))):
        left -= len(piece)
        yield piece


def expected(count: int) -> str:
    """Give the digest of so many bytes of a count upwards: each place is unlike the others."""
    digest, number, left = hashlib.sha256(), 0, count
    while left > 0:
        block = b"".join(b"%d\n" % each for each in range(number + 1, number + 100_001))[:left]
        digest.update(block)
        number, left = number + 100_000, left - len(block)
    return digest.hexdigest()


@pytest.mark.parametrize("which", [signal.SIGKILL, signal.SIGTERM], ids=lambda one: one.name)
def test_a_restart_costs_a_job_no_byte(host: Host, which: signal.Signals) -> None:
    script = f"echo ready; seq 10000000 | head -c {STREAM_BYTES}; exit 7"
    writer = host.begin("--", "sh", "-c", script)
    reader = host.begin("--", "sh", "-c", "echo ready; sha256sum")
    pieces = reader_of(writer, STREAM_BYTES)
    digest = hashlib.sha256(next(pieces))
    # It stands still, with full buffers all along the way, when its service goes.
    host.restart(which)
    assert {one["command"][:10] for one in host.machines("running")} == {"sh -c echo"}
    for piece in pieces:
        digest.update(piece)
    assert digest.hexdigest() == expected(STREAM_BYTES)
    assert writer.end() == (7, b"", "")
    code, output, said = reader.end(TYPED)
    assert (code, said) == (0, "")
    assert output.split()[0].decode() == hashlib.sha256(TYPED).hexdigest()
    host.emptied()
    host.refilled()
    assert len(host.qemus()) == len(host.places()) == 1


@NEEDS_PASST
def test_nothing_stays_of_a_client_that_was_killed(host: Host) -> None:
    before = helpers(host)
    job = host.begin("--network", "open", "--", "sh", "-c", "echo ready; exec sleep 600")
    (machine,) = host.machines()
    with_network = helpers(host) - before
    assert with_network, "a network is served by processes"
    job.kill()
    host.emptied()
    assert gone(machine["pid"])
    assert machine["id"] not in host.places()
    ended(with_network)


@NEEDS_PASST
def test_also_when_the_service_was_restarted_meanwhile(host: Host) -> None:
    before = helpers(host)
    job = host.begin("--network", "open", "--", "sh", "-c", "echo ready; exec sleep 600")
    with_network = helpers(host) - before
    assert with_network
    host.restart(signal.SIGKILL)
    job.kill()
    host.emptied()
    ended(with_network)


def test_a_client_killed_while_the_service_is_away_is_noticed(host: Host) -> None:
    job = host.begin("--", "sh", "-c", "echo ready; exec sleep 600")
    (machine,) = host.machines()
    host.end(signal.SIGKILL)
    job.kill()
    assert not gone(machine["pid"])
    host.start()
    assert gone(machine["pid"])
    assert machine["id"] not in host.places()


def test_a_client_killed_while_its_machine_is_made_leaves_nothing(host: Host) -> None:
    host.ask("drain")
    wait_until(lambda: host.standbys() == [], "no standby")
    host.ask("undrain")
    host.ask("cool", image=IMAGE)
    job = host.client("run", IMAGE, "--no-workdir", "--", "true")
    wait_until(lambda: host.machines("wanted", "starting") != [], "the start")
    job.kill()
    host.emptied()
    wait_until(lambda: not host.places(), "nothing to be there")
    assert host.qemus() == []
    host.ask("warm", image=IMAGE)
    host.refilled()


def test_a_job_whose_qemu_is_killed_fails_by_mayflys_fault(host: Host, tmp_path: Path) -> None:
    status = tmp_path / "status"
    script = "echo ready; exec sleep 600"
    job = host.begin("--status-file", str(status), "--", "sh", "-c", script)
    (machine,) = host.machines()
    os.kill(machine["pid"], signal.SIGKILL)
    code, _, said = job.end()
    assert code == 125
    assert "the machine ended before the job did: its QEMU ended" in said
    assert json.loads(status.read_text())["who"] == "mayfly"
    host.emptied()
    assert machine["id"] not in host.places()


def test_also_while_the_service_is_away(host: Host) -> None:
    job = host.begin("--", "sh", "-c", "echo ready; exec sleep 600")
    (machine,) = host.machines()
    host.end(signal.SIGKILL)
    os.kill(machine["pid"], signal.SIGKILL)
    code, _, said = job.end()
    assert code == 125
    assert "mayfly: " in said
    host.start()
    assert machine["id"] not in host.places()


def test_a_stopped_qemu_is_not_dead(host: Host) -> None:
    job = host.begin("--", "sh", "-c", "echo ready; read word; echo $word")
    (machine,) = host.machines()
    os.kill(machine["pid"], signal.SIGSTOP)
    try:
        assert host.machines()[0]["state"] == "running"
        assert host.ask("show", machine=machine["id"])["machine"]["busy"] == ""
    finally:
        os.kill(machine["pid"], signal.SIGCONT)
    assert job.end(b"awake\n") == (0, b"awake\n", "")


def test_a_stopped_qemu_can_be_deleted(host: Host) -> None:
    job = host.begin("--", "sh", "-c", "echo ready; exec sleep 600")
    (machine,) = host.machines()
    os.kill(machine["pid"], signal.SIGSTOP)
    host.ask("delete", machine=machine["id"])
    code, _, said = job.end()
    assert code == 125
    assert "it was deleted" in said
    assert gone(machine["pid"])


def test_a_machine_whose_qemu_was_stopped_meanwhile_is_taken_over_later(host: Host) -> None:
    job = host.begin("--", "sh", "-c", "echo ready; read word; echo $word")
    (machine,) = host.machines()
    os.kill(machine["pid"], signal.SIGSTOP)
    try:
        host.restart(signal.SIGKILL)
        assert [one["id"] for one in host.machines()] == [machine["id"]]
    finally:
        os.kill(machine["pid"], signal.SIGCONT)
    wait_until(lambda: host.machines()[0]["busy"] == "", "it to be taken over")
    assert job.end(b"awake\n") == (0, b"awake\n", "")


def test_a_guest_that_powers_off_ends_its_machine(host: Host) -> None:
    job = host.begin("--root", "--", "sh", "-c", "echo ready; sync; echo o > /proc/sysrq-trigger")
    code, _, said = job.end()
    assert code == 125
    assert "the machine ended before the job did: it was powered off from inside" in said
