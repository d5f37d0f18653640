"""People are meant by what they are, and only all of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mayfly.errors import Invalid
from mayfly.policy.people import Person, matches, parse_who
from tests.unit.policy.samples import ALICE, BOB

CASES = [
    ("*", True, True),
    ("user:alice", True, False),
    ("user:a*", True, False),
    ("user:*", True, True),
    ("user:?ob", False, True),
    ("group:physics", True, False),
    ("queue:short", True, False),
    ("queue:*", True, False),
    ("role:/cms/*", True, False),
    ("role:/cms/Role=production", True, False),
    ("group:physics & queue:short", True, False),
    ("group:physics&queue:long", False, False),
    ("group:physics & user:bob", False, False),
]


@pytest.mark.parametrize(("text", "alice", "bob"), CASES)
def test_people_are_meant(text: str, alice: bool, bob: bool) -> None:
    who = parse_who(text)
    assert (who.fits(ALICE), who.fits(BOB)) == (alice, bob)


@pytest.mark.parametrize(
    "text", ["", "alice", "users:alice", "user:", "user: ", "user:a & ", "* & user:a", "user:a\nb"]
)
def test_what_names_nobody_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        parse_who(text)


def test_narrower_is_a_user_before_a_role_before_a_group_before_a_queue() -> None:
    order = ["*", "queue:q", "group:g", "group:g & queue:q", "role:r", "user:u", "user:u & queue:q"]
    assert sorted(order, key=lambda text: parse_who(text).narrowness) == order


@given(st.text(max_size=10), st.text(max_size=10))
def test_a_pattern_without_signs_is_itself(pattern: str, name: str) -> None:
    if "*" not in pattern and "?" not in pattern:
        assert matches(pattern, name) == (pattern == name)
    assert matches("*", name)
    assert matches(pattern.replace("?", "*"), pattern)


def test_a_person_is_shown_by_all_names() -> None:
    assert str(ALICE) == "user alice, group physics, queue short, role /cms/Role=production"
    assert str(Person(user="x")) == "user x"
