"""Which images go when room is short, and which never do."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mayfly.errors import Denied, Missing, Quota
from mayfly.images.catalogue import Catalogue, keeping
from mayfly.images.catalogue.keeping import GRACE_S, Held, evict, held_images, make_room, to_evict
from mayfly.images.catalogue.record import Facts
from mayfly.images.catalogue.usage import last_used, mark_used
from mayfly.images.pull import PULLED
from mayfly.model import Image

NOW = 1_800_000_000.0
DAY = 86400.0


def held(name: str, days: float, **changes: object) -> Held:
    made = Held(name=name, size_bytes=100, used_at=NOW - days * DAY, pulled=True, pinned=False)
    return replace(made, **changes)  # type: ignore[arg-type]


def names(images: list[Held]) -> list[str]:
    return [each.name for each in images]


def test_the_least_recently_used_go_first_and_no_more_than_needed() -> None:
    images = [held("a", 1), held("b", 3), held("c", 2)]
    assert names(to_evict(images, now=NOW, most_bytes=150)) == ["b", "c"]
    assert names(to_evict(images, now=NOW, most_bytes=200)) == ["b"]
    assert names(to_evict(images, now=NOW, most_bytes=300)) == []
    assert names(to_evict(images, now=NOW, unused_s=1.5 * DAY)) == ["b", "c"]
    assert names(to_evict(images, now=NOW, most_bytes=0, unused_s=2.5 * DAY)) == ["b"]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"user": "machine m1"}, "in use: machine m1"),
        ({"pinned": True}, "pinned"),
        ({"pulled": False}, "made here"),
        ({"used_at": NOW - GRACE_S / 2}, "used just now"),
        ({"used_at": NOW + DAY}, "used just now"),
    ],
)
def test_some_never_go(changes: dict[str, object], why: str) -> None:
    image = held("a", 99, **changes)
    assert image.why_kept(NOW) == why
    assert to_evict([image], now=NOW, most_bytes=0) == []


@given(
    st.lists(
        st.builds(
            Held,
            name=st.text("abc", min_size=1, max_size=4),
            size_bytes=st.integers(0, 1000),
            used_at=st.floats(NOW - 1e6, NOW + 1e6),
            pulled=st.booleans(),
            pinned=st.booleans(),
            user=st.sampled_from(["", "machine x"]),
        ),
        max_size=8,
        unique_by=lambda each: each.name,
    ),
    st.none() | st.integers(0, 5000),
    st.floats(0, 1e6),
)
def test_whatever_there_is_nothing_goes_that_must_stay(
    images: list[Held], most: int | None, unused_s: float
) -> None:
    gone = to_evict(images, now=NOW, most_bytes=most, unused_s=unused_s)
    assert all(each.why_kept(NOW) == "" for each in gone)
    free = [each for each in images if each not in gone and each.why_kept(NOW) == ""]
    if most is None or sum(each.size_bytes for each in images if each not in gone) > most:
        assert all(NOW - each.used_at < unused_s for each in free)
    else:
        # Without the last one it would not have been enough.
        kept = sum(each.size_bytes for each in images if each not in gone)
        assert not gone or kept + gone[-1].size_bytes > most


# --- on disk -------------------------------------------------------------------------------------


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    made = Catalogue(own=tmp_path / "images", dirs=(tmp_path / "images",))
    for name, tags in (("built", ()), ("old", (PULLED,)), ("new", (PULLED,))):
        with made.draft(name, work="test") as draft:
            draft.disk.write_bytes(b"x" * 1000)
            draft.admit(Facts(os="x", source="a test", disk_bytes=1 << 20, tags=tags))
    age(made.find("old"), 50)
    age(made.find("new"), 20)
    return made


def age(image: Image, days: float) -> None:
    """Have an image be used last so many days ago."""
    at = time.time() - days * DAY
    os.utime(image.disk, (at, image.mtime_ns / 1e9))
    os.utime(image.disk, ns=(int(at * 1e9), image.mtime_ns))
    os.utime(image.disk.parent, (at, at))


def test_use_is_noted(catalogue: Catalogue) -> None:
    old = catalogue.find("old")
    assert time.time() - last_used(old) > 49 * DAY
    for _ in range(2):
        mark_used(old)
        assert time.time() - last_used(old) < 60
    assert catalogue.list()[0].name == "built"


def test_use_that_may_not_be_noted_is_seen_by_the_disk(catalogue: Catalogue) -> None:
    old = catalogue.find("old")
    (catalogue.own / ".use").write_text("no directory")
    mark_used(old)
    assert time.time() - last_used(old) > 49 * DAY
    os.utime(old.disk, ns=(time.time_ns(), old.mtime_ns))
    assert time.time() - last_used(old) < 60


def test_a_pin_holds_until_it_is_taken_or_the_image_is_removed(catalogue: Catalogue) -> None:
    keeping.pin(catalogue, "old")
    keeping.pin(catalogue, "old")
    assert [each.pinned for each in held_images(catalogue, {})] == [False, False, True]
    keeping.unpin(catalogue, "old")
    keeping.unpin(catalogue, "old")
    assert not any(each.pinned for each in held_images(catalogue, {}))
    keeping.pin(catalogue, "new")
    catalogue.remove("new")
    assert list((catalogue.own / ".pin").iterdir()) == []
    with pytest.raises(Missing):
        keeping.pin(catalogue, "new")


def test_the_image_of_the_site_is_not_ours_to_pin(catalogue: Catalogue, tmp_path: Path) -> None:
    user = Catalogue(own=tmp_path / "mine", dirs=(tmp_path / "mine", catalogue.own))
    for act in (keeping.pin, keeping.unpin):
        with pytest.raises(Denied):
            act(user, "old")
    assert held_images(user, {}) == []


def test_room_is_made_by_the_least_recently_used(catalogue: Catalogue) -> None:
    gone = make_room(catalogue, {}, quota_bytes=3500, wanted_bytes=1000)
    assert names(gone) == ["old"]
    assert [image.name for image in catalogue.list()] == ["built", "new"]


def test_what_is_in_use_or_pinned_is_no_room(catalogue: Catalogue) -> None:
    keeping.pin(catalogue, "new")
    users = {"old": "machine m1"}
    with pytest.raises(Quota, match=r"may take 2\.9 KiB here, 2\.9 KiB of that cannot go"):
        make_room(catalogue, users, quota_bytes=3000, wanted_bytes=500)
    assert len(catalogue.list()) == 3
    assert make_room(catalogue, users, quota_bytes=3500, wanted_bytes=500) == []


def test_one_that_is_being_worked_on_stays(catalogue: Catalogue) -> None:
    held = held_images(catalogue, {})
    with catalogue.draft("old", work="test", force=True):
        assert names(evict(catalogue, held[1:])) == ["new"]
    assert [image.name for image in catalogue.list()] == ["built", "old"]
