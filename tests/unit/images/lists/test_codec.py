"""Values come back from JSON as they were, or not at all."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mayfly.images.lists.codec import Damaged, build, plain
from mayfly.images.lists.model import ImageList
from mayfly.images.lists.subscriptions import Subscription
from tests.unit.images.lists.pki import NOW
from tests.unit.images.lists.test_reader_any import lists


class Colour(StrEnum):
    RED = "red"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    weight: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Thing:
    name: str
    colour: Colour
    size: int = 1
    ready: bool = False
    made_at: datetime | None = None
    parts: tuple[Part, ...] = ()


def test_a_value_comes_back() -> None:
    thing = Thing(name="a", colour=Colour.RED, made_at=NOW, parts=(Part(weight=2),))
    assert build(Thing, json.loads(json.dumps(plain(thing)))) == thing


@given(lists)
@settings(max_examples=40)
def test_any_list_comes_back(images: ImageList) -> None:
    assert build(ImageList, json.loads(json.dumps(plain(images)))) == images


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        {"name": "a"},
        {"name": 1, "colour": "red"},
        {"name": "a", "colour": "blue"},
        {"name": "a", "colour": "red", "size": True},
        {"name": "a", "colour": "red", "size": "1"},
        {"name": "a", "colour": "red", "ready": 1},
        {"name": "a", "colour": "red", "made_at": "soon"},
        {"name": "a", "colour": "red", "parts": {}},
        {"name": "a", "colour": "red", "parts": [1]},
    ],
)
def test_what_is_no_such_value_is_refused(value: object) -> None:
    with pytest.raises(Damaged):
        build(Thing, value)


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["accepted", "url", "images", "x"]), inner, max_size=3),
    ),
)


@given(json_values)
@settings(max_examples=40)
def test_any_json_is_refused(value: object) -> None:
    with pytest.raises(Damaged):
        build(Subscription, value)
