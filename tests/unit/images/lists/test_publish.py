"""Drafts are kept until they are signed; what is published is whole and never goes back."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from mayfly.errors import Conflict, Invalid, Missing, Untrusted
from mayfly.images.lists.check import peek_list
from mayfly.images.lists.drafts import Drafts
from mayfly.images.lists.endorse import (
    publish,
    sign_list,
    with_image,
)
from mayfly.images.lists.files import write_whole
from mayfly.images.lists.openssl import Signer
from tests.unit.images.lists.pki import NOW
from tests.unit.images.lists.samples import listed
from tests.unit.images.lists.test_endorse import draft

# --- drafts and publishing -----------------------------------------------------------------------


def test_a_draft_is_kept_and_changed(tmp_path: Path, jo: Signer) -> None:
    drafts = Drafts(directory=tmp_path / "lists")
    drafts.create("site", draft(1))
    with pytest.raises(Conflict):
        drafts.create("site", draft(1))
    with drafts.change("site") as changing:
        changing.images, message = sign_list(with_image(changing.images, listed(2)), jo, now=NOW)
    assert drafts.names() == ["site"]
    assert drafts.read("site") == peek_list(message)
    assert drafts.signed_file("site") == tmp_path / "lists/site.signed"


def test_a_draft_stays_when_its_change_fails(tmp_path: Path) -> None:
    drafts = Drafts(directory=tmp_path / "lists")
    drafts.create("site", draft(1))
    with pytest.raises(Conflict), drafts.change("site") as changing:
        changing.images = with_image(changing.images, listed(1, version="0.1"))
    assert drafts.read("site") == draft(1) or drafts.read("site").images == draft(1).images


@pytest.mark.parametrize("name", ["../x", "", "A", ".x"])
def test_a_draft_has_a_plain_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(Invalid):
        Drafts(directory=tmp_path).read(name)


def test_a_draft_that_is_not_there_or_damaged_is_named(tmp_path: Path) -> None:
    drafts = Drafts(directory=tmp_path)
    with pytest.raises(Missing):
        drafts.read("site")
    (tmp_path / "site.json").write_text("{}")
    with pytest.raises(Untrusted, match=r"site\.json"):
        drafts.read("site")


def test_what_is_published_never_goes_back(tmp_path: Path, jo: Signer) -> None:
    place = tmp_path / "www" / "site.list"
    first, one = sign_list(draft(), jo, now=NOW)
    _, two = sign_list(first, jo, now=NOW)
    publish(one, place)
    publish(two, place)
    with pytest.raises(Conflict, match="has version"):
        publish(one, place)
    assert place.read_bytes() == two
    assert place.stat().st_mode & 0o777 == 0o644
    publish(two, place)


def test_another_list_does_not_take_its_place(tmp_path: Path, jo: Signer) -> None:
    place = tmp_path / "site.list"
    publish(sign_list(draft(), jo, now=NOW)[1], place)
    with pytest.raises(Conflict, match="another list"):
        publish(sign_list(draft(), jo, now=NOW)[1], place)


def test_nothing_but_a_list_is_published(tmp_path: Path) -> None:
    with pytest.raises(Invalid):
        publish(b"hello", tmp_path / "site.list")


def test_readers_see_a_whole_list_at_any_moment(tmp_path: Path, jo: Signer) -> None:
    place = tmp_path / "site.list"
    made, first = sign_list(draft(*range(1, 50)), jo, now=NOW)
    messages = [first, sign_list(made, jo, now=NOW)[1]]
    publish(first, place)
    reader = subprocess.Popen(
        ["sh", "-c", f"while [ ! -e {tmp_path}/end ]; do tail -n 2 {place}; done"],
        stdout=subprocess.PIPE,
    )
    for message in messages * 20:
        write_whole(place, message)
    (tmp_path / "end").touch()
    seen, _ = reader.communicate(timeout=60)
    endings = {line for line in seen.splitlines() if line}
    assert all(line.startswith(b"------") and line.endswith(b"--") for line in endings), endings
