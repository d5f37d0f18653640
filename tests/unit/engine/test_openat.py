"""Paths that cannot lead out, with openat2(2) and without."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from mayfly.engine.session import openat
from mayfly.engine.session.openat import (
    CONTENT,
    DIRECTORY,
    LISTING,
    Refused,
    Tree,
    parts,
    rename_new,
)


@pytest.fixture(params=["openat2", "by steps", "no such call", "call not allowed"])
def tree(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Tree]:
    codes = {"no such call": errno.ENOSYS, "call not allowed": errno.EPERM}
    if request.param in codes:

        def refuse(_root: int, path: str, _flags: int) -> int:
            raise OSError(codes[request.param], "refused", path)

        monkeypatch.setattr(openat, "_openat2", refuse)
    (tmp_path / "top/dir/deep").mkdir(parents=True)
    (tmp_path / "top/dir/file").write_bytes(b"inside")
    (tmp_path / "outside").write_bytes(b"outside")
    (tmp_path / "top/link").symlink_to("dir")
    (tmp_path / "top/out").symlink_to("../outside")
    (tmp_path / "top/magic").symlink_to("/proc/self/root")
    made = Tree(tmp_path / "top", walk=request.param == "by steps")
    yield made
    made.close()


def test_what_is_inside_opens(tree: Tree) -> None:
    for path, flags in [("", DIRECTORY), ("", LISTING), ("dir/deep", DIRECTORY), ("dir", LISTING)]:
        os.close(tree.open(path, flags))
    fd = tree.open("dir/file", CONTENT)
    assert os.read(fd, 100) == b"inside"
    assert not os.get_inheritable(fd)
    os.close(fd)


@pytest.mark.parametrize("flags", [CONTENT, DIRECTORY, LISTING])
@pytest.mark.parametrize(
    "path", ["link", "link/file", "link/deep", "out", "magic", "magic/etc", "magic/etc/passwd"]
)
def test_links_are_not_followed(tree: Tree, path: str, flags: int) -> None:
    with pytest.raises(OSError) as error:  # noqa: PT011  # its number is what counts
        tree.open(path, flags)
    assert error.value.errno in {errno.ELOOP, errno.ENOTDIR}


@pytest.mark.parametrize("path", ["..", "../outside", "dir/../../outside", "/etc/passwd", "dir/.."])
def test_ways_out_are_refused(tree: Tree, path: str) -> None:
    with pytest.raises(Refused):
        tree.open(path, CONTENT)


def test_fifo_does_not_hold_us(tree: Tree, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "top/fifo")
    fd = tree.open("fifo", CONTENT)
    assert stat.S_ISFIFO(os.fstat(fd).st_mode)
    os.close(fd)


def test_directories_are_made_beneath_only(tree: Tree, tmp_path: Path) -> None:
    tree.make_directories("dir/new/newer")
    tree.make_directories("dir/new/newer")
    assert (tmp_path / "top/dir/new/newer").is_dir()
    with pytest.raises(OSError, match=r"Too many levels|Not a directory"):
        tree.make_directories("link/new")
    assert not (tmp_path / "top/dir/new/new").exists()


def test_no_descriptor_is_left(tree: Tree) -> None:
    before = os.listdir("/proc/self/fd")
    with tree.parent("dir/deep/x") as (parent, name):
        assert name == "x"
        assert os.fstat(parent)
    for path in ("nonesuch/x", "link/x", "dir/file/x"):
        with pytest.raises(OSError), tree.parent(path):  # noqa: PT011
            pass
    assert os.listdir("/proc/self/fd") == before


def test_parts_of_a_path() -> None:
    assert parts("") == []
    assert parts("a/b") == ["a", "b"]
    assert parts("x" * 255) == ["x" * 255]
    for path in ("x" * 256, "a/" * 3000 + "b", "/".join("a" * 513), "a/./b", "a\0"):
        with pytest.raises(Refused):
            parts(path)


@pytest.fixture(params=[True, False], ids=["renameat2", "without"])
def folder(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[int]:
    if not request.param:
        monkeypatch.setattr(openat, "_renameat2", lambda *_: errno.EINVAL)
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "b").write_bytes(b"b")
    (tmp_path / "dangling").symlink_to("nonesuch")
    fd = os.open(tmp_path, DIRECTORY)
    yield fd
    os.close(fd)


def test_rename_that_replaces_nothing(folder: int, tmp_path: Path) -> None:
    for taken in ("b", "dangling"):
        with pytest.raises(FileExistsError):
            rename_new(folder, "a", taken)
    assert (tmp_path / "b").read_bytes() == b"b"
    rename_new(folder, "a", "new")
    assert (tmp_path / "new").read_bytes() == b"a"
    with pytest.raises(FileNotFoundError):
        rename_new(folder, "a", "other")
