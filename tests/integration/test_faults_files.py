"""Work directories full of odd things, and jobs that leave tricks in them."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Cli
from tests.integration.faults import assert_nothing_left, assert_sentence, run_with, started
from tests.integration.waiting import wait_until

pytestmark = pytest.mark.integration

Mount = Callable[[Path, str], None]


@pytest.fixture
def work(tmp_path: Path) -> Path:
    directory = tmp_path / "work"
    directory.mkdir()
    return directory


def snapshot(top: Path) -> dict[str, tuple[int, int, int]]:
    """Give type, size and change time of everything beneath a directory."""
    found = {}
    for folder, names, files in os.walk(top):
        for name in (*names, *files):
            path = os.path.join(folder, name)
            look = os.lstat(path)
            found[path] = (look.st_mode, look.st_size, look.st_ctime_ns)
    return found


# --- on the way in -------------------------------------------------------------------------------


def test_odd_things_in_the_work_directory(cli: Cli, work: Path) -> None:
    odd = [b"new\nline", b"not-utf8-\xff\xfe", b"-rf", b"x" * 255, b" ", b"\x1b[31mred"]
    for name in odd:
        (work / os.fsdecode(name)).write_bytes(name)
    os.mkfifo(work / "fifo")
    os.mknod(work / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(work / "disk", stat.S_IFBLK | 0o600, os.makedev(254, 0))
    (work / "out").symlink_to("/etc/passwd")
    (work / "up").symlink_to("../..")
    (work / "dangling").symlink_to("nowhere")
    (work / "loop").symlink_to("loop")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(work / "socket"))
        before = snapshot(work)
        script = "find . -mindepth 1 -printf '%y %P\\0' | LC_ALL=C sort -z; echo done > new"
        ended = run_with(cli, "--", "sh", "-c", script, cwd=work)
    assert ended.code == 0, ended
    seen = set(ended.output.split(b"\0")[:-1])
    assert seen >= {b"f " + name for name in odd}
    assert seen >= {b"l out", b"l up", b"l dangling", b"l loop"}
    assert not seen & {b"s socket", b"c null", b"b disk"}
    assert_sentence(ended.said, "not copied into the machine", "socket")
    assert "\x1b" not in ended.said
    after = snapshot(work)
    assert (work / "new").read_text() == "done\n"
    del after[str(work / "new")]
    assert after == before
    assert_nothing_left(cli.home)


@pytest.mark.parametrize(("limit", "words"), [("1M", "the limit is 1.0 MiB"), ("3M", "")])
def test_a_work_directory_larger_than_the_limit(
    cli: Cli, work: Path, limit: str, words: str
) -> None:
    (work / "big").write_bytes(bytes(2 << 20))
    ended = run_with(cli, "--workdir-limit", limit, "--", "true", cwd=work)
    if words:
        ended.assert_failed(f"the work directory {work} holds", words, "--share", "--workdir-limit")
    else:
        assert ended.code == 0
    assert_nothing_left(cli.home)


@contextlib.contextmanager
def restless(work: Path) -> Iterator[None]:
    """Change a directory all the time."""
    over = threading.Event()

    def change() -> None:
        number = 0
        while not over.is_set():
            number += 1
            path = work / f"restless{number % 7}"
            path.write_bytes(b"x" * (number % 5 * 40_000))
            (work / f"restless{(number + 3) % 7}").unlink(missing_ok=True)
            folder = work / "folder"
            # The machine's version of it may come in between.
            with contextlib.suppress(OSError):
                if number % 2:
                    folder.mkdir()
                    (folder / "inside").write_text("inside")
                else:
                    (folder / "inside").unlink()
                    folder.rmdir()
            over.wait(0.001)

    thread = threading.Thread(target=change)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_a_directory_that_changes_while_it_is_copied(cli: Cli, work: Path) -> None:
    for number in range(300):
        (work / f"still{number}").write_bytes(b"still" * number)
    with restless(work):
        for _ in range(2):
            script = "cat still* | wc -c; date +%N > new; touch folder; echo x > restless1"
            ended = run_with(cli, "--", "sh", "-c", script, cwd=work)
            assert ended.code == 0, ended
            assert ended.output.split() == [str(5 * sum(range(300))).encode()]
            assert "Traceback" not in ended.said
    assert (work / "new").exists()
    assert (work / "still299").read_bytes() == b"still" * 299
    assert not [path for path in work.iterdir() if path.name.startswith(".mayfly-")]
    assert_nothing_left(cli.home)


def test_the_work_directory_is_removed_during_the_job(cli: Cli, work: Path) -> None:
    (work / "file").write_text("x")
    script = "echo ready; read x; echo y > new"
    with started(cli, "--", "sh", "-c", script, cwd=work) as run:
        (work / "file").unlink()
        work.rmdir()
        ended = run.end(b"\n")
    ended.assert_failed("some of what came back could not be written here: new")
    assert not work.exists()
    assert_nothing_left(cli.home)


@pytest.mark.slow
def test_fifty_thousand_files(cli: Cli, work: Path) -> None:
    for number in range(50_000):
        file = work / f"folder{number // 500}/file{number}"
        file.parent.mkdir(exist_ok=True)
        file.write_text(str(number))
    began = time.monotonic()
    script = "find . -type f | wc -l; echo changed > folder7/file3500; touch folder9/new"
    ended = run_with(cli, "--", "sh", "-c", script, cwd=work, timeout_s=280)
    assert (ended.code, ended.output) == (0, b"50000\n"), ended
    assert (work / "folder7/file3500").read_text() == "changed\n"
    assert (work / "folder9/new").exists()
    assert time.monotonic() - began < 120
    assert_nothing_left(cli.home)


# --- on the way back -----------------------------------------------------------------------------

TRICKS = r"""
cp /bin/true setuid; chmod 6755 setuid
mknod null c 1 3; mknod disk b 254 0; mkfifo fifo
ln -s /etc/passwd absolute; ln -s ../../.. climb; ln -s a/../../.. wind
rm -r folder; ln -s ../victim folder
mkdir other; mv other aside; ln -s /VICTIM other
echo hacked > replaced.new; rm replaced; ln -s ../victim/file replaced
truncate -s 1T sparse
mkdir -p "$(printf 'd/%.0s' $(seq 900))"; echo deep > "$(printf 'd/%.0s' $(seq 900))file"
printf 'x' > "$(printf 'esc\033[31m\nape')"
ln setuid hard; chmod 000 replaced.new
echo fine > fine
"""


def test_tricks_of_a_hostile_job(cli: Cli, work: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "file").write_text("untouched")
    (work / "folder").mkdir()
    (work / "folder/file").write_text("sent")
    (work / "replaced").write_text("sent")
    before = snapshot(victim)
    script = TRICKS.replace("/VICTIM", str(victim))
    ended = run_with(cli, "--root", "--", "sh", "-c", script, cwd=work, timeout_s=60)
    assert ended.code == 125, "the sparse file is over the limit"
    assert "Traceback" not in ended.said
    assert "\x1b" not in ended.said
    assert snapshot(victim) == before
    assert (work / "fine").read_text() == "fine\n"
    assert stat.S_IMODE((work / "setuid").stat().st_mode) == 0o755
    for path in work.rglob("*"):
        look = path.lstat()
        assert not look.st_mode & 0o6000, path
        assert stat.S_ISREG(look.st_mode) or stat.S_ISDIR(look.st_mode) or path.is_symlink(), path
        assert path.resolve().is_relative_to(work), path
    assert_sentence(ended.said, "refused from the machine", "not copied back, over the limit")
    assert not (work / "sparse").exists()
    assert_nothing_left(cli.home)


def test_what_comes_back_has_a_limit(cli: Cli, work: Path) -> None:
    script = "head -c 3M /dev/zero > big; echo small > small"
    ended = run_with(cli, "--workdir-limit", "1M", "--", "sh", "-c", script, cwd=work)
    ended.assert_failed("not copied back, over the limit (--workdir-limit): big")
    assert ended.status["phase"] == "copy-out"
    assert [path.name for path in work.iterdir()] == ["small"]


def test_no_room_here_for_what_comes_back(cli: Cli, tmp_path: Path, small_disk: Mount) -> None:
    work = tmp_path / "small"
    small_disk(work, "size=1m")
    script = "head -c 3M /dev/urandom > big; echo small > small"
    ended = run_with(cli, "--", "sh", "-c", script, cwd=work)
    ended.assert_failed(
        "some of what came back could not be written here: big (No space left on device)"
    )
    assert ended.status["phase"] == "copy-out"
    assert [path.name for path in work.iterdir()] == ["small"]
    assert_nothing_left(cli.home)


def test_a_machine_that_dies_in_the_copy_back(cli: Cli, work: Path) -> None:
    script = "echo ready; read x; head -c 80M /dev/urandom > big; echo small > asmall"
    with started(cli, "--", "sh", "-c", script, cwd=work) as run:
        qemu = run.qemu()
        assert run.process.stdin is not None
        run.process.stdin.write(b"\n")
        run.process.stdin.flush()
        wait_until(lambda: any(work.iterdir()), "something came back", limit_s=60)
        os.kill(qemu, 9)
        ended = run.end()
    ended.assert_failed("the machine ended before", "its QEMU ended")
    assert_sentence(ended.said, "the copy back of the work directory is not complete")
    assert not (work / "big").exists()
    assert_nothing_left(cli.home)
