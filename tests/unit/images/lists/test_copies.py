"""Images that are put beside their list."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from mayfly.errors import Conflict, Invalid, Missing, Quota, Untrusted
from mayfly.images.lists.copies import Copy, plan_copies
from mayfly.images.lists.endorse import publish, sign_list
from mayfly.images.lists.model import ImageList, ListedImage
from mayfly.images.lists.openssl import Signer
from tests.unit.images.lists.pki import NOW
from tests.unit.images.lists.samples import listed
from tests.unit.images.lists.test_endorse import draft

BESIDE = "https://images.example.org/lists/"


def image(number: int, content: bytes, uri: str = "") -> ListedImage:
    return replace(
        listed(number),
        sha512=hashlib.sha512(content).hexdigest(),
        size_bytes=len(content),
        uri=uri or f"{BESIDE}image{number}.qcow2",
    )


def images(*wanted: ListedImage) -> ImageList:
    return replace(draft(0), uri=f"{BESIDE}site.list", images=wanted)


def disk(place: Path, content: bytes) -> Path:
    place.write_bytes(content)
    return place


def debris(directory: Path) -> list[str]:
    return sorted(each.name for each in directory.glob(".image-*"))


def test_an_image_goes_beside_its_list_under_the_name_that_it_has_there(tmp_path: Path) -> None:
    one, far = image(1, b"1", f"{BESIDE}a%20b.qcow2"), image(2, b"2", "https://x.example.org/c")
    copies, elsewhere = plan_copies(
        images(one, far), tmp_path / "site.list", {one.sha512: tmp_path / "disk"}
    )
    assert [(each.place, each.disk) for each in copies] == [
        (tmp_path / "a b.qcow2", tmp_path / "disk")
    ]
    assert elsewhere == (far,)


@pytest.mark.parametrize(
    "name", ["../x", "%2e%2e/x", "%2e%2e%2fx", "", "a/b", ".hidden", "site.list", "a%00", "%2fetc"]
)
def test_no_name_leads_elsewhere(name: str, tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="cannot be put beside"):
        plan_copies(images(image(1, b"1", BESIDE + name)), tmp_path / "site.list", {})


def test_what_is_published_can_be_fetched(tmp_path: Path, jo: Signer) -> None:
    www, told = tmp_path / "www", list[float]()
    signed, message = sign_list(images(image(1, b"one" * 9), image(2, b"two")), jo, now=NOW)
    here = {
        signed.images[0].sha512: disk(tmp_path / "1", b"one" * 9),
        signed.images[1].sha512: disk(tmp_path / "2", b"two"),
    }
    copies, _ = plan_copies(signed, www / "site.list", here)
    www.mkdir()
    # What a killed one left.
    (www / ".image-site.list-7").write_bytes(b"half")
    (www / ".image-other.list-1").write_bytes(b"another's")
    publish(message, www / "site.list", copies, lambda _, part: told.append(part))
    assert (www / "image1.qcow2").read_bytes() == b"one" * 9
    assert (www / "image2.qcow2").stat().st_mode & 0o777 == 0o644
    assert debris(www) == [".image-other.list-1"]
    assert told == [1.0, 1.0]
    before = (www / "image1.qcow2").stat().st_ino
    # The disks are not needed where the files are right already.
    again, _ = plan_copies(signed, www / "site.list", {})
    publish(message, www / "site.list", again)
    assert (www / "image1.qcow2").stat().st_ino == before


def _tried(copies: tuple[Copy, ...], message: bytes, www: Path) -> None:
    publish(message, www / "site.list", copies)


def test_nothing_changes_when_an_image_cannot_be_copied(
    tmp_path: Path, jo: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    www = tmp_path / "www"
    www.mkdir()
    (www / "image1.qcow2").write_bytes(b"old")
    signed, message = sign_list(images(image(1, b"new!"), image(2, b"two")), jo, now=NOW)
    one, two = (each.sha512 for each in signed.images)
    good = {one: disk(tmp_path / "1", b"new!")}
    cases = [
        (good, Missing),
        ({**good, two: disk(tmp_path / "2", b"tw0")}, Untrusted),
    ]
    for disks, error in cases:
        copies, _ = plan_copies(signed, www / "site.list", disks)
        with pytest.raises(error):
            _tried(copies, message, www)
    monkeypatch.setattr("mayfly.images.room.shutil.disk_usage", lambda _: type("", (), {"free": 3}))
    copies, _ = plan_copies(signed, www / "site.list", {**good, two: disk(tmp_path / "2", b"two")})
    with pytest.raises(Quota):
        _tried(copies, message, www)
    monkeypatch.undo()
    assert [each.name for each in www.glob("[!.]*")] == ["image1.qcow2"]
    assert (www / "image1.qcow2").read_bytes() == b"old"
    assert debris(www) == []


def test_an_older_list_brings_no_older_images(tmp_path: Path, jo: Signer) -> None:
    www = tmp_path / "www"
    older, old_message = sign_list(images(image(1, b"old")), jo, now=NOW)
    _, new_message = sign_list(older, jo, now=NOW)
    publish(new_message, www / "site.list")
    copies, _ = plan_copies(
        older, www / "site.list", {older.images[0].sha512: disk(tmp_path / "1", b"old")}
    )
    with pytest.raises(Conflict):
        _tried(copies, old_message, www)
    assert not (www / "image1.qcow2").exists()
