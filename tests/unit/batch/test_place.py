"""Where a job runs in its machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from mayfly.batch.place import outermost, place_of, usable
from mayfly.config import Settings
from mayfly.model import Account, ShareDir

ADA = Account(name="ada", uid=1, gid=1, groups=(), home="/home/ada", shell="/bin/sh")
HOMES = ShareDir(path=Path("/home"))
SOFTWARE = ShareDir(path=Path("/software"), read_only=True)


def test_beneath_a_live_directory_it_is_live() -> None:
    place = place_of(Path("/home/ada/work"), (HOMES,), ADA, Settings())
    assert (place.cwd, place.workdir) == ("/home/ada/work", None)
    assert place.words == "working directory /home/ada/work (live)"


def test_a_live_directory_may_be_read_only() -> None:
    assert "(live, read-only)" in place_of(Path("/software"), (SOFTWARE,), ADA, Settings()).words


def test_elsewhere_it_is_a_copy() -> None:
    place = place_of(Path("/scratch/ada"), (HOMES,), ADA, Settings(workdir_limit_mib=7))
    assert place.workdir is not None
    assert (place.workdir.path, place.workdir.limit_bytes) == (Path("/scratch/ada"), 7 << 20)
    assert "a copy" in place.words


@pytest.mark.parametrize("cwd", ["/", "/tmp", "/home/ada", "/usr/lib", "/homer"])
def test_what_is_not_copied_is_said(cwd: str) -> None:
    place = place_of(Path(cwd), (), ADA, Settings())
    if cwd == "/homer":
        assert place.workdir is not None
    else:
        assert (place.workdir, place.cwd) == (None, "/home/ada")
        assert "is not in the machine" in place.words


def test_a_directory_that_is_not_there() -> None:
    assert "not on this host" in place_of(None, (), ADA, Settings()).words


def test_of_nested_directories_the_outer_ones_are_served() -> None:
    inner = ShareDir(path=Path("/home/ada/data"), read_only=True)
    assert outermost([inner, HOMES, SOFTWARE, HOMES]) == (HOMES, SOFTWARE)


def test_a_directory_that_cannot_be_entered_is_left_out(tmp_path: Path) -> None:
    assert usable(ShareDir(path=tmp_path))
    assert not usable(ShareDir(path=tmp_path / "none"))
