"""An image is there whole or not at all, and one that was changed is noticed."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mayfly.errors import Conflict, Denied, Invalid, Missing, Untrusted
from mayfly.images.catalogue import Catalogue, check, check_name
from mayfly.images.catalogue.record import Facts
from mayfly.model import Image

FACTS = Facts(os="debian 12", source="a test", disk_bytes=1 << 30)
CONTENT = b"QFI\xfb and some more"


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    own, site = tmp_path / "own", tmp_path / "site"
    return Catalogue(own=own, dirs=(own, site))


def admit(
    catalogue: Catalogue, name: str, content: bytes = CONTENT, *, force: bool = False
) -> Image:
    with catalogue.draft(name, work="test", force=force) as draft:
        draft.disk.write_bytes(content)
        return draft.admit(FACTS)


def leftovers(catalogue: Catalogue) -> list[Path]:
    return list((catalogue.own / ".work").glob("*"))


def test_an_admitted_image_is_found_with_all_its_facts(catalogue: Catalogue) -> None:
    made = admit(catalogue, "debian-12")
    assert catalogue.find("debian-12") == made
    assert catalogue.list() == [made]
    assert made.sha512 == hashlib.sha512(CONTENT).hexdigest()
    assert (made.size_bytes, made.disk_bytes, made.os) == (len(CONTENT), 1 << 30, "debian 12")
    assert made.disk.read_bytes() == CONTENT
    assert leftovers(catalogue) == []
    check(made)


def test_where_an_image_came_from_is_recorded(catalogue: Catalogue) -> None:
    steps = ("vmdk to qcow2 by qemu-img 7.2.22",)
    facts = replace(FACTS, version="2.1", endorsed_sha512="ab" * 64, derived=steps, tags=("old",))
    with catalogue.draft("el7", work="test") as draft:
        draft.disk.write_bytes(CONTENT)
        made = draft.admit(facts)
    assert catalogue.find("el7") == made
    assert (made.version, made.endorsed_sha512) == ("2.1", "ab" * 64)
    assert (made.derived, made.tags) == (steps, ("old",))


def test_a_record_of_an_older_version_is_read(catalogue: Catalogue) -> None:
    made = admit(catalogue, "debian-12")
    file = made.disk.with_name("image.json")
    record = json.loads(file.read_text())
    for later in ("endorsed_sha512", "derived", "tags"):
        del record[later]
    file.chmod(0o600)
    file.write_text(json.dumps(record))
    assert catalogue.find("debian-12") == made


@pytest.fixture(params=[0o000, 0o077])
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


@pytest.mark.usefixtures("umask")
@pytest.mark.parametrize(
    ("uid", "directory", "file", "record"),
    [(0, 0o755, 0o444, 0o644), (1000, 0o700, 0o400, 0o600)],
)
def test_an_image_is_read_only_and_only_that_of_root_is_for_others(
    catalogue: Catalogue,
    monkeypatch: pytest.MonkeyPatch,
    uid: int,
    *,
    directory: int,
    file: int,
    record: int,
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    with catalogue.draft("a", work="test") as draft:
        draft.disk.write_bytes(CONTENT)
        (draft.disk.parent / "vmlinuz").write_bytes(b"kernel")
        assert modes(draft.directory.parent) == 0o700
        made = draft.admit(FACTS)
    assert (modes(made.disk), modes(made.disk.with_name("vmlinuz"))) == (file, file)
    assert modes(made.disk.with_name("image.json")) == record
    assert (modes(made.disk.parent), modes(catalogue.own)) == (directory, directory)


def modes(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.mark.usefixtures("umask")
def test_a_place_of_work_of_an_older_mayfly_is_closed(catalogue: Catalogue) -> None:
    (catalogue.own / ".work").mkdir(parents=True)
    (catalogue.own / ".work").chmod(0o755)
    admit(catalogue, "a")
    assert modes(catalogue.own / ".work") == 0o700


def test_the_own_directory_wins_over_that_of_the_site(catalogue: Catalogue) -> None:
    site = Catalogue(own=catalogue.dirs[1], dirs=catalogue.dirs[1:])
    admit(site, "both", b"site")
    admit(site, "theirs", b"site")
    mine = admit(catalogue, "both", b"mine")
    assert catalogue.find("both") == mine
    assert [image.name for image in catalogue.list()] == ["both", "theirs"]
    assert catalogue.list()[0] == mine


BAD_NAMES = ["", ".hidden", "../x", "a/b", "UPPER", "a" * 65, "a b", "-x", "ä", "a\n"]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_that_are_none_are_refused(catalogue: Catalogue, name: str) -> None:
    with pytest.raises(Invalid):
        check_name(name)
    with pytest.raises(Invalid):
        catalogue.find(name)
    with pytest.raises(Invalid):
        catalogue.remove(name)


@pytest.mark.parametrize("name", ["a", "debian-12", "0.x_y", "a" * 64])
def test_names_that_are_some(name: str) -> None:
    assert check_name(name) == name


def test_an_unknown_image_is_missing_and_the_hint_names_those_there(catalogue: Catalogue) -> None:
    admit(catalogue, "debian-12")
    with pytest.raises(Missing, match="no image 'debian-99'") as caught:
        catalogue.find("debian-99")
    assert "debian-12" in caught.value.hint
    assert "mayfly image build" in caught.value.hint


def test_an_image_is_replaced_only_with_force(catalogue: Catalogue) -> None:
    admit(catalogue, "a", b"one")
    with (
        pytest.raises(Conflict, match="already") as caught,
        catalogue.draft("a", work="test"),
    ):
        pytest.fail("a draft was given")
    assert "--force" in caught.value.hint
    made = admit(catalogue, "a", b"two!", force=True)
    assert catalogue.find("a") == made
    assert made.disk.read_bytes() == b"two!"
    assert leftovers(catalogue) == []


def test_a_draft_that_fails_leaves_nothing_and_keeps_the_old_image(catalogue: Catalogue) -> None:
    old = admit(catalogue, "a")
    with (
        pytest.raises(IsADirectoryError),
        catalogue.draft("a", work="test", force=True) as draft,
    ):
        draft.disk.parent.write_bytes(b"")
    assert catalogue.find("a") == old
    check(old)
    assert leftovers(catalogue) == []


def test_what_a_killed_builder_left_is_cleared_by_the_next(catalogue: Catalogue) -> None:
    left = catalogue.own / ".work" / "a" / "image"
    left.mkdir(parents=True)
    (left / "disk.qcow2").write_bytes(b"half")
    assert catalogue.list() == []
    made = admit(catalogue, "a")
    assert made.disk.read_bytes() == CONTENT


def test_two_builders_of_one_name_collide_and_the_second_learns_who(catalogue: Catalogue) -> None:
    with (
        catalogue.draft("a", work="build debian-12"),
        pytest.raises(Conflict, match=rf"process {os.getpid()} \(build debian-12\)"),
        catalogue.draft("a", work="import x"),
    ):
        pytest.fail("a second draft was given")


def test_two_builders_of_two_names_do_not_collide(catalogue: Catalogue) -> None:
    with catalogue.draft("a", work="one"):
        admit(catalogue, "b")
    assert [image.name for image in catalogue.list()] == ["b"]


def test_the_lock_ends_with_its_holder(catalogue: Catalogue) -> None:
    admit(catalogue, "a")
    with open(catalogue.own / ".lock" / "a", "rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert b"(test)" in lock.read()


def test_a_disk_that_is_gone_is_missing(catalogue: Catalogue) -> None:
    made = admit(catalogue, "a")
    made.disk.unlink()
    with pytest.raises(Missing, match="gone") as caught:
        check(made)
    assert "--force" in caught.value.hint


def test_a_truncated_disk_is_untrusted(catalogue: Catalogue) -> None:
    made = admit(catalogue, "a")
    os.truncate(made.disk, 3)
    with pytest.raises(Untrusted, match=rf"3 bytes, but {len(CONTENT)}"):
        check(made)


def test_a_changed_disk_is_untrusted(catalogue: Catalogue) -> None:
    made = admit(catalogue, "a")
    made.disk.chmod(0o644)
    made.disk.write_bytes(bytes(len(CONTENT)))
    with pytest.raises(Untrusted, match="changed"):
        check(made)


def test_a_disk_replaced_by_a_link_is_untrusted(catalogue: Catalogue, tmp_path: Path) -> None:
    made = admit(catalogue, "a")
    made.disk.rename(tmp_path / "elsewhere")
    made.disk.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Untrusted, match="not a file"):
        check(made)


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"name": "other"},
        {"sha512": 5},
        {"size_bytes": "12"},
        {"size_bytes": True},
        {"mtime_ns": None},
        {"endorsed_sha512": None},
        {"derived": "converted"},
        {"tags": [1]},
    ],
)
def test_a_damaged_record_is_untrusted_and_left_out_of_the_list(
    catalogue: Catalogue, change: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    made = admit(catalogue, "a")
    path = made.disk.with_name("image.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(Untrusted):
        catalogue.find("a")
    assert catalogue.list() == []
    assert "image left out" in caplog.text


@pytest.mark.parametrize("text", [b"", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"format": 1}'])
def test_a_record_of_nonsense_is_untrusted(catalogue: Catalogue, text: bytes) -> None:
    admit(catalogue, "a").disk.with_name("image.json").write_bytes(text)
    with pytest.raises(Untrusted):
        catalogue.find("a")


def test_a_directory_without_a_record_is_missing(catalogue: Catalogue) -> None:
    admit(catalogue, "a").disk.with_name("image.json").unlink()
    with pytest.raises(Missing, match="record"):
        catalogue.find("a")


def test_an_image_is_removed(catalogue: Catalogue) -> None:
    admit(catalogue, "a")
    catalogue.remove("a")
    assert catalogue.list() == []
    assert leftovers(catalogue) == []
    with pytest.raises(Missing):
        catalogue.remove("a")


def test_an_image_of_the_site_is_not_removed(catalogue: Catalogue) -> None:
    site = Catalogue(own=catalogue.dirs[1], dirs=catalogue.dirs[1:])
    made = admit(site, "theirs")
    with pytest.raises(Denied):
        catalogue.remove("theirs")
    check(made)


def test_no_directory_means_no_images(catalogue: Catalogue) -> None:
    assert catalogue.list() == []
