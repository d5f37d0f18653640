"""The room of a build, and that nothing of it is left."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from mayfly.errors import Quota
from mayfly.images.room import check_room
from mayfly.images.scratch import scratch, sweep


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
