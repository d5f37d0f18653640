"""A template's memory: sealed for good, saved and read back, held by a process of its own."""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mayfly.engine import memory
from mayfly.engine.linux import start_time
from mayfly.engine.memory import Holder
from mayfly.errors import Failed, Quota

PAGE = mmap.PAGESIZE
SIZE = 16 * PAGE


@contextlib.contextmanager
def filled(*pieces: tuple[int, bytes], size: int = SIZE, sealed: bool = True) -> Iterator[int]:
    fd = memory.new_memory("test", size)
    for at, data in pieces:
        os.pwrite(fd, data, at)
    if sealed:
        memory.seal(fd)
    yield fd
    os.close(fd)


def content(fd: int) -> bytes:
    return os.pread(fd, os.fstat(fd).st_size + 1, 0)


def open_descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


# --- sealing -------------------------------------------------------------------------------------


def test_new_memory_is_empty_and_not_sealed() -> None:
    with filled(size=3 * PAGE, sealed=False) as fd:
        assert content(fd) == bytes(3 * PAGE)
        assert not memory.is_sealed(fd)
        assert not os.get_inheritable(fd)
        assert os.readlink(f"/proc/self/fd/{fd}").startswith("/memfd:mayfly-test")


WAYS_TO_WRITE: dict[str, Callable[[int], object]] = {
    "write": lambda fd: os.pwrite(fd, b"x", 0),
    "append": lambda fd: os.pwrite(fd, b"x", SIZE),
    "grow": lambda fd: os.ftruncate(fd, SIZE + 1),
    "shrink": lambda fd: os.ftruncate(fd, SIZE - 1),
    "allocate": lambda fd: os.posix_fallocate(fd, SIZE, PAGE),
    "map": lambda fd: mmap.mmap(fd, SIZE, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE),
    "reopen": lambda fd: os.pwrite(os.open(f"/proc/self/fd/{fd}", os.O_RDWR), b"x", 0),
    "truncate": lambda fd: os.close(os.open(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_TRUNC)),
    "seal": memory.seal,
}


@pytest.mark.parametrize("way", sorted(WAYS_TO_WRITE))
def test_nothing_can_be_written_to_what_is_sealed(way: str) -> None:
    with filled((0, b"abc"), (SIZE - 3, b"xyz")) as fd:
        before = content(fd)
        assert memory.is_sealed(fd)
        with pytest.raises(OSError, match="not permitted"):
            WAYS_TO_WRITE[way](fd)
        assert content(fd) == before


def test_a_private_mapping_of_sealed_memory_is_written_to_alone() -> None:
    with filled((0, b"abc")) as fd:
        read_write = mmap.PROT_READ | mmap.PROT_WRITE
        with mmap.mmap(fd, SIZE, mmap.MAP_PRIVATE, read_write) as view:
            view[:3] = b"xyz"
            assert content(fd)[:3] == b"abc"


def test_memory_that_somebody_can_write_to_is_not_sealed() -> None:
    with filled(sealed=False) as fd:
        with mmap.mmap(fd, SIZE), pytest.raises(OSError, match="busy"):
            memory.seal(fd)
        assert not memory.is_sealed(fd)


# --- saving and reading back ---------------------------------------------------------------------


@settings(max_examples=40)
@given(
    size=st.integers(1, 40 * PAGE),
    pieces=st.lists(
        st.tuples(st.integers(0, 39), st.binary(min_size=1, max_size=PAGE)), max_size=6
    ),
)
def test_what_was_saved_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, size: int, pieces: list[tuple[int, bytes]]
) -> None:
    path = tmp_path_factory.mktemp("memory") / "saved"
    inside = [(at * PAGE, data) for at, data in pieces if at * PAGE + len(data) <= size]
    with filled(*inside, size=size) as fd:
        memory.save(fd, path)
        assert path.read_bytes() == content(fd)
        loaded = memory.load("again", path, size)
        assert content(loaded) == content(fd)
    assert memory.is_sealed(loaded)
    os.close(loaded)


def test_holes_stay_holes(tmp_path: Path) -> None:
    size = 64 << 20
    with filled((0, b"first"), (size - 4, b"last"), size=size) as fd:
        memory.save(fd, tmp_path / "saved")
    assert (tmp_path / "saved").stat().st_blocks * 512 <= 1 << 20
    loaded = memory.load("again", tmp_path / "saved", size)
    assert os.fstat(loaded).st_blocks * 512 <= 1 << 20
    assert os.pread(loaded, 4, size - 4) == b"last"
    os.close(loaded)


def test_nobody_may_write_to_what_is_saved_or_save_over_it(tmp_path: Path) -> None:
    with filled((0, b"abc")) as fd:
        memory.save(fd, tmp_path / "saved")
        assert (tmp_path / "saved").stat().st_mode & 0o777 == 0o400
        with pytest.raises(FileExistsError):
            memory.save(fd, tmp_path / "saved")


@pytest.mark.parametrize("size", [0, SIZE - 1, SIZE + 1])
def test_a_file_of_the_wrong_size_is_refused(tmp_path: Path, size: int) -> None:
    (tmp_path / "saved").write_bytes(bytes(size))
    before = open_descriptors()
    with pytest.raises(Failed, match=f"{size} bytes, not {SIZE}"):
        memory.load("x", tmp_path / "saved", SIZE)
    assert open_descriptors() == before


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    before = open_descriptors()
    with pytest.raises(Failed, match=f"{tmp_path / 'saved'}"):
        memory.load("x", tmp_path / "saved", SIZE)
    assert open_descriptors() == before


def test_a_file_that_shrinks_while_it_is_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "saved").write_bytes(b"x" * SIZE)
    real = os.sendfile

    def shrinking(target: int, source: int, start: int, count: int) -> int:
        os.truncate(tmp_path / "saved", PAGE)
        return real(target, source, start, count)

    before = open_descriptors()
    monkeypatch.setattr(os, "sendfile", shrinking)
    with pytest.raises(Failed, match="cut short"):
        memory.load("x", tmp_path / "saved", SIZE)
    assert open_descriptors() == before


@pytest.mark.parametrize("call", ["sendfile", "lseek"])
def test_a_disk_that_fails_gives_no_memory_of_zeros(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    (tmp_path / "saved").write_bytes(b"x" * SIZE)

    def failing(*_: object) -> int:
        raise OSError(5, "Input/output error")

    before = open_descriptors()
    monkeypatch.setattr(os, call, failing)
    with pytest.raises(Quota, match="Input/output error"):
        memory.load("x", tmp_path / "saved", SIZE)
    assert open_descriptors() == before


# --- holders -------------------------------------------------------------------------------------


@contextlib.contextmanager
def held(directory: Path, fd: int, hours: int = 3) -> Iterator[Holder]:
    """Have a process hold memory; gives it as it is written down."""
    memory.hold(directory, fd, title="debian-12", hours=hours)
    holder = memory.read_holder(directory)
    assert holder is not None
    try:
        yield holder
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(holder.pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(holder.pid, 0)


def test_a_holder_keeps_the_memory_when_its_maker_has_let_go(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        with filled((7, b"abc")) as fd:
            holder = stack.enter_context(held(tmp_path, fd))
        again = memory.from_holder(holder, SIZE)
        assert again is not None
        assert content(again)[7:10] == b"abc"
        os.close(again)


def open_in(proc: Path) -> set[int]:
    return set(map(int, os.listdir(proc / "fd")))


def test_a_holder_does_nothing_else_and_says_what_it_is(tmp_path: Path) -> None:
    with filled() as fd, held(tmp_path, fd, hours=2) as holder:
        proc = Path(f"/proc/{holder.pid}")
        while not (words := (proc / "cmdline").read_bytes()):
            pass  # For a moment during exec there is none.
        command = words.split(b"\0")
        assert command[:2] == [b"mayfly-template debian-12", b"7200"]
        assert os.readlink(proc / "cwd") == "/"
        assert os.getsid(holder.pid) == holder.pid
        # While it starts it reads a file of its own now and then.
        deadline = time.monotonic() + 20
        while open_in(proc) != {0, 1, 2, holder.fd}:
            assert time.monotonic() < deadline, open_in(proc)
        assert abs(holder.until - time.time() - 7200) < 60


def test_a_dead_holder_counts_as_none(tmp_path: Path) -> None:
    with filled() as fd, held(tmp_path, fd) as holder:
        memory.end_holder(tmp_path)
        os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)
        assert memory.read_holder(tmp_path) is None
        os.waitpid(holder.pid, 0)
        assert memory.read_holder(tmp_path) is None
        assert memory.from_holder(holder, SIZE) is None
        memory.end_holder(tmp_path)  # Nothing to end is no error.


def test_a_new_holder_takes_the_place_of_the_old(tmp_path: Path) -> None:
    with filled() as fd, held(tmp_path, fd) as old, held(tmp_path, fd) as new:
        assert os.waitpid(old.pid, 0)[1] == signal.SIGKILL
        assert memory.read_holder(tmp_path) == new


def test_a_holder_that_cannot_be_written_down_does_not_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted: list[Holder] = []

    def full(_: Path, holder: Holder) -> None:
        wanted.append(holder)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(memory, "write_holder", full)
    with filled() as fd, pytest.raises(OSError, match="No space"):
        memory.hold(tmp_path, fd, title="x", hours=1)
    assert os.waitpid(wanted[0].pid, 0)[1] != 0


def ourselves(fd: int) -> Holder:
    started = start_time(os.getpid())
    assert started is not None
    return Holder(pid=os.getpid(), started=started, fd=fd, until=time.time() + 3600)


def test_a_later_process_of_the_same_pid_is_no_holder(tmp_path: Path) -> None:
    with filled() as fd:
        holder = ourselves(fd)
        memory.write_holder(tmp_path, holder)
        assert memory.read_holder(tmp_path) == holder
        memory.write_holder(tmp_path, replace(holder, started=1))
        assert memory.read_holder(tmp_path) is None
        memory.end_holder(tmp_path)  # Or this test would end here.


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "7", '"x"', "{}", '{"pid": 1}'])
def test_what_is_no_holder_counts_as_none(tmp_path: Path, text: str) -> None:
    assert memory.read_holder(tmp_path) is None
    (tmp_path / memory.HOLDER).write_text(text)
    assert memory.read_holder(tmp_path) is None


def test_only_sealed_memory_of_the_right_size_is_taken() -> None:
    with filled() as good, filled(sealed=False) as unsealed:
        before = open_descriptors()
        assert memory.from_holder(ourselves(good), SIZE + 1) is None
        assert memory.from_holder(ourselves(unsealed), SIZE) is None
        assert memory.from_holder(ourselves(10_000), SIZE) is None
        assert open_descriptors() == before


@pytest.mark.parametrize("kind", ["file", "pipe", "directory"])
def test_what_is_no_memory_is_not_taken(tmp_path: Path, kind: str) -> None:
    if kind == "pipe":
        fds = os.pipe()
    elif kind == "directory":
        fds = (os.open(tmp_path, os.O_RDONLY), os.dup(0))
    else:
        (tmp_path / "file").write_bytes(bytes(SIZE))
        fds = (os.open(tmp_path / "file", os.O_RDWR), os.dup(0))
    before = open_descriptors()
    size = SIZE if kind == "file" else os.fstat(fds[0]).st_size
    assert memory.from_holder(ourselves(fds[0]), size) is None
    assert open_descriptors() == before
    for fd in fds:
        os.close(fd)
