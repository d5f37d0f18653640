"""Machines start a few at a time, and nobody waits for ever."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mayfly.engine import turns
from mayfly.engine.turns import starts_at_once, turn

HOLD = """
import fcntl, os, sys
held = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.flock(held, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


def is_free(file: Path) -> bool:
    with open(file, "rb") as opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def test_there_are_more_turns_than_processors() -> None:
    assert starts_at_once() > len(os.sched_getaffinity(0))


def test_as_many_as_there_are_places_go_on_at_once(tmp_path: Path) -> None:
    with turn(tmp_path, places=2), turn(tmp_path, places=2):
        told: list[str] = []
        with turn(tmp_path, places=2, patience_s=0.05, waiting=lambda: told.append("waiting")):
            assert told == []  # it did not wait for long enough to be told
    assert sorted(file.name for file in tmp_path.iterdir()) == ["0", "1", "line"]


def test_a_turn_that_is_given_back_is_another_ones(tmp_path: Path) -> None:
    order: list[str] = []
    waits = threading.Event()

    def second() -> None:
        with turn(tmp_path, places=1, waiting=waits.set):
            order.append("second")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(turns, "TELL_S", 0.0)
        with turn(tmp_path, places=1):
            thread = threading.Thread(target=second)
            thread.start()
            assert waits.wait(20)
            order.append("first")
        thread.join(20)
    assert order == ["first", "second"]


def test_a_turn_ends_with_its_process(tmp_path: Path) -> None:
    words = [sys.executable, "-c", HOLD, str(tmp_path / "0")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with turn(tmp_path, places=1, patience_s=0.0):
            assert not is_free(tmp_path / "0")
        holder.kill()
    with turn(tmp_path, places=1, patience_s=20):
        assert not is_free(tmp_path / "0")
    assert is_free(tmp_path / "0")


def test_a_child_that_was_forked_meanwhile_does_not_keep_it(tmp_path: Path) -> None:
    read, write = os.pipe()
    with turn(tmp_path, places=1):
        pid = os.fork()
        if pid == 0:
            os.close(write)
            os.read(read, 1)
            os._exit(0)
    try:
        assert is_free(tmp_path / "0")
        assert is_free(tmp_path / "line")
    finally:
        os.close(write)
        os.waitpid(pid, 0)
        os.close(read)


def test_where_no_turns_can_be_kept_there_are_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with turn(tmp_path / "file", places=1):
        assert (tmp_path / "file").is_file()
