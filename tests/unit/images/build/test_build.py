"""A build without its long parts: what it needs of the host, and in which order it works."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from mayfly.errors import Conflict, Failed, Invalid, Quota
from mayfly.images.build import grub
from mayfly.images.build.builder import build, check_host
from mayfly.images.build.farm.blueprint import Blueprint
from mayfly.images.build.mirror import given_mirror
from mayfly.images.build.recipe import find_recipe
from mayfly.images.catalogue import Catalogue

WANTED = Blueprint(
    recipe=find_recipe("debian-12"), mirror=given_mirror("http://mirror.test/debian")
)


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    return Catalogue(own=tmp_path / "images", dirs=(tmp_path / "images",))


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a directory whose programs a build finds before the real ones."""
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setattr(
        "mayfly.images.build.builder._PATH", f"{directory}:/usr/sbin:/usr/bin:/sbin:/bin"
    )
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    loader = tmp_path / "grub"
    loader.mkdir()
    for name in ("boot.img", "kernel.img"):
        (loader / name).touch()
    monkeypatch.setattr(grub, "GRUB_DIRECTORY", loader)
    for name in ("mmdebstrap", "mke2fs", "qemu-img", "grub-mkimage", "newuidmap"):
        put(directory / name, "exit 0")
    return directory


def put(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def assert_nothing_left(catalogue: Catalogue, tmp_path: Path) -> None:
    assert catalogue.list() == []
    assert list((tmp_path / "scratch").iterdir()) == []
    assert list((catalogue.own / ".work").iterdir()) == []


def test_a_host_without_tools_is_told_the_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mayfly.images.build.builder._PATH", "/nonexistent")
    with pytest.raises(Failed, match="mmdebstrap") as caught:
        check_host()
    assert caught.value.hint.startswith("sudo apt install mmdebstrap e2fsprogs")


def test_a_host_without_grubs_own_files_is_told_before_any_work(
    tools: Path, catalogue: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tools / "mmdebstrap", f"touch {tmp_path / 'ran'}")
    monkeypatch.setattr(grub, "GRUB_DIRECTORY", tmp_path / "nowhere")
    with pytest.raises(Failed, match=r"without boot\.img") as caught:
        build(WANTED, catalogue)
    assert caught.value.hint == "sudo apt install grub-pc-bin"
    assert not (tmp_path / "ran").exists()


@pytest.mark.usefixtures("tools")
def test_a_user_without_subordinate_ids_is_told_how_to_get_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1)  # daemon, which never has a range
    with pytest.raises(Failed, match="no range in /etc/subuid") as caught:
        check_host()
    assert "usermod --add-subuids" in caught.value.hint


def test_a_mirror_that_fails_is_named_and_leaves_nothing(
    tools: Path, catalogue: Catalogue, tmp_path: Path
) -> None:
    put(tools / "mmdebstrap", "echo 'E: Failed to fetch http://mirror.test/x  404'; exit 1")
    with pytest.raises(Failed, match=r"Failed to fetch http://mirror\.test/x"):
        build(WANTED, catalogue)
    assert_nothing_left(catalogue, tmp_path)


def test_no_space_while_installing_is_a_quota_and_leaves_nothing(
    tools: Path, catalogue: Catalogue, tmp_path: Path
) -> None:
    put(tools / "mmdebstrap", "echo 'dpkg: cannot write: No space left on device'; exit 1")
    with pytest.raises(Quota, match="ran out of disk space"):
        build(WANTED, catalogue)
    assert_nothing_left(catalogue, tmp_path)


def test_phases_are_reported_in_order(tools: Path, catalogue: Catalogue, tmp_path: Path) -> None:
    lists = "$TMPDIR/../tree/var/lib/apt/lists"
    date = "Date: Sat, 28 Nov 2026 12:00:00 UTC"
    put(
        tools / "mmdebstrap",
        "echo 'I: downloading packages with apt...'\n"
        f"mkdir -p {lists}; echo '{date}' > {lists}/x_Release",
    )
    put(tools / "mke2fs", 'exec /sbin/mke2fs "$@"')
    put(tools / "grub-mkimage", "echo broken; exit 1")
    phases: list[tuple[str, float | None]] = []
    with pytest.raises(Failed, match="grub-mkimage"):
        build(WANTED, catalogue, report=lambda *step: phases.append(step))
    assert [phase for phase, _ in phases] == ["packages", "packages", "file system", "boot loader"]
    assert phases[1][1] == 0.1
    assert_nothing_left(catalogue, tmp_path)


def test_a_name_in_use_is_refused_before_any_work(tools: Path, catalogue: Catalogue) -> None:
    put(tools / "mmdebstrap", "echo must not run; exit 1")
    (catalogue.own / "debian-12").mkdir(parents=True)
    with pytest.raises(Conflict):
        build(WANTED, catalogue)


@pytest.mark.usefixtures("tools")
def test_a_bad_name_is_refused(catalogue: Catalogue) -> None:
    with pytest.raises(Invalid):
        build(replace(WANTED, name="../x"), catalogue)
