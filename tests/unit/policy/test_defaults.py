"""What a job gets that names no image."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mayfly.policy.decide import decide
from mayfly.policy.defaults import in_canary
from mayfly.policy.model import Ask, Wish
from mayfly.policy.people import Person
from tests.unit.policy.samples import (
    ALICE,
    FILE,
    IMAGES,
    NOW,
    answer,
    image,
    policy,
    why,
)

ALL = "[[policy.allow]]\nwho = ['*']\nimages = ['*']\n"


# --- defaults ------------------------------------------------------------------------------------


def default(who: str, name: str = "", mode: str = "default", more: str = "") -> str:
    named = f"image = '{name}'\n" if name else ""
    return f"[[policy.default]]\nwho = ['{who}']\nmode = '{mode}'\n{named}{more}"


NOTHING, MACHINE, NATIVE = (
    Wish(ask=Ask.NOTHING),
    Wish(ask=Ask.MACHINE),
    Wish(ask=Ask.NATIVE),
)
MODES = [
    # mode, what is asked: what image comes of it; "" runs without a machine, None is denied
    ("offer", NOTHING, ""),
    ("offer", MACHINE, "el9"),
    ("offer", NATIVE, ""),
    ("offer", image("el7"), "el7"),
    ("default", NOTHING, "el9"),
    ("default", MACHINE, "el9"),
    ("default", NATIVE, ""),
    ("default", image("el7"), "el7"),
    ("force", NOTHING, "el9"),
    ("force", MACHINE, "el9"),
    ("force", NATIVE, None),
    ("force", image("el7"), None),
    ("force", image("el9"), "el9"),
    ("off", NOTHING, ""),
    ("off", MACHINE, None),
    ("off", NATIVE, ""),
    ("off", image("el9"), None),
]


@pytest.mark.parametrize(("mode", "wish", "expected"), MODES)
def test_each_mode_means_what_it_says(mode: str, wish: Wish, expected: str | None) -> None:
    text = ALL + default("queue:short", "" if mode == "off" else "el9", mode)
    found = answer(text, wish)
    assert (found.image if found.allowed else None) == expected
    if mode != "off" and wish.ask is not Ask.IMAGE:
        assert str(found.reasons[0]).startswith(f"{FILE}:4:")


@pytest.mark.parametrize(
    ("wish", "allowed"), [(NOTHING, True), (NATIVE, True), (MACHINE, False), (image("el9"), True)]
)
def test_without_a_default_only_what_is_asked_for_happens(wish: Wish, allowed: bool) -> None:
    found = answer(ALL, wish)
    assert found.allowed is allowed
    assert found.image == wish.image


def test_the_narrowest_default_counts_wherever_it_stands() -> None:
    parts = [
        default("*", "el7"),
        default("queue:short", "el9"),
        default("group:physics", "el9-next"),
        default("user:bob", "plain"),
    ]
    for text in (ALL + "".join(parts), ALL + "".join(reversed(parts))):
        assert answer(text, NOTHING).image == "el9-next"
        assert answer(text, NOTHING, Person(user="x")).image == "el7"


def test_nobody_gets_out_of_what_is_forced() -> None:
    text = ALL + default("queue:short", "el7", "force") + default("user:alice", mode="off")
    assert answer(text, NOTHING).image == "el7"


def test_a_default_is_no_permission() -> None:
    text = default("*", "el9")
    assert why(text, NOTHING) == f"{FILE}:1: no rule allows image el9 for {ALICE}"


CANARY = default("*", "el9", more="canary = 'el9-next'\ncanary_share = {}\n")


def test_a_share_of_the_users_gets_the_newer_image() -> None:
    text = ALL + CANARY.format(10)
    people = [Person(user=f"user{number}") for number in range(1000)]
    given = [answer(text, NOTHING, person).image for person in people]
    assert given == [answer(text, NOTHING, person).image for person in people]
    assert 70 <= given.count("el9-next") <= 130
    assert given.count("el9") + given.count("el9-next") == 1000


@given(st.text(max_size=9), st.integers(1, 100), st.integers(1, 100))
def test_a_larger_share_keeps_those_who_had_it(user: str, one: int, other: int) -> None:
    few, many = sorted((one, other))
    assert in_canary(user, "x", few) <= in_canary(user, "x", many)
    assert in_canary(user, "x", 100)


def test_where_the_newer_image_is_not_here_the_older_one_is_taken() -> None:
    text = ALL + CANARY.format(100)
    here = {"el9": IMAGES["el9"]}
    found = decide(policy(text), ALICE, NOTHING, here, NOW)
    assert (found.allowed, found.image) == (True, "el9")
    assert "el9-next is not here" in str(found.reasons[1])


def test_a_forced_user_may_name_either_image() -> None:
    text = ALL + CANARY.replace("'default'", "'force'").format(1)
    assert answer(text, image("el9-next")).allowed
    assert answer(text, image("el9")).allowed
