"""Both ends of a session together: the real agent as a child process instead of a machine."""

from __future__ import annotations

import hashlib
import os
import pty
import socket
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import pytest

from mayfly.engine.session.run import JobRequest, JobResult, Stdio, run_job
from mayfly.model import Who
from tests.unit.engine.sessions import REQUEST, at_the_same_time, close, pipe, workdir

SOURCE = Path(__file__).parents[3] / "src"


@pytest.fixture
def port(tmp_path: Path) -> Iterator[socket.socket]:
    control, their_control = socket.socketpair()
    ours, theirs = socket.socketpair()
    root = tmp_path / "root"
    root.mkdir()
    with control, ours:
        agent = subprocess.Popen(
            [
                *(sys.executable, "-m", "mayfly.guest.agent"),
                *("--test-root", str(root), "--test-unclaimed"),
                *("--control-fd", str(their_control.fileno())),
                *("--session-fd", str(theirs.fileno())),
            ],
            env={**os.environ, "PYTHONPATH": str(SOURCE)},
            pass_fds=[their_control.fileno(), theirs.fileno()],
            stdin=subprocess.DEVNULL,
        )
        their_control.close()
        theirs.close()
        yield ours
        ours.close()
        control.close()
    # Both ports gone: the agent ends by itself.
    assert agent.wait(20) == 0


def request(*argv: str, **fields: Any) -> JobRequest:
    return replace(REQUEST, argv=argv, cwd="/", env={}, limits={}, **fields)


def sh(port: socket.socket, script: str, **fields: Any) -> tuple[JobResult, bytes, bytes]:
    """Run a script of the shell with files as its streams."""
    stdin = fields.pop("stdin", b"")
    with TemporaryFile() as inp, TemporaryFile() as out, TemporaryFile() as err:
        inp.write(stdin)
        inp.seek(0)
        stdio = Stdio(stdin=inp.fileno(), stdout=out.fileno(), stderr=err.fileno())
        given = request("/bin/sh", "-c", script, **fields)
        result = run_job(port, given, stdio, machine_gone=None, report=lambda _: None)
        out.seek(0)
        err.seek(0)
        return result, out.read(), err.read()


def test_streams_and_status(port: socket.socket) -> None:
    result, out, err = sh(port, "cat; echo err >&2; exit 3", stdin=b"in\0\xff" * 100_000)

    assert (result.code, result.who, result.phase) == (3, Who.JOB, "done")
    assert (out, err) == (b"in\0\xff" * 100_000, b"err\n")


def test_one_job_after_another(port: socket.socket) -> None:
    for number in range(3):
        assert sh(port, f"echo {number}")[1] == b"%d\n" % number


def test_ends_of_every_kind(port: socket.socket, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no program")
    ends = {}
    for program in ("/bin/true", "nonesuch", str(tmp_path / "text")):
        result = run_job(port, request(program), Stdio(), machine_gone=None, report=print)
        ends[program] = (result.code, result.who)
    assert list(ends.values()) == [(0, Who.JOB), (127, Who.JOB), (126, Who.JOB)]
    assert sh(port, "kill -SEGV $$")[0].code == 139


def test_environment_umask_and_arguments(port: socket.socket) -> None:
    given = replace(
        request("/bin/sh", "-c", 'umask; printf %s "$1$A"', "sh", "\udcff\n" + "x" * 100_000),
        umask=0o027,
        env={"A": "\udce4\n"},
    )
    with TemporaryFile() as out:
        run_job(port, given, Stdio(stdout=out.fileno()), machine_gone=None, report=lambda _: None)
        out.seek(0)
        assert out.read() == b"0027\n\xff\n" + b"x" * 100_000 + b"\xe4\n"


def test_job_that_leaves_a_daemon_does_not_hold_us(port: socket.socket) -> None:
    result, out, _ = sh(port, "sleep 30 & echo $!")
    assert result.code == 0
    os.kill(int(out), 9)


def test_checksum_of_32_mib_both_ways(port: socket.socket) -> None:
    data = os.urandom(1 << 20) * 32
    result, out, _ = sh(port, "cat", stdin=data)
    assert result.code == 0
    assert hashlib.sha256(out).digest() == hashlib.sha256(data).digest()


def test_endless_output_into_a_closed_pipe(port: socket.socket) -> None:
    with pipe() as (sink, stdout):
        close(sink)
        result = run_job(
            port,
            request("/bin/sh", "-c", "exec yes"),
            Stdio(stdout=stdout),
            machine_gone=None,
            report=lambda _: None,
        )
    assert result.code == 141


def test_endless_input_to_a_job_that_reads_little(port: socket.socket) -> None:
    with open("/dev/zero", "rb") as zeros, TemporaryFile() as out:
        result = run_job(
            port,
            request("/bin/sh", "-c", "head -c 5 | wc -c"),
            Stdio(stdin=zeros.fileno(), stdout=out.fileno()),
            machine_gone=None,
            report=lambda _: None,
        )
        out.seek(0)
        assert (result.code, out.read().strip()) == (0, b"5")


def test_time_limit_of_a_job_that_ignores_term(port: socket.socket, tmp_path: Path) -> None:
    work, given = folders(tmp_path)
    result, _, _ = sh(
        port,
        f"trap '' TERM; echo kept > {given.guest_path}/file; while :; do sleep 0.05; done",
        time_limit_s=0.4,
        grace_s=0.2,
        workdir=given,
    )
    assert (result.code, result.warnings) == (124, ())
    assert (work / "file").read_text() == "kept\n"


def folders(tmp_path: Path, **fields: Any) -> tuple[Path, Any]:
    """Make a directory here, and one that stands for the machine's."""
    work = tmp_path / "here"
    work.mkdir(exist_ok=True)
    there = tmp_path / "machine/work"
    return work, workdir(work, guest_path=str(there), **fields)


def test_work_directory_goes_in_and_comes_back(port: socket.socket, tmp_path: Path) -> None:
    work, given = folders(tmp_path, sync_delete=True)
    (work / "dir").mkdir()
    (work / "same").write_bytes(os.urandom(300_000))
    (work / "dir/changed").write_text("old")
    (work / "gone").write_text("x")
    (work / "link").symlink_to("same")
    os.mkfifo(work / "fifo")
    inode = (work / "same").stat().st_ino

    script = """
        set -e
        cmp same link
        test -p fifo
        echo new > dir/changed
        chmod 711 dir
        rm gone
        mkdir -p a/b; head -c 200000 /dev/zero > a/b/zeros; chmod 600 a/b/zeros
        ln -s ../a/b dir/inside; ln -s /etc/passwd outside
        mkfifo new-fifo
        printf x > "$(printf 'odd\\nname')"
    """
    result, _, err = sh(port, f"cd {given.guest_path}; {script}", workdir=given)

    assert (result.code, err) == (0, b"")
    assert (work / "same").stat().st_ino == inode
    assert (work / "dir/changed").read_text() == "new\n"
    assert (work / "dir").stat().st_mode & 0o777 == 0o711
    assert not (work / "gone").exists()
    assert (work / "a/b/zeros").read_bytes() == bytes(200_000)
    assert (work / "a/b/zeros").stat().st_mode & 0o777 == 0o600
    assert os.readlink(work / "dir/inside") == "../a/b"
    assert (work / "odd\nname").read_text() == "x"
    assert not os.path.lexists(work / "outside")
    assert result.warnings == (
        "refused from the machine: new-fifo (a FIFO), outside (a link to an absolute path)",
    )


def test_directory_replaced_by_a_file_with_deletions(port: socket.socket, tmp_path: Path) -> None:
    work, given = folders(tmp_path, sync_delete=True)
    (work / "dir").mkdir()
    (work / "dir/in").write_text("x")
    result, _, _ = sh(port, f"cd {given.guest_path}; rm -r dir; echo file > dir", workdir=given)
    assert (result.code, result.warnings) == (0, ())
    assert (work / "dir").read_text() == "file\n"


def test_many_files(port: socket.socket, tmp_path: Path) -> None:
    work, given = folders(tmp_path)
    for number in range(200):
        (work / f"f{number}").write_bytes(b"%d" % number)
    script = f"cd {given.guest_path}; for f in f*; do echo >> $f; done"
    assert sh(port, script, workdir=given)[0].code == 0
    assert (work / "f199").read_bytes() == b"199\n"


def test_work_directory_that_cannot_be_unpacked(port: socket.socket, tmp_path: Path) -> None:
    work, _ = folders(tmp_path)
    (work / "big").write_bytes(bytes(5 << 20))
    given = workdir(work, guest_path="/proc/nonesuch/work")
    result, _, _ = sh(port, "true", workdir=given)
    assert (result.code, result.who, result.phase) == (125, Who.MAYFLY, "copy-in")
    assert "nonesuch" in result.reason


@contextmanager
def terminal() -> Iterator[tuple[int, int]]:
    master, slave = pty.openpty()
    try:
        yield master, slave
    finally:
        close(slave)
        close(master)


def test_terminal_echoes_interrupts_and_is_restored(port: socket.socket) -> None:
    script = "stty size; trap 'echo caught; exit 5' INT; echo ready; read line; sleep 60"
    with terminal() as (master, slave):
        before = termios.tcgetattr(slave)
        seen = bytearray()

        def type_keys() -> None:
            while b"ready\r\n" not in seen:
                seen.extend(os.read(master, 1000))
            os.write(master, b"\x03")
            while b"caught\r\n" not in seen:
                seen.extend(os.read(master, 1000))

        with at_the_same_time(type_keys):
            result = run_job(
                port,
                replace(request("/bin/sh", "-c", script), tty=None),
                Stdio(stdin=slave, stdout=slave, stderr=slave),
                machine_gone=None,
                report=lambda _: None,
            )
        assert (result.code, termios.tcgetattr(slave)) == (5, before)
        assert seen.startswith(b"24 80\r\n")
