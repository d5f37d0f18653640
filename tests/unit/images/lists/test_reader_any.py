"""Any list that is written is read back, and any text is read or refused."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mayfly.errors import Invalid
from mayfly.images.lists import keys
from mayfly.images.lists.model import (
    Endorser,
    ImageList,
    ListedImage,
    Revocation,
)
from mayfly.images.lists.reader import parse_image, parse_list
from mayfly.images.lists.rules import Refused, Rule
from mayfly.images.lists.writer import check_complete, render_image, render_list
from tests.unit.images.lists.pki import NOW
from tests.unit.images.lists.samples import image_list, listed, table_of

# --- written and read again ----------------------------------------------------------------------

FIRST, LAST = (datetime.fromisoformat(day) for day in ("1970-01-01", "9999-12-31"))
words = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S"]), min_size=1).map(
    lambda text: text[:50]
)
uuids = st.uuids().map(str)
moments = st.datetimes(min_value=FIRST, max_value=LAST, timezones=st.just(UTC)).map(
    lambda moment: moment.replace(microsecond=0)
)
tags = st.text("0123456789.-abc", min_size=1, max_size=20)
digests = st.text("0123456789abcdef", min_size=128, max_size=128)
extras = st.dictionaries(
    st.text(min_size=1, max_size=9).map(lambda key: f"ad:{key}"),
    st.one_of(st.text(max_size=9), st.integers(), st.booleans(), st.none()),
    max_size=3,
)
images = st.builds(
    ListedImage,
    identifier=uuids,
    version=tags,
    title=words,
    sha512=digests,
    size_bytes=st.integers(1, 1 << 44),
    uri=st.just("https://images.example.org/x"),
    arch=words,
    hypervisor=words,
    os=words,
    os_version=words,
    description=st.text("abc \n", max_size=9),
    comments=words,
    format=st.one_of(st.just(""), words),
    expires_at=st.one_of(st.none(), moments),
    endorsement=st.text("abcd", max_size=9),
    extra=extras,
)
revocations = st.builds(
    Revocation, identifier=uuids, version=tags, sha512=digests, reason=words, revoked_at=moments
)
lists = st.builds(
    ImageList,
    identifier=uuids,
    version=tags,
    title=words,
    description=words,
    source=words,
    uri=words,
    created_at=moments,
    expires_at=moments,
    endorser=st.builds(Endorser, dn=words, ca=words, email=words, creator=words, extra=extras),
    images=st.lists(images, max_size=4, unique_by=lambda image: image.identifier).map(tuple),
    revoked=st.lists(revocations, max_size=2).map(tuple),
    wrapped=st.booleans(),
    extra=extras,
)


@given(lists)
@settings(max_examples=40)
def test_what_is_written_is_read_back(made: ImageList) -> None:
    text = render_list(made)
    assert text.isascii()
    assert parse_list(text) == made
    assert parse_list(text.replace(b"\n", b"\r\n")) == made


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=9), inner, max_size=3)
    ),
    max_leaves=5,
)
places = st.sampled_from(
    [
        (part, key)
        for part, names in (
            ("list", keys.LIST_REQUIRED | {keys.REVOKED}),
            ("image", keys.IMAGE_REQUIRED | {keys.FORMAT, keys.EXPIRES, keys.ENDORSEMENT}),
            ("endorser", keys.ENDORSER_REQUIRED),
        )
        for key in sorted(names)
    ]
)


def read_or_refused(text: bytes) -> ImageList | None:
    """Any other end than these two is a fault of the reader's."""
    try:
        return parse_list(text)
    except Refused as refused:
        if refused.refusal.rule not in (Rule.FORMAT, Rule.SIZE):
            raise
    return None


@given(places, json_values)
@settings(max_examples=40)
def test_any_value_anywhere_is_read_or_refused(place: tuple[str, str], value: object) -> None:
    table = table_of(image_list(listed(1), listed(2)))
    top = table[keys.WRAPPER]
    parts = {
        "list": top,
        "image": top[keys.IMAGES][0][keys.IMAGE],
        "endorser": top[keys.ENDORSER][keys.X509],
    }
    part, key = place
    parts[part][key] = value
    found = read_or_refused(json.dumps(table).encode())
    if found is None:
        return
    # Whatever was taken can be written, and means the same then.
    assert parse_list(render_list(found)) == replace(found, faults=())


@given(st.integers(0), st.binary(max_size=4), st.integers(0, 6))
def test_a_damaged_text_is_read_or_refused(place: int, put_in: bytes, cut: int) -> None:
    text = render_list(image_list(listed(1), listed(2)))
    at = place % len(text)
    found = read_or_refused(text[:at] + put_in + text[at + cut :])
    assert found is None or len(found.images) + len(found.faults) == 2


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with pytest.raises(Refused):
        parse_list(data)


# --- what is published ---------------------------------------------------------------------------


def test_a_complete_list_may_be_published() -> None:
    assert check_complete(image_list()) is None  # type: ignore[func-returns-value]  # it raises


@pytest.mark.parametrize(
    "lacking",
    [
        replace(image_list(), description=""),
        image_list(listed(comments="")),
        image_list(listed(description="")),
        replace(image_list(), endorser=Endorser(dn="/CN=x", ca="/CN=y", creator="x")),
    ],
)
def test_a_list_with_something_empty_may_not(lacking: ImageList) -> None:
    with pytest.raises(Invalid, match="has no"):
        check_complete(lacking)


def test_an_endorsement_is_read_back() -> None:
    endorser = image_list().endorser
    image = listed(expires_at=NOW + timedelta(days=1))
    assert parse_image(render_image(image, endorser)) == (image, endorser)


@pytest.mark.parametrize("text", [b"{}", b'{"hv:image": {}, "hv:endorser": {}}', b"[]"])
def test_what_is_no_endorsement_is_refused(text: bytes) -> None:
    with pytest.raises(Refused):
        parse_image(text)
