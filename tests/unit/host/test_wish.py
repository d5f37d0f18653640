"""What clients may ask for, and how."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mayfly.errors import Invalid
from mayfly.host.wish import LABEL_LENGTH, parse_wish, text_of
from mayfly.model import NetworkMode, Shape

PLAIN: dict[str, Any] = {"image": "debian-12", "cpus": 1, "memory_mib": 512}


def test_the_least_that_can_be_asked_for() -> None:
    wish = parse_wish(PLAIN)
    assert (wish.image, wish.shape) == ("debian-12", Shape(cpus=1, memory_mib=512))
    assert (wish.network, wish.allow, wish.shares) == (NetworkMode.NONE, (), ())
    assert (wish.wait, wish.outlive, wish.life_s, wish.disk_mib) == (True, False, None, None)
    assert (wish.label, wish.job) == ("", "")


def test_everything_that_can_be_asked_for() -> None:
    wish = parse_wish(
        {
            **PLAIN,
            "network": "restricted",
            "allow": ["example.org:443"],
            "shares": [{"path": "/data", "read_only": True}, {"path": "/work"}],
            "wait": False,
            "life_s": 60,
            "disk_mib": 4096,
            "label": "make test",
            "job": "site/1/0",
            "unknown": "ignored",
        }
    )
    assert (wish.network, wish.allow) == (NetworkMode.RESTRICTED, ("example.org:443",))
    assert wish.shares == (("/data", True), ("/work", False))
    assert (wish.wait, wish.life_s, wish.disk_mib) == (False, 60.0, 4096)
    assert (wish.label, wish.job) == ("make test", "site/1/0")


def test_a_job_may_have_what_it_was_granted() -> None:
    assert parse_wish({"image": "debian-12", "job": "site/1/0"}).shape is None
    assert parse_wish({**PLAIN, "job": "site/1/0"}).shape == Shape(cpus=1, memory_mib=512)
    with pytest.raises(Invalid, match="'cpus'"):
        parse_wish({"image": "debian-12"})
    with pytest.raises(Invalid, match="'memory_mib'"):
        parse_wish({"image": "debian-12", "job": "site/1/0", "cpus": 1})


WRONG: list[tuple[str, list[Any]]] = [
    ("image", [None, "", 7, "x" * 201, "a\0b", ["debian-12"]]),
    ("cpus", [None, 0, 256, 1.0, "1", True, -1]),
    ("memory_mib", [None, 63, 1 << 25, "512", 512.0, True]),
    ("network", ["wide", 7, None, ["open"], {}]),
    ("allow", ["example.org:443", [7], [None], ["x" * 5000], ["x"] * 300, ["y" * 4000] * 5]),
    ("shares", ["/data", ["/data"], [{}], [{"path": "data"}], [{"path": "/d", "read_only": 1}]]),
    ("wait", [1, "yes", None]),
    ("outlive", [0, "no", None]),
    ("life_s", [0, -1, "8h", True, float("nan"), float("inf"), 1e12]),
    ("disk_mib", [0, -5, "1G", True, 1.5, 1 << 40]),
    ("label", [7, ["x"], {"a": 1}]),
    ("job", [7, "x" * 201, "a\0b", ["site/1/0"]]),
]


@pytest.mark.parametrize(
    ("key", "value"), [(key, value) for key, values in WRONG for value in values], ids=repr
)
def test_what_is_wrong_is_named(key: str, value: object) -> None:
    with pytest.raises(Invalid) as caught:
        parse_wish({**PLAIN, key: value})
    names = {"shares": "shares|path|read_only"}.get(key, key)
    assert any(f"'{name}'" in caught.value.message for name in names.split("|"))


def test_who_stays_shares_nothing() -> None:
    with pytest.raises(Invalid, match="cannot have shares"):
        parse_wish({**PLAIN, "outlive": True, "shares": [{"path": "/data"}]})


def test_a_long_label_is_cut() -> None:
    assert len(parse_wish({**PLAIN, "label": "x" * 5000}).label) == LABEL_LENGTH


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=8,
)


@given(message=st.dictionaries(st.sampled_from([key for key, _ in WRONG]), values))
def test_anything_is_read_or_refused(message: dict[str, Any]) -> None:
    with contextlib.suppress(Invalid):
        assert parse_wish(message).image == message["image"]


def test_a_text_must_be_there() -> None:
    assert text_of({"machine": "a2b3c4d5"}, "machine") == "a2b3c4d5"
    for wrong in ({}, {"machine": 7}, {"machine": ""}, {"machine": "x" * 201}):
        with pytest.raises(Invalid, match="'machine'"):
            text_of(wrong, "machine")
