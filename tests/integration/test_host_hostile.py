"""A guest that belongs to an attacker, root in it: the host service and its other users go on."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mayfly.errors import MayflyError
from tests.integration.host import ALICE, BOB, IMAGE, MARKS, Host, User, claim_fields, host_of
from tests.integration.hostile import AGENT, memory_mib, status_asked
from tests.integration.waiting import wait_until

pytestmark = MARKS

ATTACKER, OTHER = User(uid=ALICE), User(uid=BOB)
MACHINE_LOG = 64 << 10
DISK = 160 << 20
SETTINGS = f"""
[[standby]]
image = "{IMAGE}"
most = 1
[logs]
machine = "{MACHINE_LOG}"
[disk]
room = "{DISK >> 20}M"
"""
NEEDS_PASST = pytest.mark.skipif(shutil.which("pasta") is None, reason="passt is not installed")


@pytest.fixture(scope="module")
def service(warm_home: Path) -> Iterator[Host]:
    with host_of(warm_home, SETTINGS) as host:
        host.refilled()
        yield host


@pytest.fixture
def host(service: Host) -> Iterator[Host]:
    """A service with no machine of a user, before and after."""
    yield service
    service.clear()


def lasting(host: Host) -> str:
    """Give a machine of the attacker's that stays."""
    with contextlib.closing(host.connect(ATTACKER)) as connection:
        connection.ask("claim", claim_fields(outlive=True))
        answer, fds = connection.answer()
        for fd in fds:
            os.close(fd)
    return str(answer["machine"])


def taken_over(host: Host, mode: str) -> str:
    """Give a machine in which a program of root's has taken the agent's place."""
    name = lasting(host)
    done = host.run(
        "machine", "ssh", name, "--root", "--", "perl", "-e", AGENT, mode, user=ATTACKER
    )
    assert done == (0, "ready\n", "")
    wait_until(lambda: "taken over" in said_on(host, name), "the attacker to begin")
    return name


def said_on(host: Host, name: str, log: str = "console.log") -> str:
    """Give a log of the attacker's machine."""
    items = host.items("logs", ATTACKER, machine=name, log=log)
    return "".join(str(one["text"]) for one in items)


def pause_and_resume(host: Host, name: str) -> str:
    """Have the service talk with the guest; gives why it could not."""
    try:
        host.ask("pause", ATTACKER, machine=name)
        host.ask("resume", ATTACKER, machine=name)
    except MayflyError as error:
        return error.message
    return ""


# --- the ports -----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["nonsense", "flood"])
def test_noise_on_the_control_port_costs_the_service_nothing(host: Host, mode: str) -> None:
    name = taken_over(host, mode)
    with status_asked(host) as latency:
        pause_and_resume(host, name)
        assert "nonsense" in said_on(host, name, "events.jsonl")
        before = memory_mib(host)
        for _ in range(100):
            pause_and_resume(host, name)
    latency.assert_soon()
    assert memory_mib(host) <= before + 2


def test_a_guest_that_never_answers_keeps_nobody_but_its_owner(host: Host) -> None:
    name = taken_over(host, "silence")
    host.ask("pause", ATTACKER, machine=name)
    with contextlib.closing(host.connect(ATTACKER)) as waiting:
        waiting.ask("resume", {"machine": name})
        wait_until(lambda: busy(host, name) == "resuming", "the service to wait for the guest")
        with pytest.raises(MayflyError, match="busy"):
            host.ask("snapshot", ATTACKER, machine=name, point="a")
        assert host.job("--", "true", user=OTHER)[0] == 0
        host.ask("delete", ATTACKER, machine=name)
        with pytest.raises(MayflyError):
            waiting.answer()
    host.emptied()
    assert name not in host.places()


def busy(host: Host, name: str) -> str:
    return str(host.ask("show", machine=name)["machine"]["busy"])


def test_noise_on_the_session_port_ends_the_run_and_nothing_else(host: Host) -> None:
    with status_asked(host) as latency:
        code, _, said = host.job("--root", "--", "perl", "-e", AGENT, "session", user=ATTACKER)
    assert code == 125
    assert "the agent in the machine sent nonsense" in said
    assert "Traceback" not in said
    latency.assert_soon()


# --- all that a guest has ------------------------------------------------------------------------

BOMB = """
echo ready
while :; do printf '\\033]0;owned\\007\\033[2J%s' "$(head -c 3000 /dev/zero | tr '\\0' '#')"; done \
    > /dev/ttyS0 &
cat /dev/zero > /filled &
bomb() { bomb | bomb & }
bomb
wait
sleep 1000
"""


def test_a_guest_that_does_its_worst_ends_when_it_shall(host: Host) -> None:
    host.refilled()
    job = host.begin("--root", "--", "sh", "-c", BOMB, user=ATTACKER)
    (machine,) = host.machines()
    disk = host.state / "machines"
    with status_asked(host) as latency:
        before = memory_mib(host)
        code, output, _ = host.job("--", "echo", "unharmed", user=OTHER)
        assert (code, output) == (0, "unharmed\n")
        for _ in range(20):
            host.items("logs", ATTACKER, machine=machine["id"])
        job.kill()
        host.emptied()
    latency.assert_soon()
    assert memory_mib(host) <= before + 4
    assert machine["id"] not in str(list(disk.rglob("*")))
    logs = host.state / "logs" / machine["id"]
    assert 0 < sum(file.stat().st_size for file in logs.iterdir()) < 2 * MACHINE_LOG


def test_a_guest_that_fills_its_disk_ends_with_what_it_was_granted(host: Host) -> None:
    fill = "echo ready; exec dd if=/dev/zero of=/filled bs=4M oflag=direct"
    job = host.begin("--root", "--", "sh", "-c", fill, user=ATTACKER)
    (machine,) = host.machines()
    (disk,) = host.state.glob(f"machines/*/{machine['id']}/disk.qcow2")
    with open(disk, "rb") as file:
        code, _, said = job.end()
        assert os.fstat(file.fileno()).st_size <= machine["memory_mib"] << 20
    assert code == 125
    assert "its disk grew beyond what it was granted" in said
    host.emptied()
    assert not disk.exists()


@pytest.mark.parametrize(
    ("trigger", "words"),
    [("c", "its kernel panicked: Kernel panic - not syncing"), ("b", "it rebooted")],
)
def test_a_guest_that_panics_or_reboots_ends_and_the_reason_is_told(
    host: Host, trigger: str, words: str
) -> None:
    host.refilled()
    script = f"echo 1 > /proc/sys/kernel/sysrq; echo {trigger} > /proc/sysrq-trigger; sleep 1000"
    code, _, said = host.job("--root", "--", "sh", "-c", script, user=ATTACKER)
    assert code == 125
    assert f"the machine ended before the job did: {words}" in said


# --- what a guest tells people -------------------------------------------------------------------

TRICKS = r"printf '\033]0;owned\007\033[2Jtrick\r\220\233\n' > /dev/ttyS0; echo told"


def test_what_a_guest_prints_does_nothing_to_a_terminal(host: Host) -> None:
    name = lasting(host)
    done = host.run("machine", "ssh", name, "--root", "--", "sh", "-c", TRICKS, user=ATTACKER)
    assert done == (0, "told\n", "")
    assert "\x1b" in said_on(host, name)
    for words in (("logs", name), ("logs", "--events", name), ("list",), ("show", name)):
        shown = on_a_terminal(host, "machine", *words)
        assert "\x1b" not in shown
        assert "\x07" not in shown
    assert "trick" in on_a_terminal(host, "machine", "logs", name)


def on_a_terminal(host: Host, *words: str) -> str:
    """Give what a command of root's writes to a terminal."""
    ours, theirs = os.openpty()
    with open(ours, "rb", buffering=0) as shown:
        with open(theirs, "wb", buffering=0) as terminal:
            subprocess.run(
                host.argv(*words),
                stdin=terminal,
                stdout=terminal,
                env=host.environment(),
                check=True,
            )
            os.set_blocking(ours, False)
        output = b""
        with contextlib.suppress(OSError):
            while piece := shown.read(1 << 16):
                output += piece
    return output.decode("utf-8", "replace")


def test_a_label_does_nothing_to_a_terminal_either(host: Host) -> None:
    with contextlib.closing(host.connect(ATTACKER)) as connection:
        connection.ask("claim", claim_fields(label="\x1b]0;owned\x07\u202etrick\n\x9b2J"))
        answer, fds = connection.answer()
        for fd in fds:
            os.close(fd)
        shown = on_a_terminal(host, "machine", "list")
        shown += on_a_terminal(host, "machine", "show", answer["machine"])
        shown += on_a_terminal(host, "machine", "logs", "--events", answer["machine"])
    assert "trick" in shown
    assert not [sign for sign in shown if not sign.isprintable() and sign not in "\r\n"]


# --- the network ---------------------------------------------------------------------------------

CONNECT = r"""
use IO::Socket::INET; my @pids;
for my $to (@ARGV) {
    my $pid = fork; next if $pid;
    my $got = IO::Socket::INET->new(PeerAddr => $to, Timeout => 5);
    print STDOUT ($got ? "reached $to\n" : "not $to\n"); exit;
}
1 while wait > 0;
"""


@NEEDS_PASST
@pytest.mark.parametrize("mode", ["none", "open"])
def test_a_guest_reaches_neither_the_host_nor_what_is_inside(host: Host, mode: str) -> None:
    with socket.create_server(("0.0.0.0", 0)) as server:
        port = server.getsockname()[1]
        there = ["10.0.2.2", "10.0.2.15", "169.254.169.254", "192.168.0.1", "172.16.0.1"]
        tried = [f"{address}:{port}" for address in (*there, *own_addresses())]
        job = host.job(
            *("--network", mode, "--root", "--", "perl", "-e", CONNECT, *tried), user=ATTACKER
        )
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()
    code, output, _ = job
    assert code == 0
    assert sorted(output.splitlines()) == sorted(f"not {each}" for each in tried)


def own_addresses() -> list[str]:
    """Give the host's own addresses."""
    shown = subprocess.run(["ip", "-4", "-o", "addr"], capture_output=True, check=True).stdout
    return [
        line.split()[3].split("/")[0] for line in shown.decode().splitlines() if " lo " not in line
    ]
