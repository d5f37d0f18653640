"""Children of minutes: heard line by line, and ended in every case."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mayfly.errors import Failed, Quota
from mayfly.images.follow import follow


def shell(script: str) -> list[str]:
    return ["sh", "-c", script]


def test_every_line_of_both_outputs_is_heard() -> None:
    lines: list[str] = []
    follow(
        shell("echo one; echo two >&2; printf '1%%\\r2%%\\r'"), timeout_s=10, on_line=lines.append
    )
    assert lines == ["one", "two", "1%", "2%"]


def test_descriptors_and_environment_are_handed_on(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w+b") as file:
        follow(
            shell(f'printf "$WORD" > /proc/self/fd/{file.fileno()}'),
            timeout_s=10,
            env={"WORD": "hello", "PATH": os.environ["PATH"]},
            pass_fds=(file.fileno(),),
        )
    assert (tmp_path / "file").read_text() == "hello"


def test_a_bad_end_names_the_program_and_what_it_said_last() -> None:
    said = ("I: begin", "E: no such package", "E: mmdebstrap failed to run")
    script = "".join(f"echo '{line}'; " for line in said) + "exit 9"
    with pytest.raises(Failed, match="sh failed: E: no such package"):
        follow(shell(script), timeout_s=10)


def test_a_bad_end_without_a_word() -> None:
    with pytest.raises(Failed, match="exit status 9"):
        follow(shell("exit 9"), timeout_s=10)


def test_a_missing_program_is_named() -> None:
    with pytest.raises(Failed, match="no-such-program"):
        follow(["no-such-program"], timeout_s=10)


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        ("tar: x: Cannot write: No space left on device", "TMPDIR"),
        ("E: You don't have enough free space in /var/cache/apt/archives/.", "TMPDIR"),
        ("__populate_fs: Could not allocate block in ext2 filesystem while writing", "--size"),
    ],
)
def test_no_space_is_a_quota(said: str, hint: str) -> None:
    with pytest.raises(Quota) as caught:
        follow(["sh", "-c", 'echo "$0"; echo more; exit 1', said], timeout_s=10)
    assert hint in caught.value.hint


def test_a_child_over_its_time_is_ended_with_its_children() -> None:
    pipe_end, other_end = os.pipe()
    with pytest.raises(Failed, match="in time"):
        follow(shell("sleep 60 & sleep 60"), timeout_s=0.2, pass_fds=(other_end,))
    os.close(other_end)
    # The end of file comes when the last process that had the other end is gone.
    assert os.read(pipe_end, 1) == b""
    os.close(pipe_end)


def test_limits_hold(tmp_path: Path) -> None:
    target = tmp_path / "big"
    with pytest.raises(Failed):
        follow(
            ["dd", "if=/dev/zero", f"of={target}", "bs=64k", "count=4"],
            timeout_s=10,
            guard=("prlimit", "--fsize=65536", "--core=0"),
        )
    assert target.stat().st_size == 65536


def test_the_child_ends_when_we_are_killed() -> None:
    script = (
        "import sys; from mayfly.images.follow import follow;"
        "follow(['sh', '-c', 'echo up; exec sleep 60'], timeout_s=60,"
        " on_line=lambda line: print(line, flush=True), pass_fds=(int(sys.argv[1]),))"
    )
    pipe_end, other_end = os.pipe()
    argv = [sys.executable, "-c", script, str(other_end)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, pass_fds=(other_end,)) as process:
        os.close(other_end)
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        watchdog = threading.Timer(30, os.close, (pipe_end,))
        watchdog.start()
        process.kill()
        process.wait()
        assert os.read(pipe_end, 1) == b""
        watchdog.cancel()
    os.close(pipe_end)
