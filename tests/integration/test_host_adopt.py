"""Networks, shared directories and machines that stay, when the service is started again."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from mayfly.engine.network.netns import GATEWAY, PROXY_PORT
from tests.integration.faults import machines_dir
from tests.integration.host import ALICE, IMAGE, MARKS, Host, Job, User, host_of
from tests.integration.waiting import command_of, gone, parent, wait_until

pytestmark = MARKS

OWNER = User(uid=ALICE)
ASK = """
echo ready
while read host port words; do
    timeout 10 bash -c 'exec 3<>/dev/tcp/$0/$1; printf "%s\\r\\n\\r\\n" "$2" >&3; head -1 <&3' \\
        "$host" "$port" "$words" 2>&1 | head -1
done
"""
"""Says what is answered at an address, in one line; nothing when nobody answers at all."""
NOT_ALLOWED = f"{GATEWAY} {PROXY_PORT} GET http://example.org/ HTTP/1.0"
PRIVATE = "10.1.2.3 80 GET / HTTP/1.0"


@pytest.fixture(scope="module")
def service(warm_home: Path) -> Iterator[Host]:
    """A service that keeps one standby."""
    with host_of(warm_home, f'[[standby]]\nimage = "{IMAGE}"\nmost = 1\n') as host:
        yield host


@pytest.fixture
def host(service: Host) -> Iterator[Host]:
    """That service, with its standby ready."""
    service.refilled()
    yield service
    service.forget_jobs()
    service.emptied()


@pytest.mark.skipif(shutil.which("pasta") is None, reason="passt is not installed")
@pytest.mark.parametrize(
    ("mode", "question", "answer"),
    [("restricted", NOT_ALLOWED, " 403 "), ("open", PRIVATE, "Connection refused")],
)
def test_a_network_outlives_the_service(host: Host, mode: str, question: str, answer: str) -> None:
    """It refuses as it should: that needs all of it, and nobody outside of this computer."""
    options = ["--network", mode]
    if mode == "restricted":
        options += ["--allow", "deb.debian.org:80"]
    job = host.begin(*options, "--", "bash", "-c", ASK, user=OWNER)
    assert job.process.stdin is not None
    for restart in (False, True):
        if restart:
            host.restart(signal.SIGKILL)
        job.process.stdin.write(f"{question}\n".encode())
        job.process.stdin.flush()
        assert answer in job.line()
    assert job.end(b"")[0] == 0


@pytest.fixture
def data(service: Host) -> Iterator[Path]:
    """A directory of the user."""
    path = service.top / "data"
    path.mkdir(mode=0o700)
    os.chown(path, ALICE, ALICE)
    yield path
    shutil.rmtree(path)


def test_a_shared_directory_outlives_the_service(host: Host, data: Path) -> None:
    (data / "in").write_text("from the host\n")
    (data / "in").chmod(0o644)
    script = f"cd {data}; echo ready; read word; cat in; echo $word > out; read word; cat in >> out"
    job = host.begin("--share", str(data), "--", "sh", "-c", script, user=OWNER)
    assert job.process.stdin is not None
    job.process.stdin.write(b"before\n")
    job.process.stdin.flush()
    assert job.line() == "from the host\n"
    wait_until(lambda: (data / "out").exists() and (data / "out").read_text() == "before\n", "it")
    host.restart(signal.SIGKILL)
    (data / "in").write_text("after\n")
    assert job.end(b"go on\n") == (0, b"", "")
    assert (data / "out").read_text() == "before\nafter\n"
    assert (data / "out").stat().st_uid == ALICE


def test_a_read_only_share_stays_so(host: Host, data: Path) -> None:
    words = ["sh", "-c", f"touch {data}/new && echo made"]
    code, output, _ = host.job("--share", f"{data}:ro", "--", *words, user=OWNER)
    assert (code != 0, output) == (True, "")
    assert list(data.iterdir()) == []


def test_a_user_shares_nothing_that_is_not_theirs(host: Host) -> None:
    secret = host.top / "secret"
    secret.mkdir(mode=0o700)
    (secret / "key").write_text("of root")
    words = ["sh", "-c", f"cat {secret}/key"]
    code, output, _ = host.job("--share", str(secret), "--", *words, user=OWNER)
    assert (code != 0, output) == (True, "")


def test_a_machine_that_stays_is_there_after_a_restart(host: Host) -> None:
    name = host.run("run", IMAGE, "--no-workdir", "--detach", user=OWNER)[1].strip()
    host.run("machine", "ssh", name, "--", "sh", "-c", "echo kept > word", user=OWNER)
    host.restart(signal.SIGKILL)
    (seen,) = json.loads(host.run("machine", "list", "--json", user=OWNER)[1])
    assert (seen["id"], seen["state"]) == (name, "running")
    code, output, said = host.run("machine", "ssh", name, "--", "cat", "word", user=OWNER)
    assert (code, output, said) == (0, "kept\n", "")
    assert host.run("machine", "delete", name, user=OWNER)[0] == 0
    host.emptied()
    assert gone(seen["pid"])


def test_a_job_that_runs_is_nobodys_to_enter_also_after_a_restart(host: Host) -> None:
    job = host.begin("--", "sh", "-c", "echo ready; read word", user=OWNER)
    (machine,) = host.machines()
    for restart in (False, True):
        if restart:
            host.restart(signal.SIGKILL)
        code, output, said = host.run("machine", "ssh", machine["id"], "--", "id", user=OWNER)
        assert (code, output) == (5, ""), said
        assert "a job runs in machine" in said
    assert job.end(b"\n")[0] == 0


def suspended(host: Host) -> str:
    """Give a machine that lies on disk, with something in its memory."""
    name = host.run("run", IMAGE, "--no-workdir", "--detach", user=OWNER)[1].strip()
    host.run("machine", "ssh", name, "--", "sh", "-c", "echo kept > /dev/shm/word", user=OWNER)
    assert host.run("machine", "suspend", name, user=OWNER)[0] == 0
    return name


def goes_on(host: Host, name: str) -> tuple[int, str]:
    """Resume a machine that is suspended; gives what a look into its memory says."""
    (seen,) = host.machines("suspended")
    assert seen["id"] == name
    assert host.run("machine", "resume", name, user=OWNER)[0] == 0
    words = ["--", "cat", "/dev/shm/word"]
    found = host.run("machine", "ssh", name, *words, user=OWNER)[:2]
    assert host.run("machine", "delete", name, user=OWNER)[0] == 0
    return found


KEPT = (0, "kept\n")


def pid_after(host: Host, name: str, before: int) -> int:
    """Wait for a machine's next QEMU; gives its process."""
    wait_until(lambda: host.record(name)["pid"] != before, "a process")
    pid: int = host.record(name)["pid"]
    # Until then it is a copy of the child, with all its descriptors.
    wait_until(lambda: command_of(pid).startswith("qemu"), "QEMU")
    return pid


def resuming(host: Host, name: str) -> tuple[Job, int, int]:
    """Stop a resumption midway; gives the client, the child that does it, and the new QEMU."""
    assert host.process is not None
    for _ in range(20):
        before = host.record(name)["pid"]
        client = host.client("machine", "resume", name, user=OWNER)
        qemu = pid_after(host, name, before)
        os.kill(qemu, signal.SIGSTOP)
        worker = parent(qemu)
        if host.record(name)["state"] == "starting" and worker != host.process.pid:
            return client, worker, qemu
        # It was faster than we.
        os.kill(qemu, signal.SIGCONT)
        assert client.end()[0] == 0
        assert host.run("machine", "suspend", name, user=OWNER)[0] == 0
    raise AssertionError("never seen midway")


@pytest.mark.parametrize("state", ["starting", "paused", "running"])
def test_a_machine_whose_resumption_was_cut_short_is_still_suspended(
    host: Host, state: str
) -> None:
    name = suspended(host)
    host.end(signal.SIGKILL)
    file = machines_dir(host.top) / name / "record.json"
    # As far as a service that was killed just then had come.
    file.write_text(json.dumps({**host.record(name), "state": state, "pid": 0}))
    host.start()
    assert goes_on(host, name) == KEPT


def test_a_resumption_whose_child_is_killed_leaves_no_qemu(host: Host) -> None:
    name = suspended(host)
    client, worker, qemu = resuming(host, name)
    os.kill(worker, signal.SIGKILL)
    code, _, said = client.end()
    assert (code, "ended without a word" in said) == (1, True), said
    assert gone(qemu)
    assert goes_on(host, name) == KEPT


def test_a_resumption_that_outlives_its_service_loses_nothing(host: Host) -> None:
    """The child holds the machine while the next service looks around, and ends only then."""
    name = suspended(host)
    client, worker, qemu = resuming(host, name)
    os.kill(worker, signal.SIGSTOP)
    host.restart(signal.SIGKILL)
    assert host.machines("suspended") == []
    for pid in (qemu, worker):
        os.kill(pid, signal.SIGCONT)
    wait_until(lambda: host.machines("suspended") != [], "the machine to be looked after")
    assert gone(qemu)
    client.end()
    assert goes_on(host, name) == KEPT


def test_what_an_earlier_service_left_half_made_is_removed(host: Host) -> None:
    host.end(signal.SIGKILL)
    machines = next((host.state / "machines").iterdir())
    (machines / "a2b3c4d5").mkdir()
    (machines / "a2b3c4d6").mkdir()
    (machines / "a2b3c4d6" / "record.json").write_text("{")
    (machines / ".gone-a2b3c4d7-1").mkdir()
    before = host.qemus()
    host.start()
    wait_until(lambda: all(map(gone, before)), "the standbys of the earlier service to end")
    host.refilled()
    assert host.places() == [one["id"] for one in host.standbys()]


def test_a_job_that_fails_is_kept_also_when_the_service_was_restarted(host: Host) -> None:
    script = "echo ready; read word; echo $word > word; exit 3"
    job = host.begin("--keep-on-failure", "--", "sh", "-c", script, user=OWNER)
    (machine,) = host.machines()
    host.restart(signal.SIGKILL)
    code, _, said = job.end(b"kept\n")
    assert code == 3
    assert machine["id"] in said
    debug = host.run("machine", "debug", machine["id"], "--", "cat", "word", user=OWNER)
    assert debug[:2] == (0, "kept\n"), debug
    assert host.run("machine", "delete", machine["id"], user=OWNER)[0] == 0
