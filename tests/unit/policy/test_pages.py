"""What the page of policies says is what is read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mayfly.errors import Invalid
from mayfly.policy.model import Mode, OldImages, Revoked
from mayfly.policy.reader import parse_policy
from tests.unit.policy.samples import policy

PAGE = (Path(__file__).parents[3] / "docs/reference/policy.md").read_text()


def documented(section: str) -> set[str]:
    """Give the keys in the first table of a section."""
    part = PAGE.split(f"## `{section}`\n")[1].split("| key |")[1].split("\n\n")[0]
    return set(re.findall(r"^\| `([a-z_]+)` \|", part, re.MULTILINE))


@pytest.mark.parametrize(
    ("section", "start", "also"),
    [
        ("[policy]", "[policy]\n", {"allow", "deny", "default", "end_of_life"}),
        ("[[policy.allow]]", "[[policy.allow]]\nwho = ['*']\nimages = ['*']\n", set()),
        ("[[policy.deny]]", "[[policy.deny]]\nwho = ['*']\n", set()),
        ("[[policy.default]]", "[[policy.default]]\nwho = ['*']\nimage = 'x'\n", set()),
    ],
)
def test_every_key_has_a_line(section: str, start: str, also: set[str]) -> None:
    with pytest.raises(Invalid) as caught:
        policy(start + "no_such_key = 1\n")
    known = caught.value.hint.removeprefix("known: ").partition(";")[0].split(", ")
    assert set(known) == documented(section) | also


def test_every_choice_is_named() -> None:
    for choice in (*Mode, *OldImages, *Revoked):
        assert f"`{choice.value}`" in PAGE


def test_the_example_is_a_policy() -> None:
    text = PAGE.split("```toml\n")[1].split("```")[0]
    found = parse_policy(text, "example")
    assert (len(found.allow), len(found.deny), len(found.default)) == (2, 1, 1)
