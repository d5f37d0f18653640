"""The page that says what attackers cannot do names tests: each is there."""

from __future__ import annotations

import re
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
PAGE = REPOSITORY / "docs/explanation/security.md"
DEFINED = re.compile(r"^ *(?:async )?def (test_\w+)\(", re.MULTILINE)


def test_every_claim_names_a_test_that_there_is() -> None:
    named = set(re.findall(r"`(test_\w+)`", PAGE.read_text("utf-8")))
    files = (REPOSITORY / "tests").rglob("test_*.py")
    there = {name for file in files for name in DEFINED.findall(file.read_text("utf-8"))}
    assert len(named) > 60
    assert named - there == set()


def test_every_row_that_denies_something_names_a_test() -> None:
    rows = [line for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| ")]
    claims = [row for row in rows if "Shown by" not in row]
    assert claims
    assert [row for row in claims if "`test_" not in row.rsplit("|", 2)[-2]] == []
