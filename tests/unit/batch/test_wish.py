"""What a user asks for with a job."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mayfly.batch.wish import OPTIONS, Wish, parse_wish
from mayfly.errors import Invalid
from mayfly.model import NetworkMode
from mayfly.policy.model import Ask


@pytest.mark.parametrize(
    ("text", "ask", "image"),
    [
        ("", Ask.NOTHING, ""),
        ("none", Ask.NATIVE, ""),
        ("default", Ask.MACHINE, ""),
        ("el9", Ask.IMAGE, "el9"),
        ("el9@2026.1", Ask.IMAGE, "el9@2026.1"),
    ],
)
def test_the_image_says_what_is_wanted(text: str, ask: Ask, image: str) -> None:
    wish = parse_wish({"image": text})
    assert (wish.ask, wish.image) == (ask, image)


def test_all_of_the_options() -> None:
    values = {
        "image": "el9",
        "network": "restricted",
        "allow": "example.org:443,example.net:80",
        "root": "yes",
        "share": "/data:ro,/scratch/me",
        "keep": "",
    }
    assert values.keys() == OPTIONS.keys()
    assert parse_wish(values) == Wish(
        ask=Ask.IMAGE,
        image="el9",
        network=NetworkMode.RESTRICTED,
        allow=("example.org:443", "example.net:80"),
        root=True,
        shares=("/data:ro", "/scratch/me"),
        keep=True,
    )


@pytest.mark.parametrize(
    "values",
    [
        {"image": "../etc"},
        {"image": "-x"},
        {"image": "a b"},
        {"image": "el9\n"},
        {"image": "x" * 5000},
        {"network": "wide"},
        {"allow": "example.org:443"},
        {"root": "perhaps"},
        {"share": "data"},
        {"share": "/a/../b"},
        {"share": ",".join(["/a"] * 40)},
        {"colour": "red"},
    ],
)
def test_nonsense_is_refused(values: dict[str, str]) -> None:
    with pytest.raises(Invalid):
        parse_wish(values)


@given(st.dictionaries(st.sampled_from([*OPTIONS, "x"]), st.text(max_size=30)))
def test_whatever_is_written_is_read_or_refused(values: dict[str, str]) -> None:
    try:
        wish = parse_wish(values)
    except Invalid:
        return
    assert (wish.ask is Ask.IMAGE) == bool(wish.image)
