"""What a child of ``launch`` is kept from: seen from inside, with small programs for QEMU."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from mayfly.engine.launch import LIBRARY_DIRS, Isolation
from tests.integration.shut_in import PATIENCE_S, PYTHON, UID, helper, python, run

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]


def status(isolation: Isolation | None = None) -> dict[str, str]:
    """Give /proc/self/status as the child sees it."""
    done = run(["/usr/bin/cat", "/proc/self/status"], isolation)
    pairs = (line.split(":", 1) for line in done.output.splitlines())
    return {name: value.strip() for name, value in pairs}


# --- rights --------------------------------------------------------------------------------------


@pytest.mark.parametrize("namespaces", [True, False])
def test_it_has_its_own_uid_and_no_groups(namespaces: bool) -> None:
    isolation = Isolation(uid=UID, namespaces=namespaces)
    ids = run(["/usr/bin/id", "-G"], isolation), run(["/usr/bin/id", "-u"], isolation)
    assert [item.output for item in ids] == [f"{UID}\n", f"{UID}\n"]
    found = status(isolation)
    assert set(found["Uid"].split()) == set(found["Gid"].split()) == {str(UID)}
    assert not found["Groups"]


def test_it_has_the_groups_that_are_given() -> None:
    assert status(Isolation(uid=UID, groups=(107, 108)))["Groups"] == "107 108"


@pytest.mark.parametrize("namespaces", [True, False])
def test_it_has_no_rights_and_gets_none(namespaces: bool) -> None:
    found = status(Isolation(uid=UID, namespaces=namespaces))
    for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert int(found[name], 16) == 0, name
    assert found["NoNewPrivs"] == "1"


def test_it_starts_with_no_signal_blocked_or_ignored() -> None:
    old = signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    try:
        found = status()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
        signal.signal(signal.SIGINT, old)
    assert int(found["SigBlk"], 16) == 0
    # But for a file at its size limit, which is a failed write.
    assert int(found["SigIgn"], 16) & ~(1 << (signal.SIGXFSZ - 1)) == 0


def test_it_has_limits() -> None:
    limits = ((resource.RLIMIT_NOFILE, 64), (resource.RLIMIT_CORE, 0))
    code = "import resource as r; print([r.getrlimit(r.RLIMIT_NOFILE), r.getrlimit(r.RLIMIT_CORE)])"
    done = run([PYTHON, "-I", "-S", "-c", code], Isolation(uid=UID, limits=limits))
    assert done.output == "[(64, 64), (0, 0)]\n"


def test_a_limit_is_never_wider_than_the_callers() -> None:
    code = f"""
        import json, os, resource
        from mayfly.engine.launch import Isolation, launch
        resource.setrlimit(resource.RLIMIT_NOFILE, (50, 100))
        limits = ((resource.RLIMIT_NOFILE, 1000),)
        child = launch(["/usr/bin/prlimit", "--nofile", "--raw", "--noheadings", "-o", "SOFT,HARD"],
            Isolation(uid={UID}, limits=limits), pass_fds=[], output=1)
        child.go()
        os.waitpid(child.pid, 0)
    """
    with helper(code) as process:
        assert process.communicate(timeout=PATIENCE_S)[0].split() == [b"100", b"100"]


def test_its_environment_says_nothing_of_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "x")
    found = python("print(json.dumps(dict(os.environ)))")
    # Python itself may add the first.
    assert set(found) - {"LC_CTYPE"} == {"LC_ALL", "PATH"}
    assert python("print(json.dumps([os.umask(0), os.getsid(0) == os.getpid()]))") == [0o077, True]


# --- namespaces ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mnt", "pid", "ipc", "net", "uts"])
def test_it_has_namespaces_of_its_own(name: str) -> None:
    link = f"/proc/self/ns/{name}"
    inside = run(["/usr/bin/readlink", link]).output.strip()
    assert inside.startswith(f"{name}:[")
    assert inside != os.readlink(link)
    outside = run(["/usr/bin/readlink", link], Isolation(uid=None, namespaces=False))
    assert outside.output.strip() == os.readlink(link)


def test_it_sees_no_other_process() -> None:
    listed = run(["/usr/bin/ls", "/proc"]).output.split()
    assert [name for name in listed if name.isdigit()] == ["1"]


def test_its_network_is_empty() -> None:
    lines = run(["/usr/bin/cat", "/proc/net/dev"]).output.splitlines()[2:]
    assert [line.split(":")[0].strip() for line in lines] == ["lo"]
    assert run(["/usr/bin/cat", "/proc/net/route"]).output.count("\n") <= 1
    code = """
        import socket
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        print(s.connect_ex(("127.0.0.1", 9)))
    """
    assert python(code) == errno.ENETUNREACH


# --- files ---------------------------------------------------------------------------------------


def test_its_root_directory_has_only_what_it_needs() -> None:
    libraries = {name for name in LIBRARY_DIRS if os.path.exists(f"/{name}")}
    listed = run(["/usr/bin/ls", "-A", "/"]).output.split()
    assert set(listed) == libraries | {"etc", "dev", "proc"}
    assert run(["/usr/bin/ls", "-A", "/etc"]).output == "ld.so.cache\n"
    assert run(["/usr/bin/ls", "-A", "/dev"]).output.split() == ["null", "urandom"]


def test_it_can_use_its_devices_and_libraries() -> None:
    code = """
open("/dev/null", "w").write("x")
cache = open("/etc/ld.so.cache", "rb").read(6)
print(json.dumps([len(open("/dev/urandom", "rb").read(8)), cache.decode()]))
"""
    assert python(code) == [8, "glibc-" if b"glibc" in cache_start() else "ld.so-"]


def cache_start() -> bytes:
    return Path("/etc/ld.so.cache").read_bytes()[:6]


WRITE_EVERYWHERE = """
import errno
done = []
for top, directories, files in os.walk("/"):
    if top == "/":
        directories.remove("proc")
    if top.count("/") > 2:
        directories.clear()
    try:
        os.close(os.open(top + "/written", os.O_CREAT | os.O_WRONLY))
        done.append(top)
    except OSError as error:
        if error.errno not in REFUSALS:
            done.append([top, str(error)])
    for name in files[:20]:
        path = top + "/" + name
        if os.path.islink(path) or top == "/dev":
            continue
        try:
            os.close(os.open(path, os.O_WRONLY))
            done.append(path)
        except OSError as error:
            if error.errno not in REFUSALS | {errno.ETXTBSY}:
                done.append([path, str(error)])
print(json.dumps(done))
"""


def test_it_can_write_nowhere() -> None:
    refusals = "REFUSALS = {30, 13}\n"
    assert python(refusals + WRITE_EVERYWHERE) == []


def test_not_even_roots_rights_let_it_write() -> None:
    # Whether rights would help: the mounts themselves are read-only (EROFS is 30).
    refusals = "REFUSALS = {30}\n"
    assert python(refusals + WRITE_EVERYWHERE, Isolation(uid=None)) == []


def shut_in_with_tree(tree: Path, argv: list[str]) -> str:
    return run(argv, Isolation(uid=None, tree=str(tree))).output


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree with ``ls``, ``touch`` and their libraries, and nothing else."""
    for program in ("/usr/bin/ls", "/usr/bin/touch"):
        listed = subprocess.run(["ldd", program], capture_output=True, check=True, text=True)
        libraries = [word for word in listed.stdout.split() if word.startswith("/")]
        for file in (program, *libraries):
            target = tmp_path / file.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)
    (tmp_path / "usr/only-here").touch()
    (tmp_path / "usr/in ner").mkdir()
    return tmp_path


def test_it_can_live_in_another_tree(tree: Path) -> None:
    assert "only-here" in shut_in_with_tree(tree, ["/usr/bin/ls", "/usr"]).split()


def test_what_is_mounted_inside_is_not_writable_either(tree: Path) -> None:
    inner = tree / "usr/in ner"
    subprocess.run(["mount", "-t", "tmpfs", "none", str(inner)], check=True)
    try:
        said = shut_in_with_tree(tree, ["/usr/bin/touch", "/usr/in ner/x"])
        assert "Read-only" in said
        assert not list(inner.iterdir())
    finally:
        subprocess.run(["umount", str(inner)], check=True)
