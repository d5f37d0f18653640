"""A decision is told in words, with the lines; and what cannot be meant is found."""

from __future__ import annotations

import pytest

from mayfly.errors import Denied
from mayfly.model import NetworkMode
from mayfly.policy.explain import advise, denied, explain
from mayfly.policy.model import Ask, Wish
from mayfly.policy.reader import read_policy
from tests.unit.policy.samples import ALICE, answer, image, policy, wanting

TEXT = """\
[policy]

[[policy.allow]]
who = ["group:physics"]
images = ["el*"]
networks = ["open"]

[[policy.default]]
who = ["queue:short"]
image = "el9"
"""


def told(wish: Wish, text: str = TEXT) -> str:
    return explain(ALICE, wish, answer(text, wish))


def test_what_is_allowed_is_told_with_its_lines() -> None:
    assert told(wanting("el9", NetworkMode.OPEN)) == (
        "user alice, group physics, queue short, role /cms/Role=production\n"
        "asks for image el9, network open\n"
        "allowed: image el9, network open\n"
        "  policy.toml:8  image el9 is asked for\n"
        "  policy.toml:3  image el9 is allowed"
    )


def test_what_a_job_gets_that_asks_for_nothing_is_told() -> None:
    text = told(Wish())
    assert "asks for nothing in particular\nallowed: image el9, network none\n" in text
    assert "policy.toml:8  el9 is the default for these jobs" in text


def test_what_is_denied_is_told() -> None:
    assert told(image("mine")).split("\n")[2:] == [
        "denied",
        "  policy.toml:8  image mine is asked for",
        f"  policy.toml:1  no rule allows images of users for {ALICE}",
    ]


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        (Wish(ask=Ask.NATIVE), "asks for no machine\nruns without a machine"),
        (Wish(ask=Ask.MACHINE, root=True, shares=True), "a machine, root, directories of the host"),
    ],
)
def test_every_kind_of_wish_is_told(wish: Wish, words: str) -> None:
    assert words in told(wish)


def test_what_is_given_is_told_in_full() -> None:
    wish = image("el9", root=True, shares=True)
    text = explain(ALICE, wish, answer(TEXT.replace("networks", "root = true\nnetworks"), wish))
    assert "allowed: image el9, network none, root, directories of the host" in text


def test_the_error_names_the_line() -> None:
    error = denied(answer(TEXT, image("mine")))
    assert isinstance(error, Denied)
    assert "policy.toml:1: no rule allows images of users" in error.message
    assert "mayfly policy explain" in error.hint


def advice(text: str) -> list[str]:
    return [str(each) for each in advise(policy(text))]


def test_a_sound_policy_gets_no_advice() -> None:
    assert advice(TEXT) == []
    assert advise(read_policy(None)) == []


def test_a_default_that_nobody_may_run_is_found() -> None:
    text = TEXT + 'canary = "next"\ncanary_share = 5\n'
    assert advice(text) == [
        "policy.toml:8: no [[policy.allow]] is for image next: every such job is denied"
    ]


def test_a_denial_of_everything_is_found() -> None:
    assert "denies everything" in advice(TEXT + "[[policy.deny]]\nwho = ['*']\n")[0]
    assert advice(TEXT + "[[policy.deny]]\nwho = ['*']\nlists = ['x']\n") == []


@pytest.mark.parametrize("more", ["networks = ['open']", "shares = true"])
def test_much_freedom_for_images_that_users_bring_is_found(more: str) -> None:
    rule = "[[policy.allow]]\nwho = ['*']\nimages = ['*']\nuser_images = true\n"
    assert "users bring along" in advice(rule + more)[0]
    assert advice(rule) == []
