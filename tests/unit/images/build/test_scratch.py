"""The room of a build, and that nothing of it is left."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest

from mayfly.errors import Missing, Quota
from mayfly.images.build.scratch import scratch, sweep
from mayfly.images.room import check_room


def test_nothing_is_left(tmp_path: Path) -> None:
    with scratch(tmp_path) as place:
        (place.tree / "file").write_text("x")
        (place.private / "file").write_text("x")
        assert place.private.stat().st_mode & 0o777 == 0o700
        assert place.top.stat().st_mode & 0o777 == 0o711
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_after_a_failure(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError), scratch(tmp_path) as place:
        place.tree.write_text("x")
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_build_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "mayfly-build-old" / "tree").mkdir(parents=True)
    (tmp_path / "mayfly-build-old" / "tree" / "file").write_text("x")
    (tmp_path / "other").mkdir()
    (tmp_path / "mayfly-build-link").symlink_to(tmp_path / "other")
    with scratch(tmp_path) as mine:
        sweep(tmp_path)
        assert mine.tree.is_dir()
        left = {path.name for path in tmp_path.iterdir()}
    assert left == {mine.top.name, "other", "mayfly-build-link"}


def test_room_is_kept_while_a_child_of_a_killed_build_still_works_in_it(tmp_path: Path) -> None:
    with scratch(tmp_path) as place:
        child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=(place.lock,))
        os.close(place.lock)  # as if this process had died
        sweep(tmp_path)
        assert place.tree.is_dir()
        child.communicate()
        sweep(tmp_path)
        assert not place.top.exists()
        # so that the end of the context finds what it expects
        place.tree.mkdir(parents=True)
        assert os.open("/dev/null", os.O_RDONLY) == place.lock


def test_too_little_room_is_a_quota_that_says_how_much(tmp_path: Path) -> None:
    check_room(tmp_path, 1)
    with pytest.raises(Quota, match="needed") as caught:
        check_room(tmp_path, 1 << 60)
    assert "TMPDIR" in caught.value.hint


def test_a_sweep_before_the_lock_is_taken_costs_only_a_second_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Path] = []
    real = tempfile.mkdtemp

    def swept(**where: Any) -> str:
        made.append(Path(real(**where)))
        if len(made) == 1:
            sweep(tmp_path)
            assert not made[0].exists()
        return str(made[-1])

    monkeypatch.setattr(tempfile, "mkdtemp", swept)
    with scratch(tmp_path) as place:
        sweep(tmp_path)
        assert place.tree.is_dir()
        assert [place.top] == made[1:]
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_a_sweep_is_about_to_delete_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = tempfile.mkdtemp
    held: list[int] = []

    def locked(**where: Any) -> str:
        top: str = real(**where)
        if not held:
            held.append(os.open(top, os.O_RDONLY))
            fcntl.flock(held[0], fcntl.LOCK_EX)
        return top

    monkeypatch.setattr(tempfile, "mkdtemp", locked)
    with scratch(tmp_path) as place:
        assert not os.path.samestat(os.fstat(held[0]), place.top.stat())
    os.close(held[0])


def test_what_vanishes_under_a_sweep_is_no_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "mayfly-build-gone"
    monkeypatch.setattr(Path, "glob", lambda self, pattern: iter([gone]))
    sweep(tmp_path)
    assert not gone.exists()


@pytest.mark.parametrize("error", [FileNotFoundError(2, "gone"), OSError(39, "not empty")])
def test_a_finished_build_is_not_lost_to_a_directory_that_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    def fail(_: Path) -> None:
        raise error

    with scratch(tmp_path) as place:
        monkeypatch.setattr(shutil, "rmtree", fail)
    assert place.top.is_dir()
    monkeypatch.undo()
    sweep(tmp_path)
    assert not place.top.exists()


def test_the_root_of_a_guest_is_open_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        with scratch(tmp_path) as place:
            assert place.tree.stat().st_mode & 0o777 == 0o755
    finally:
        os.umask(before)


def test_a_tmpdir_that_is_not_there_is_missing(tmp_path: Path) -> None:
    with pytest.raises(Missing, match="nowhere"), scratch(tmp_path / "nowhere"):
        pytest.fail("there was room")
