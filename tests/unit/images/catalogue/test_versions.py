"""Versions lie side by side, and a name, a pin and an alias each mean exactly one disk."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from mayfly.errors import Conflict, Denied, Invalid, MayflyError, Missing, Untrusted
from mayfly.images.catalogue import Catalogue, check
from mayfly.images.catalogue.record import Facts
from mayfly.images.catalogue.reference import DIGEST_LEAST, Reference, parse_reference, read_alias
from mayfly.images.catalogue.versions import set_aside
from mayfly.model import Image

ONE, TWO, THREE = b"the first disk", b"the second one", b"and the third"


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    own, site = tmp_path / "own", tmp_path / "site"
    return Catalogue(own=own, dirs=(own, site))


def admit(
    catalogue: Catalogue,
    name: str = "el9",
    content: bytes = ONE,
    version: str = "1",
    *,
    endorsed: str = "",
) -> Image:
    facts = Facts(
        os="el 9", source="a test", disk_bytes=1 << 30, version=version, endorsed_sha512=endorsed
    )
    with catalogue.draft(name, work="test", keep=True) as draft:
        draft.disk.write_bytes(content)
        return draft.admit(facts)


def three(catalogue: Catalogue) -> tuple[Image, Image, Image]:
    return (
        admit(catalogue, content=ONE, version="1"),
        admit(catalogue, content=TWO, version="2"),
        admit(catalogue, content=THREE, version="10"),
    )


def entries(catalogue: Catalogue) -> list[str]:
    return sorted(path.name for path in catalogue.own.iterdir() if path.name[0] != ".")


# --- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("el9", Reference(name="el9")),
        ("el9@2026.1-rc1", Reference(name="el9", version="2026.1-rc1")),
        (f"el9@sha512:{'Ab' * 64}", Reference(name="el9", sha512="ab" * 64)),
        (f"el9@sha512:{'0' * DIGEST_LEAST}", Reference(name="el9", sha512="0" * DIGEST_LEAST)),
    ],
)
def test_a_reference_is_read(text: str, meant: Reference) -> None:
    assert parse_reference(text) == meant
    assert str(meant) == text.lower()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "@1",
        "el9@",
        "el9@@1",
        "el9@../x",
        "el9@a/b",
        "../el9",
        "el9@sha512:",
        "el9@sha512:abc",
        f"el9@sha512:{'0' * 129}",
        f"el9@sha512:{'g' * 64}",
        f"el9@{'1' * 65}",
        "el9@1 2",
        "el9@1\n",
        "el9\0",
        "é@1",
    ],
)
def test_what_names_no_image_is_refused(catalogue: Catalogue, text: str) -> None:
    with pytest.raises(Invalid):
        parse_reference(text)
    with pytest.raises(Invalid):
        catalogue.find(text)
    with pytest.raises(Invalid):
        catalogue.remove(text)


# --- side by side --------------------------------------------------------------------------------


def test_versions_are_kept_and_each_is_found_by_version_and_digest(catalogue: Catalogue) -> None:
    made = three(catalogue)
    assert [image.version for image in catalogue.versions("el9")] == ["10", "2", "1"]
    assert catalogue.find("el9") == made[2]
    assert [image.name for image in catalogue.list()] == ["el9"]
    for image, content in zip(made, (ONE, TWO, THREE), strict=True):
        found = catalogue.find(f"el9@{image.version}")
        assert found.sha512 == image.sha512
        assert found.disk.read_bytes() == content
        assert catalogue.find(image.pin) == found
        assert catalogue.find(f"el9@sha512:{image.sha512[:DIGEST_LEAST]}") == found
        check(found)
    assert catalogue.find("el9@10").name == "el9"
    assert catalogue.find("el9@2").name == "el9@2"
    assert catalogue.find(catalogue.find("el9@2").name) == catalogue.find("el9@2")


def test_a_version_that_cannot_be_typed_is_named_by_its_digest(catalogue: Catalogue) -> None:
    odd = admit(catalogue, content=ONE, version="1, 2/3")
    admit(catalogue, content=TWO, version="4")
    found = catalogue.find(odd.pin)
    assert found.name == f"el9@sha512:{odd.sha512[:DIGEST_LEAST]}"
    assert catalogue.find(found.name) == found


def test_what_a_list_vouches_for_is_a_pin_too(catalogue: Catalogue) -> None:
    made = admit(catalogue, endorsed="cd" * 64)
    assert catalogue.find(f"el9@sha512:{'cd' * 64}") == made


def test_a_pin_that_is_not_here_is_refused_with_what_is(catalogue: Catalogue) -> None:
    three(catalogue)
    with pytest.raises(Missing, match="no image 'el9@3'") as caught:
        catalogue.find("el9@3")
    assert caught.value.hint == "versions of 'el9' here: 10, 2, 1"
    with pytest.raises(Missing):
        catalogue.find(f"el9@sha512:{'00' * 64}")
    with pytest.raises(Missing):
        catalogue.find("el8@1")


def test_a_version_means_one_disk(catalogue: Catalogue) -> None:
    admit(catalogue, content=ONE, version="1")
    with pytest.raises(Conflict, match="version 1 of 'el9' is here already"):
        admit(catalogue, content=TWO, version="1")
    assert catalogue.find("el9").disk.read_bytes() == ONE
    assert entries(catalogue) == ["el9"]


def test_the_same_disk_again_is_no_second_version(catalogue: Catalogue) -> None:
    admit(catalogue, content=ONE, version="1")
    admit(catalogue, content=ONE, version="1")
    assert entries(catalogue) == ["el9"]
    admit(catalogue, content=TWO, version="2")
    # An older disk comes again, and is the newest now.
    admit(catalogue, content=ONE, version="1")
    assert [image.version for image in catalogue.versions("el9")] == ["1", "2"]
    assert len(entries(catalogue)) == 2


def test_force_replaces_and_leaves_older_versions_alone(catalogue: Catalogue) -> None:
    admit(catalogue, content=ONE, version="1")
    admit(catalogue, content=TWO, version="2")
    with catalogue.draft("el9", work="test", force=True) as draft:
        draft.disk.write_bytes(THREE)
        draft.admit(Facts(os="el 9", source="a test", disk_bytes=1 << 30, version="3"))
    assert [image.version for image in catalogue.versions("el9")] == ["3", "1"]


def test_versions_of_a_user_and_of_the_site_are_all_found(catalogue: Catalogue) -> None:
    site = Catalogue(own=catalogue.dirs[1], dirs=(catalogue.dirs[1],))
    admit(site, content=ONE, version="1")
    admit(site, content=TWO, version="2")
    mine = admit(catalogue, content=THREE, version="mine")
    assert catalogue.find("el9") == mine
    assert catalogue.find("el9@2").disk.is_relative_to(site.own)
    assert [image.version for image in catalogue.versions("el9")] == ["mine", "2", "1"]
    with pytest.raises(Denied):
        catalogue.remove("el9@1")


@pytest.mark.parametrize("moment", ["set_aside", "move", "forget_double"])
def test_a_builder_killed_at_any_moment_loses_no_version(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    admit(catalogue, content=ONE, version="1")
    child = os.fork()
    if child == 0:
        monkeypatch.setattr(
            f"mayfly.images.catalogue.directory.{moment}",
            lambda *_: os.kill(os.getpid(), signal.SIGKILL),
        )
        try:
            admit(catalogue, content=TWO, version="2")
        finally:
            os._exit(0)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert catalogue.find("el9@1").disk.read_bytes() == ONE
    admit(catalogue, content=TWO, version="2")
    assert [image.version for image in catalogue.versions("el9")] == ["2", "1"]
    assert list((catalogue.own / ".work").iterdir()) == []


def test_a_damaged_directory_beside_is_passed_over(
    catalogue: Catalogue, caplog: pytest.LogCaptureFixture
) -> None:
    three(catalogue)
    (catalogue.own / f"el9@{'0' * DIGEST_LEAST}").mkdir()
    wrong = catalogue.own / f"el9@{'1' * DIGEST_LEAST}"
    set_aside(catalogue.own / "el9", catalogue.own / ".work" / "x")
    found = next(path for path in catalogue.own.glob("el9@*") if path.name[4] not in "01")
    found.rename(wrong)
    assert len(catalogue.versions("el9")) == 3
    assert "image left out" in caplog.text


# --- removing ------------------------------------------------------------------------------------


def test_one_version_is_removed(catalogue: Catalogue) -> None:
    three(catalogue)
    catalogue.remove("el9@1")
    assert [image.version for image in catalogue.versions("el9")] == ["10", "2"]
    with pytest.raises(Missing):
        catalogue.remove("el9@1")


def test_when_the_newest_is_removed_the_one_before_takes_its_place(catalogue: Catalogue) -> None:
    made = three(catalogue)
    catalogue.remove(made[2].pin)
    assert catalogue.find("el9").sha512 == made[1].sha512
    assert len(catalogue.versions("el9")) == 2
    assert catalogue.find("el9").name == "el9"
    assert list((catalogue.own / ".work").iterdir()) == []


def test_a_name_alone_removes_all_versions(catalogue: Catalogue) -> None:
    three(catalogue)
    admit(catalogue, "el8")
    catalogue.remove("el9")
    assert entries(catalogue) == ["el8"]


# --- aliases -------------------------------------------------------------------------------------


def test_an_alias_follows_its_image_and_a_pinned_one_does_not(catalogue: Catalogue) -> None:
    one = admit(catalogue, content=ONE, version="1")
    catalogue.set_alias("newest", "el9")
    catalogue.set_alias("stable", "el9@1")
    catalogue.set_alias("exact", one.pin)
    two = admit(catalogue, content=TWO, version="2")
    assert catalogue.find("newest") == two
    assert catalogue.find("stable").sha512 == one.sha512
    assert catalogue.find("exact").sha512 == one.sha512
    assert list(catalogue.aliases()) == ["exact", "newest", "stable"]
    assert [image.name for image in catalogue.list()] == ["el9"]


def test_an_alias_of_an_alias_is_refused(catalogue: Catalogue) -> None:
    admit(catalogue)
    catalogue.set_alias("newest", "el9")
    with pytest.raises(Invalid, match="alias itself"):
        catalogue.set_alias("other", "newest")
    with pytest.raises(Missing):
        catalogue.set_alias("other", "el7")


def test_names_of_images_and_of_aliases_do_not_meet(catalogue: Catalogue) -> None:
    admit(catalogue)
    catalogue.set_alias("newest", "el9")
    with pytest.raises(Conflict, match="alias 'newest'"):
        admit(catalogue, "newest")
    with pytest.raises(Conflict, match="image 'el9'"):
        catalogue.set_alias("el9", "el9@1")
    with pytest.raises(Conflict, match="alias 'newest' already"):
        catalogue.set_alias("newest", "el9@1")
    catalogue.set_alias("newest", "el9@1", force=True)
    with pytest.raises(Invalid, match="is an alias"):
        catalogue.remove("newest")
    catalogue.remove_alias("newest")
    with pytest.raises(Missing):
        catalogue.remove_alias("newest")
    admit(catalogue, "newest")


def test_an_alias_whose_image_is_gone_says_so(catalogue: Catalogue) -> None:
    admit(catalogue)
    catalogue.set_alias("newest", "el9")
    catalogue.remove("el9")
    with pytest.raises(Missing, match="stands for 'el9', which is not here"):
        catalogue.find("newest")


def test_an_alias_of_the_site_is_everybodys(catalogue: Catalogue) -> None:
    site = Catalogue(own=catalogue.dirs[1], dirs=(catalogue.dirs[1],))
    made = admit(site)
    site.set_alias("newest", "el9")
    assert catalogue.find("newest") == made
    with pytest.raises(Missing):
        catalogue.remove_alias("newest")


@pytest.mark.parametrize("content", [b"", b"../../etc", b"x" * 1_000_000, b"\xff\xfe", b"a\nb"])
def test_a_damaged_alias_is_refused(catalogue: Catalogue, content: bytes) -> None:
    admit(catalogue)
    catalogue.set_alias("newest", "el9")
    (catalogue.own / ".aliases" / "newest").write_bytes(content)
    with pytest.raises(Untrusted, match="alias 'newest'"):
        catalogue.find("newest")
    with pytest.raises(MayflyError):
        read_alias(catalogue.own, "newest")
