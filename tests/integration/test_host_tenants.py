"""A user of the host who is an attacker: what is others' stays theirs, and the service goes on."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import mmap
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mayfly.engine.memory import SEALS
from mayfly.engine.network.attach import NOBODY
from mayfly.errors import Conflict, Denied, MayflyError
from tests.integration.faults import machines_dir
from tests.integration.host import ALICE, BOB, IMAGE, MARKS, Host, User, claim_fields, host_of
from tests.integration.hostile import (
    Claimed,
    claimed,
    memory_mib,
    program,
    reached,
    status_asked,
)
from tests.integration.waiting import gone, wait_until

pytestmark = MARKS

ATTACKER, OTHER = User(uid=ALICE), User(uid=BOB)
NOT_HERS = {"EPERM", "EACCES"}
ALL_EVENTS = 0xFFF
"""Of inotify(7)."""
SEED = int(os.environ.get("MAYFLY_TEST_SEED", random.randrange(1 << 32)))


@pytest.fixture(scope="module")
def service(warm_home: Path) -> Iterator[Host]:
    with host_of(warm_home, f'[[standby]]\nimage = "{IMAGE}"\nmost = 1\n') as host:
        host.refilled()
        yield host


@pytest.fixture
def host(service: Host) -> Iterator[Host]:
    """A service with no machine of a user, before and after."""
    yield service
    service.clear()


@pytest.fixture
def victim(host: Host) -> Iterator[Claimed]:
    """A machine of somebody else."""
    with claimed(host, OTHER) as machine:
        yield machine


# --- QEMU and its files --------------------------------------------------------------------------


def files_of(host: Host, name: str) -> list[Path]:
    place = machines_dir(host.top) / name
    return [place / each for each in ("disk.qcow2", "record.json", "qmp", "control", "session")]


def test_a_user_has_a_handle_on_qemu_and_can_do_nothing_with_it(host: Host) -> None:
    with claimed(host, ATTACKER) as machine:
        tried = reached(ATTACKER, machine.qemu, files_of(host, machine.name))
        assert set(tried.values()) <= NOT_HERS, tried
        assert len(tried) == 20
        assert not gone(machine.qemu)


def test_a_user_reaches_nothing_of_anothers_machine(host: Host, victim: Claimed) -> None:
    tried = reached(ATTACKER, victim.qemu, files_of(host, victim.name))
    assert set(tried.values()) <= NOT_HERS, tried


def test_one_qemu_reaches_nothing_of_another(host: Host, victim: Claimed) -> None:
    with claimed(host, ATTACKER) as machine:
        owners = [os.stat(f"/proc/{pid}").st_uid for pid in (machine.qemu, victim.qemu)]
        assert len({*owners, ALICE, BOB, 0}) == 5
        # With the uid of the attacker's QEMU, and without what it is shut in by.
        taken_over = User(uid=owners[0])
        tried = reached(taken_over, victim.qemu, files_of(host, victim.name))
        assert set(tried.values()) <= NOT_HERS, tried
        own = reached(taken_over, machine.qemu, files_of(host, machine.name))
        assert {own[str(file)] for file in files_of(host, machine.name)} == {"EACCES"}


@pytest.mark.parametrize("mode", ["restricted", "open"])
def test_what_serves_a_machines_network_belongs_to_that_machine_alone(
    host: Host, mode: str
) -> None:
    if mode == "open" and shutil.which("pasta") is None:
        pytest.skip("passt is not installed")
    with claimed(host, OTHER, network=mode) as machine:
        owner = os.stat(f"/proc/{machine.qemu}").st_uid
        helpers = [pid for pid in processes_of(owner) if pid != machine.qemu]
        assert helpers
        for pid in helpers:
            for user in (ATTACKER, User(uid=owner + 1), User(uid=NOBODY.uid)):
                tried = reached(user, pid, [])
                assert set(tried.values()) <= NOT_HERS, (user, tried)
    wait_until(lambda: all(map(gone, helpers)), "their end")


def processes_of(uid: int) -> list[int]:
    """Give the processes of a user."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and uid in real_and_effective(entry):
                found.append(int(entry.name))
    return found


def real_and_effective(entry: Path) -> list[int]:
    (line,) = [each for each in (entry / "status").read_text().splitlines() if "Uid:" in each]
    return [int(word) for word in line.split()[1:3]]


def test_the_memory_that_machines_share_cannot_be_written(victim: Claimed) -> None:
    fds = [Path(f"/proc/{victim.qemu}/fd/{each}") for each in os.listdir(f"/proc/{victim.qemu}/fd")]
    held = [file for file in fds if "memfd:mayfly-" in os.readlink(file)]
    assert held
    for memory in held:
        with open(memory, "r+b", buffering=0) as file:
            assert fcntl.fcntl(file, fcntl.F_GET_SEALS) & SEALS == SEALS
            with pytest.raises(PermissionError):
                mmap.mmap(file.fileno(), mmap.PAGESIZE, mmap.MAP_SHARED, mmap.PROT_WRITE)
            with pytest.raises(PermissionError):
                os.pwrite(file.fileno(), b"owned", 0)


@pytest.mark.parametrize("sharing", ["host", "none"])
def test_where_the_site_wants_it_no_memory_is_shared(warm_home: Path, sharing: str) -> None:
    with (
        host_of(warm_home, f'sharing = "{sharing}"\n') as host,
        claimed(host, OTHER) as one,
        claimed(host, ATTACKER) as other,
    ):
        shared = memory_objects(one.qemu) & memory_objects(other.qemu)
    assert bool(shared) == (sharing == "host")


def memory_objects(pid: int) -> set[int]:
    """Give which memory objects a process has open."""
    files = [Path(f"/proc/{pid}/fd/{each}") for each in os.listdir(f"/proc/{pid}/fd")]
    found = {file.stat().st_ino for file in files if "memfd:mayfly-" in os.readlink(file)}
    assert found
    return found


# --- who asks ------------------------------------------------------------------------------------


def test_rights_are_those_of_whoever_connected(host: Host) -> None:
    # This process connects as a user, and asks as root.
    with pytest.raises(Denied):
        host.ask("drain", ATTACKER)
    assert os.geteuid() == 0
    assert host.ask("status")["draining"] is False


def test_root_of_a_namespace_is_not_root(host: Host) -> None:
    code = """
import json, os, socket, sys
def ask(op):
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.connect(sys.argv[1])
        connection.send(json.dumps({"v": 1, "op": op}).encode())
        return json.loads(connection.recv(65536))["type"]
print(json.dumps([os.geteuid(), ask("drain"), ask("status")]))
"""
    argv = [*ATTACKER.prefix(), "unshare", "--user", "--map-root-user"]
    argv += [sys.executable, "-I", "-c", code, str(host.socket)]
    done = subprocess.run(argv, capture_output=True, cwd="/", timeout=60, check=False)
    if b"unshare failed" in done.stderr:
        pytest.skip("users may make no namespaces here")
    assert done.stdout == b'[0, "error", "ok"]\n', done.stderr


PASSED_ON = """
import json, os, socket, sys
connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
connection.connect(sys.argv[1])
connection.send(json.dumps({"v": 1, "op": "claim", **json.loads(sys.argv[2])}).encode())
while True:
    answer, fds, _, _ = socket.recv_fds(connection, 65536, 4)
    answer = json.loads(answer)
    if answer["type"] in ("ok", "error"):
        break
if os.fork() == 0:
    os.close(1)
    os.close(2)
    os.setsid()
    connection.settimeout(60)
    while True:
        if not connection.recv(65536):
            os._exit(0)
print(json.dumps(answer), flush=True)
"""


def test_a_connection_that_is_passed_on_does_not_keep_the_machine(host: Host) -> None:
    answer = program(PASSED_ON, str(host.socket), json.dumps(claim_fields()), user=ATTACKER)
    name = answer["machine"]
    # Its child still has the connection; the process that asked has ended.
    host.emptied()
    assert name not in host.places()


# --- clients that come to grief ------------------------------------------------------------------


def test_a_client_that_is_stopped_keeps_its_machine_and_nobody_waiting(host: Host) -> None:
    job = host.begin("--", "sh", "-c", "echo ready; read word; echo $word", user=ATTACKER)
    os.kill(job.pid, signal.SIGSTOP)
    with status_asked(host) as latency:
        assert host.job("--", "true", user=OTHER)[0] == 0
    latency.assert_soon()
    os.kill(job.pid, signal.SIGCONT)
    assert job.end(b"awake\n") == (0, b"awake\n", "")


def test_clients_killed_at_any_moment_leave_nothing(host: Host) -> None:
    print(f"MAYFLY_TEST_SEED={SEED}")
    chance = random.Random(SEED)
    for _ in range(5):
        job = host.client("run", IMAGE, "--no-workdir", "--", "sleep", "600", user=ATTACKER)
        with contextlib.suppress(subprocess.TimeoutExpired):
            job.process.wait(chance.uniform(0.05, 0.9))
        job.kill()
    host.emptied()
    host.refilled()
    assert len(host.places()) == 1


def test_a_client_that_serves_no_directory_keeps_nobody_waiting(host: Host) -> None:
    host.refilled()
    with contextlib.closing(host.connect(ATTACKER)) as connection:
        shares = [{"path": f"/srv/{number}"} for number in range(64)]
        connection.ask("claim", claim_fields(shares=shares))
        wait_until(lambda: host.machines("starting") != [], "the machine to be waited for")
        with status_asked(host) as latency:
            assert host.job("--", "true", user=OTHER)[0] == 0
        latency.assert_soon()
    host.emptied()


def test_no_path_of_a_user_is_opened(host: Host, tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    watch = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    for path in (tmp_path, tmp_path / "inside"):
        assert libc.inotify_add_watch(watch, os.fsencode(path), ALL_EVENTS) > 0
    with contextlib.closing(host.connect(ATTACKER)) as connection:
        shares = [{"path": str(tmp_path / name)} for name in ("inside", "inside/../missing")]
        connection.ask("claim", claim_fields(shares=shares, label=str(tmp_path)))
        wait_until(lambda: host.machines("starting") != [], "the machine to be waited for")
    host.emptied()
    with pytest.raises(BlockingIOError):
        os.read(watch, 4096)
    os.listdir(tmp_path)
    assert os.read(watch, 4096)
    os.close(watch)


def test_who_asks_for_everything_at_once_gets_an_answer_to_each(host: Host) -> None:
    with claimed(host, ATTACKER, outlive=True) as machine:
        print(f"MAYFLY_TEST_SEED={SEED}")
        chance = random.Random(SEED)
        ops = ["pause", "resume", "enter", "logs", "show", "snapshots", "snapshot", "revert"]
        with contextlib.ExitStack() as stack:
            connections = [
                stack.enter_context(contextlib.closing(host.connect(ATTACKER))) for _ in range(12)
            ]
            for number, connection in enumerate(connections):
                op = chance.choice([*ops, "delete"] if number > 8 else ops)
                connection.ask(op, {"machine": machine.name, "point": "a"})
            kinds = [answered(connection) for connection in connections]
        assert "Failed" not in kinds, kinds
    assert host.ask("status")["waiting"] == 0


@pytest.mark.parametrize("op", ["snapshot", "snapshots"])
def test_what_is_cut_short_by_a_deletion_says_so(host: Host, op: str) -> None:
    with claimed(host, ATTACKER, outlive=True) as machine, contextlib.ExitStack() as stack:
        asked, other = (
            stack.enter_context(contextlib.closing(host.connect(ATTACKER))) for _ in range(2)
        )
        asked.ask(op, {"machine": machine.name, "point": "a"})
        other.ask("delete", {"machine": machine.name})
        assert answered(other) == "ok"
        with pytest.raises(Conflict, match="was ended meanwhile: it was deleted"):
            asked.answer()


def answered(connection: Any) -> str:
    """Wait for an answer; gives ``ok`` or the name of the error."""
    try:
        _, fds = connection.answer()
    except MayflyError as error:
        return type(error).__name__
    for fd in fds:
        os.close(fd)
    return "ok"


# --- too much ------------------------------------------------------------------------------------

CROWD = """
import json, resource, socket, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
connections, refused = [], 0
request = b'{"v": 1, "op": "status"}'
for number in range(3000):
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.connect(sys.argv[1])
    try:
        connection.send([request, b"half {", b"", request * 3][number % 4])
    except OSError:
        refused += 1
    connections.append(connection)
print(json.dumps(refused))
"""


def test_thousands_of_connections_keep_nobody_waiting(host: Host) -> None:
    before = memory_mib(host)
    with status_asked(host) as latency:
        program(CROWD, str(host.socket), user=ATTACKER)
        assert host.job("--", "true", user=OTHER)[0] == 0
    latency.assert_soon()
    assert memory_mib(host) <= before + 4
