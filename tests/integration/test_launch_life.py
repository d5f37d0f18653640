"""How a child of ``launch`` begins and ends, and what is open in it."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import mayfly
from mayfly.engine.launch import Isolation, launch
from mayfly.engine.linux import start_time
from mayfly.errors import Failed
from tests.integration.shut_in import PYTHON, UID, end, ends, helper, python, run

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]
NOBODY = 65534


# --- descriptors ---------------------------------------------------------------------------------


@pytest.mark.parametrize("least", [(), (77,), (100, 101, 102), (900, 60, 300)])
def test_only_what_is_passed_is_open(tmp_path: Path, least: tuple[int, ...]) -> None:
    stray = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(stray, True)
    passed = []
    for number in least:
        (tmp_path / str(number)).write_text(f"file {number}")
        with open(tmp_path / str(number), "rb") as file:
            passed.append(fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, number))
    code = f"""
        listing = os.open("/proc/self/fd", os.O_RDONLY)
        found = [int(name) for name in os.listdir("/proc/self/fd")]
        still = [fd for fd in found if fd != listing and os.path.exists(f"/proc/self/fd/{{fd}}")]
        texts = [os.read(fd, 99).decode() for fd in {passed}]
        print(json.dumps([still, texts, os.read(0, 9).decode()]))
    """
    still, texts, stdin = python(code, pass_fds=passed)
    for fd in (stray, *passed):
        os.close(fd)
    assert sorted(still) == sorted([0, 1, 2, *passed])
    assert texts == [f"file {number}" for number in least]
    assert stdin == ""


def test_its_output_goes_where_it_should() -> None:
    code = "import sys; print('out', flush=True); print('err', file=sys.stderr)"
    assert run([PYTHON, "-I", "-S", "-c", code]).output == "out\nerr\n"


# --- its beginning -------------------------------------------------------------------------------


def test_it_does_nothing_before_it_may(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    argv = ["/usr/bin/touch", str(mark)]
    child = launch(argv, Isolation(uid=None, namespaces=False), pass_fds=[], output=2)
    assert start_time(child.pid) is not None
    assert not mark.exists()
    child.go()
    os.waitpid(child.pid, 0)
    assert mark.exists()


def test_a_program_that_cannot_run_is_told() -> None:
    child = launch(["/usr/bin/nowhere"], Isolation(uid=UID), pass_fds=[], output=2)
    with pytest.raises(Failed, match=r"cannot start QEMU: .*No such file"):
        child.go()
    with pytest.raises(ChildProcessError):
        os.waitpid(child.pid, 0)


def test_a_step_that_failed_long_ago_is_told() -> None:
    # There is no directory for it in the new root.
    isolation = Isolation(uid=UID, devices=("/dev/pts/ptmx",))
    child = launch(["/usr/bin/true"], isolation, pass_fds=[], output=2)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    with pytest.raises(Failed, match=r"cannot start QEMU: .*/dev/pts/ptmx"):
        child.go()


def test_nothing_stays_open_here() -> None:
    before = set(os.listdir("/proc/self/fd"))
    run(["/usr/bin/true"])
    child = launch(["/usr/bin/nowhere"], Isolation(uid=UID), pass_fds=[], output=2)
    with pytest.raises(Failed):
        child.go()
    assert set(os.listdir("/proc/self/fd")) == before


# --- its end -------------------------------------------------------------------------------------

LAUNCH = """
    import sys
    from mayfly.engine.launch import Isolation, launch
    isolation = Isolation(uid={uid}, die_with_parent={die})
    child = launch(["/usr/bin/sleep", "600"], isolation, pass_fds=[], output=2)
    if {go}:
        child.go()
    print(child.pid, flush=True)
    sys.stdin.read()
"""


def orphan(*, die: bool, go: bool) -> int:
    """Have a process launch a child, and kill that process; gives the child's pid."""
    with helper(LAUNCH.format(uid=UID, die=die, go=go)) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        assert start_time(pid) is not None
        process.send_signal(signal.SIGKILL)
        process.wait()
    return pid


def test_it_dies_with_its_parent() -> None:
    pid = orphan(die=True, go=True)
    try:
        assert ends(pid)
    finally:
        end(pid)


@pytest.mark.parametrize("die", [True, False])
def test_it_ends_when_its_parent_dies_before_it_may_begin(die: bool) -> None:
    pid = orphan(die=die, go=False)
    try:
        assert ends(pid)
    finally:
        end(pid)


GO_AND_DIE = """
    import os, signal
    from mayfly.engine.launch import Isolation, launch
    child = launch(["/usr/bin/sleep", "600"], Isolation(uid={uid}), pass_fds=[], output=2)
    # Long before it is ready.
    os.kill(child.pid, signal.SIGSTOP)
    os.write(child._go, b"1")
    print(child.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_it_ends_when_its_parent_dies_while_it_gets_ready() -> None:
    with helper(GO_AND_DIE.format(uid=UID)) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        process.wait()
    try:
        os.kill(pid, signal.SIGCONT)
        assert ends(pid)
    finally:
        end(pid)


def test_it_goes_on_without_its_parent_when_it_should() -> None:
    pid = orphan(die=False, go=True)
    try:
        assert start_time(pid) is not None
        assert Path(f"/proc/{pid}/cmdline").read_bytes() == b"/usr/bin/sleep\x00600\x00"
    finally:
        end(pid)
    assert ends(pid)


# --- for a plain user ----------------------------------------------------------------------------

INSIDE = """
import json, os
lines = open("/proc/self/status").read().splitlines()
found = dict(line.split(":", 1) for line in lines)
print(json.dumps({
    "uid": os.getuid(),
    "pid": os.getpid(),
    "root": os.listdir("/"),
    "rights": int(found["CapEff"], 16),
    "no_new": int(found["NoNewPrivs"]),
    "network": [line.split()[0] for line in open("/proc/net/dev").readlines()[2:]],
    "writable": [name for name in ("/", "/etc", "/dev", "/usr") if os.access(name, os.W_OK)],
    "null": os.access("/dev/null", os.W_OK),
}))
"""
OUTSIDE = """
import os, sys
sys.path.insert(0, sys.argv[1])
from mayfly.engine.launch import Isolation, launch
argv = ["/usr/bin/python3", "-I", "-S", "-c", sys.argv[2]]
child = launch(argv, Isolation(uid=None), pass_fds=[], output=1)
child.go()
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1]))
"""


@pytest.fixture
def readable() -> Iterator[Path]:
    """The package where every user can read it."""
    with tempfile.TemporaryDirectory(prefix="mayfly-test-", dir="/var/tmp") as name:
        shutil.copytree(Path(mayfly.__file__).parent, Path(name) / "mayfly")
        os.chmod(name, 0o755)
        yield Path(name)


def test_a_plain_user_shuts_it_in_too(readable: Path) -> None:
    become = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    if subprocess.run([*become, "unshare", "--user", "true"], check=False).returncode != 0:
        pytest.skip("users may not make namespaces here")
    argv = [*become, PYTHON, "-I", "-c", OUTSIDE, str(readable), INSIDE]
    done = subprocess.run(argv, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["uid"], found["pid"]) == (NOBODY, 1)
    assert (found["rights"], found["no_new"]) == (0, 1)
    assert found["network"] == ["lo:"]
    assert (found["writable"], found["null"]) == ([], True)
    assert {"etc", "dev", "proc", "usr"} <= set(found["root"])
    assert not {"home", "root", "tmp", "var"} & set(found["root"])
