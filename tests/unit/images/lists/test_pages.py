"""What the page of image lists says is what is checked."""

from __future__ import annotations

from pathlib import Path

import pytest

from mayfly.images.lists import keys
from mayfly.images.lists.rules import Rule

PAGE = (Path(__file__).parents[4] / "docs/reference/image-lists.md").read_text()


@pytest.mark.parametrize("rule", Rule)
def test_every_rule_has_a_line(rule: Rule) -> None:
    assert f"\n| `{rule.value}` | " in PAGE


@pytest.mark.parametrize(
    "key",
    sorted(
        {
            *keys.LIST_REQUIRED,
            *keys.IMAGE_REQUIRED,
            *keys.ENDORSER_REQUIRED,
            keys.FORMAT,
            keys.ENDORSEMENT,
            keys.REVOKED,
        }
    ),
)
def test_every_key_is_named(key: str) -> None:
    assert f"`{key}`" in PAGE or f'"{key}"' in PAGE
