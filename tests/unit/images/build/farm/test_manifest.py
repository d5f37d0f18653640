"""A manifest says what is in an image, and holds a later build to it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mayfly.errors import Failed, Invalid, Untrusted
from mayfly.images.build.farm.blueprint import Blueprint, Check, Pinned
from mayfly.images.build.farm.manifest import (
    MANIFEST,
    check_pins,
    epoch_of,
    find_manifest,
    installed,
    manifest_of,
    preferences,
    read_manifest,
    read_pins,
    write_manifest,
)
from mayfly.images.build.recipe import find_recipe

STATUS = """\
Package: dash
Status: install ok installed
Version: 0.5.12-2
Architecture: amd64
Description: shell
 Version: of nothing

Package: gone
Status: deinstall ok config-files
Version: 1
Architecture: amd64

Package: own
Status: install ok installed
Version: 3
Architecture: all
"""
LISTS = """\
Package: dash
Version: 0.5.12-1
Architecture: amd64
SHA256: {other}

Package: dash
Version: 0.5.12-2
Architecture: amd64
SHA256: {right}
"""
DASH = Pinned(name="dash", version="0.5.12-2", architecture="amd64", sha256="ab" * 32)
OWN = Pinned(name="own", version="3", architecture="all")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    lists = tmp_path / "var/lib/apt/lists"
    lists.mkdir(parents=True)
    (tmp_path / "var/lib/dpkg").mkdir()
    (tmp_path / "var/lib/dpkg/status").write_text(STATUS)
    text = LISTS.format(other="cd" * 32, right="ab" * 32)
    (lists / "m_debian_dists_bookworm_main_binary-amd64_Packages").write_text(text)
    (lists / "m_dists_bookworm_InRelease").write_text("Date: Sat, 28 Nov 2026 12:00:00 UTC\n")
    (lists / "m_dists_updates_InRelease").write_text("Date: Sat, 28 Nov 2026 18:00:00 UTC\n")
    return tmp_path


def test_the_packages_of_a_tree_with_their_hashes(tree: Path) -> None:
    assert installed(tree) == (DASH, OWN)


def test_the_time_is_that_of_the_newest_list(tree: Path) -> None:
    assert epoch_of(tree) == 1_795_888_800
    for file in tree.glob("var/lib/apt/lists/*Release"):
        file.unlink()
    with pytest.raises(Failed, match="no package lists"):
        epoch_of(tree)


def test_a_manifest_is_read_as_it_was_written(tree: Path) -> None:
    wanted = Blueprint(recipe=find_recipe("debian-12"), checks=(Check(name="x", command="true"),))
    manifest = manifest_of(wanted, tree, 17, ("http://m", "http://s"))
    write_manifest(tree, manifest)
    assert find_manifest(tree) == manifest
    assert read_pins(tree / MANIFEST) == (DASH, OWN)
    assert manifest.recipe_digest == wanted.digest()
    assert "mmdebstrap" in manifest.builders["mmdebstrap"]
    assert find_manifest(tree / "var") is None


def test_a_build_is_held_to_its_manifest(tree: Path) -> None:
    check_pins((DASH, OWN), installed(tree))
    other = replace(DASH, sha256="00" * 32)
    with pytest.raises(Failed, match=r"1 packages are not those of the manifest: dash:amd64"):
        check_pins((other, OWN), installed(tree))
    with pytest.raises(Failed, match=r"own:all 4 \(built: 3\)"):
        check_pins((DASH, replace(OWN, version="4")), installed(tree))
    with pytest.raises(Failed, match=r"own:all not demanded"):
        check_pins((DASH,), installed(tree))
    wanted = Blueprint(recipe=find_recipe("debian-12"), pins=(other, OWN))
    with pytest.raises(Failed, match="not those of the manifest"):
        manifest_of(wanted, tree, 17, ("http://m", "http://s"))


def test_what_apt_is_told(tree: Path) -> None:
    del tree
    assert preferences((DASH,)) == ("Package: dash\nPin: version 0.5.12-2\nPin-Priority: 1001\n")


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{}", b"null", b"\xff", b'{"format": 2}', b"[" * 100_000, b'{"format": 1}'],
)
def test_what_is_no_manifest_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / MANIFEST).write_bytes(content)
    with pytest.raises(Invalid):
        read_manifest(tmp_path / MANIFEST)
    with pytest.raises(Untrusted):
        find_manifest(tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", "x\nPin-Priority: 9"),
        ("name", "*"),
        ("version", "1 2"),
        ("version", ""),
        ("architecture", "a/b"),
        ("sha256", "ab"),
        ("name", 7),
        ("more", "x"),
    ],
)
def test_a_package_that_apt_could_misread_is_refused(tree: Path, key: str, value: object) -> None:
    wanted = Blueprint(recipe=find_recipe("debian-12"))
    write_manifest(tree, manifest_of(wanted, tree, 17, ("http://m", "http://s")))
    stored = json.loads((tree / MANIFEST).read_text())
    stored["packages"][0][key] = value
    (tree / MANIFEST).write_text(json.dumps(stored))
    with pytest.raises(Invalid, match="is no manifest"):
        read_manifest(tree / MANIFEST)
