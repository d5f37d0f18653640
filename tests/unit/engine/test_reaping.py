"""How what a dead process left is found and removed, and nothing else."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mayfly.engine import records
from mayfly.engine.records import (
    FRESH_S,
    RECORD,
    Place,
    list_records,
    new_place,
    open_place,
    reap,
)
from tests.unit.engine.machines import (
    NOW,
    UNREADABLE,
    end,
    in_child,
    kept,
    left_behind,
    of_process,
    sleeping,
)


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process that stands for QEMU."""
    with sleeping() as process:
        yield process


def test_what_a_killed_process_left_is_removed(
    tmp_path: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    def hold() -> str:
        name, place = new_place(tmp_path)
        place.write(of_process(sleeper))
        return name

    with in_child(hold) as (holder, name):
        assert reap(tmp_path, NOW + 10**6) == []
        assert (tmp_path / name / RECORD).exists()
        end(holder)
        assert reap(tmp_path, NOW) == [name]
    assert not list(tmp_path.iterdir())
    assert sleeper.wait(20) == -signal.SIGKILL


def test_a_kept_machine_stays_until_it_expires(
    tmp_path: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    name = left_behind(tmp_path, kept(sleeper, until=NOW))
    assert reap(tmp_path, NOW - 1) == []
    assert sleeper.poll() is None
    open_place(tmp_path, name).release()
    assert reap(tmp_path, NOW) == [name]
    assert sleeper.wait(20) == -signal.SIGKILL


def test_a_kept_machine_without_an_end_stays(
    tmp_path: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    left_behind(tmp_path, kept(sleeper))
    assert reap(tmp_path, NOW * 2) == []
    assert sleeper.poll() is None


def test_a_kept_machine_whose_qemu_is_gone_is_debris(
    tmp_path: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    record = kept(sleeper)
    name = left_behind(tmp_path, replace(record, started=record.started - 1))
    assert reap(tmp_path, NOW) == [name]
    assert sleeper.poll() is None, "the later process of that pid lives"


@pytest.mark.parametrize("how", [*UNREADABLE, "missing"])
def test_an_unreadable_machine_is_removed(tmp_path: Path, how: str) -> None:
    name = left_behind(tmp_path, None)
    if how != "missing":
        (tmp_path / name / RECORD).write_bytes(UNREADABLE[how])
    assert reap(tmp_path, NOW) == [name]
    assert not list(tmp_path.iterdir())


def test_what_is_not_ours_stays(tmp_path: Path) -> None:
    assert reap(tmp_path / "none", NOW) == []
    for name in ("lost+found", "UPPERCAS", "abcdefghi"):
        (tmp_path / name).mkdir()
    (tmp_path / "abcdefgh").write_text("a file")
    assert reap(tmp_path, NOW) == []
    assert len(list(tmp_path.iterdir())) == 4


def unnamed(machines: Path, name: str) -> tuple[Path, float]:
    """Leave a directory that has no machine's name; gives it and when it was made."""
    debris = machines / name
    debris.mkdir()
    (debris / "disk").write_bytes(b"x")
    return debris, debris.stat().st_mtime


def test_a_place_that_is_just_being_made_stays(tmp_path: Path) -> None:
    # For a moment it is there without its lock.
    debris, made = unnamed(tmp_path, ".new-abcdefgh")
    assert reap(tmp_path, made + FRESH_S - 1) == []
    assert debris.exists()
    reap(tmp_path, made + FRESH_S + 1)
    assert not debris.exists()


def test_a_place_that_was_half_removed_goes_at_once(tmp_path: Path) -> None:
    debris, made = unnamed(tmp_path, ".gone-abcdefgh-17")
    assert reap(tmp_path, made) == []
    assert not debris.exists()


@pytest.mark.parametrize("name", [".new-abcdefgh", ".gone-abcdefgh-17"])
def test_what_somebody_is_still_at_stays(tmp_path: Path, name: str) -> None:
    debris, made = unnamed(tmp_path, name)
    lock = records._lock(debris)
    assert lock is not None
    reap(tmp_path, made + FRESH_S + 1)
    assert debris.exists()
    Place(debris, lock).release()
    reap(tmp_path, made + FRESH_S + 1)
    assert not debris.exists()


def test_what_vanishes_meanwhile_does_no_harm(tmp_path: Path) -> None:
    # As a directory does that another process renames or removes between listing and looking.
    (tmp_path / ".new-abcdefgh").symlink_to(tmp_path / "nowhere")
    (tmp_path / "abcdefgh").symlink_to(tmp_path / "nowhere")
    assert reap(tmp_path, time.time() + 10 * FRESH_S) == []


def test_what_its_owner_removes_just_now_is_not_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = fcntl.flock

    def too_late(fd: int, how: int) -> None:
        os.rmdir(f"/proc/self/fd/{fd}/../{name}")
        real(fd, how)

    name = left_behind(tmp_path, None)
    monkeypatch.setattr(fcntl, "flock", too_late)
    assert reap(tmp_path, NOW) == []


def test_a_kept_machine_is_not_even_locked_meanwhile(
    tmp_path: Path, sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    left_behind(tmp_path, kept(sleeper, until=NOW))
    monkeypatch.setattr(fcntl, "flock", lambda *_: pytest.fail("somebody may want to enter it"))
    assert reap(tmp_path, NOW - 1) == []


def test_a_machine_that_cannot_be_ended_keeps_its_record(
    tmp_path: Path, sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = left_behind(tmp_path, of_process(sleeper))
    monkeypatch.setattr(records, "kill_qemu", lambda record: None)
    assert reap(tmp_path, NOW) == []
    assert [record.id for record in list_records(tmp_path)] == [name]
