"""What nothing allows is denied, order decides nothing, and every decision names its line."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import pytest

from mayfly.model import NetworkMode
from mayfly.policy.decide import decide
from mayfly.policy.ends import KNOWN, end_of
from mayfly.policy.model import ImageFacts, Limits, Line, Origin, Trust, Wish
from tests.unit.policy.samples import (
    ALICE,
    BOB,
    FILE,
    IMAGES,
    NOW,
    answer,
    image,
    policy,
    wanting,
    why,
)

NONE, RESTRICTED, OPEN = NetworkMode

EL9 = "[[policy.allow]]\nwho = ['group:physics']\nimages = ['el9']\n"


def test_what_a_rule_allows_is_allowed_and_nothing_else_is() -> None:
    assert answer(EL9, image("el9")).allowed
    assert not answer(EL9, image("el9"), BOB).allowed
    assert not answer(EL9, image("el7")).allowed
    assert not answer(EL9, image("el9-next")).allowed
    assert not answer(EL9, image("nothing")).allowed
    assert not answer("", image("el9")).allowed


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        (wanting("el9", OPEN), "with network open"),
        (wanting("el9", RESTRICTED), "with network restricted"),
        (image("el9", root=True), "with root"),
    ],
)
def test_what_a_rule_does_not_say_is_not_given(wish: Wish, words: str) -> None:
    assert why(EL9, wish) == f"{FILE}:1: image el9 is allowed here, but not {words}"
    more = EL9 + "networks = ['restricted', 'open']\nroot = true\n"
    found = answer(more, wish)
    assert found.allowed
    assert (found.network, found.root) == (wish.network, wish.root)


def test_a_network_that_nobody_asked_for_is_left_out_with_a_reason() -> None:
    found = answer(EL9, wanting("el9", OPEN, asked=False))
    assert found.allowed
    assert found.network is NONE
    assert "network open is not allowed" in str(found.reasons[-2])


def test_directories_of_the_host_can_be_kept_out() -> None:
    assert answer(EL9, image("el9", shares=True)).shares
    assert not answer(EL9 + "shares = false\n", image("el9", shares=True)).allowed
    assert answer(EL9 + "shares = false\n", image("el9")).allowed


@pytest.mark.parametrize(
    ("limit", "wish", "words"),
    [
        ("cpus = 2", image("el9", cpus=3), "with 3 CPUs: 2 at most"),
        ("memory = '1G'", image("el9", memory_mib=1025), "of memory: 1.0 GiB at most"),
        ("time = '1h'", image("el9", time_s=3601), "1h at most"),
        ("machines = 2", image("el9", machines=2), "more than 2 machines"),
    ],
)
def test_limits_hold(limit: str, wish: Wish, words: str) -> None:
    assert words in why(EL9 + limit, wish)
    within = replace(wish, cpus=2, memory_mib=1024, time_s=3600, machines=1)
    assert answer(EL9 + limit, within).allowed
    assert answer(EL9, wish).allowed


def test_one_rule_must_allow_the_whole_wish() -> None:
    text = EL9 + "root = true\n" + EL9 + "networks = ['open']\n"
    assert answer(text, image("el9", root=True)).allowed
    assert answer(text, wanting("el9", OPEN)).allowed
    assert not answer(text, replace(wanting("el9", OPEN), root=True)).allowed


def test_of_several_rules_the_one_that_gives_the_most_is_taken() -> None:
    few, many = EL9 + "machines = 2\n", EL9 + "machines = 9\nnetworks = ['open']\n"
    for text in (few + many, many + few):
        found = answer(text, wanting("el9", OPEN, asked=False))
        assert (found.network, found.limits) == (OPEN, Limits(machines=9))


def test_a_denial_comes_before_every_permission() -> None:
    deny = "[[policy.deny]]\nwho = ['user:alice']\nimages = ['el9*']\nwhy = 'she left'\n"
    for text in (deny + EL9, EL9 + deny):
        assert not answer(text, image("el9")).allowed
        assert why(text, image("el9")).endswith("image el9 is denied: she left")
    assert answer(EL9 + deny.replace("alice", "bob"), image("el9")).allowed


def test_a_rule_can_ask_for_a_list_or_an_endorser() -> None:
    by_list = "[[policy.allow]]\nwho = ['*']\nimages = ['*']\nlists = ['Site *']\n"
    assert answer(by_list, image("el7")).allowed
    assert not answer(by_list, image("el9")).allowed
    by_name = "[[policy.allow]]\nwho = ['*']\nimages = ['*']\nendorsers = ['/C=DE/*']\n"
    assert answer(by_name, image("el9")).allowed
    assert not answer(by_name, image("el7")).allowed


# --- trust ---------------------------------------------------------------------------------------

ALL = "[[policy.allow]]\nwho = ['*']\nimages = ['*']\n"


def test_an_image_needs_a_list_unless_the_site_says_otherwise() -> None:
    assert 'endorsed = "required"' in why(ALL, image("plain"))
    assert why('[policy]\nendorsed = "required"\n' + ALL, image("plain")).startswith(f"{FILE}:2:")
    assert answer('[policy]\nendorsed = "optional"\n' + ALL, image("plain")).allowed


def test_an_image_that_was_taken_back_is_denied_whatever_the_site_says() -> None:
    text = '[policy]\nendorsed = "optional"\n' + ALL
    assert "revoked: a hole" in why(text, image("stolen"))
    own = replace(IMAGES["stolen"], origin=Origin.USER)
    users = ALL + "user_images = true\n"
    assert not decide(policy(users), ALICE, image("x"), {"x": own}, NOW).allowed


def test_images_that_users_bring_are_denied_unless_a_rule_is_for_them() -> None:
    assert "no rule allows images of users" in why(ALL, image("mine"))
    users = ALL + "user_images = true\n"
    assert answer(users, image("mine")).allowed
    assert not answer(users, image("el9")).allowed


def test_images_that_users_bring_get_no_network_and_no_directories_unless_that_is_said() -> None:
    users = ALL + "user_images = true\n"
    assert not answer(users, wanting("mine", OPEN)).allowed
    assert answer(users, wanting("mine", OPEN, asked=False)).network is NONE
    assert not answer(users, image("mine", shares=True)).allowed
    more = users + "networks = ['open']\nshares = true\n"
    found = answer(more, replace(wanting("mine", OPEN), shares=True))
    assert (found.allowed, found.network, found.shares) == (True, OPEN, True)


# --- end of life ---------------------------------------------------------------------------------

NET = ALL + "networks = ['open']\n"


def test_an_old_image_loses_its_network() -> None:
    assert answer(NET, wanting("el9", OPEN)).network is OPEN
    assert not answer(NET, wanting("el7", OPEN)).allowed
    found = answer(NET, wanting("el7", OPEN, asked=False))
    assert (found.allowed, found.network) == (True, NONE)
    assert "past its end of life (2024-06-30)" in str(found.reasons[-2])
    assert answer(NET, image("el7")).allowed


def test_a_rule_can_let_old_images_be_or_deny_them() -> None:
    usual = NET + "end_of_life = 'as-usual'\n"
    assert answer(usual, wanting("el7", OPEN)).network is OPEN
    strict = NET + "end_of_life = 'deny'\n"
    assert "past its end of life" in why(strict, image("el7"))
    assert answer(strict, image("el9")).allowed


def test_the_sites_own_days_come_first_and_name_their_line() -> None:
    text = NET + "[policy.end_of_life]\n'el9' = 2020-01-01\n'centos *' = 'never'\n"
    assert answer(text, wanting("el7", OPEN)).network is OPEN
    found = answer(text, wanting("el9", OPEN, asked=False))
    assert found.network is NONE
    assert str(found.reasons[-2]).startswith(f"{FILE}:6:")


@pytest.mark.parametrize(
    ("os", "told", "ends_on"),
    [
        ("centos 7", None, date(2024, 6, 30)),
        ("CentOS 7.9", None, date(2024, 6, 30)),
        ("centos 70", None, None),
        ("debian 1", None, None),
        ("ubuntu 14.04", None, date(2019, 4, 25)),
        ("unknown", None, None),
        ("", None, None),
        ("centos 7", date(2030, 1, 1), date(2030, 1, 1)),
    ],
)
def test_the_end_of_an_image_is_known(os: str, told: date | None, ends_on: date | None) -> None:
    facts = ImageFacts(name="x", os=os, end_of_life=told)
    found = end_of(facts, (), Line(file=FILE, number=1))
    assert (found.ends_on if found else None) == ends_on


def test_the_day_itself_is_still_good() -> None:
    last = {"x": ImageFacts(name="x", trust=Trust.TRUSTED, end_of_life=NOW.date())}
    assert decide(policy(NET), ALICE, wanting("x", OPEN), last, NOW).allowed


def test_all_days_are_days() -> None:
    assert all(date.fromisoformat(day) for day in KNOWN.values())
