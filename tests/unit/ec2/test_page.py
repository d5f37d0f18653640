"""The page of the EC2 API says what the API does."""

from __future__ import annotations

import re
from pathlib import Path

from mayfly.ec2.actions import ACTIONS
from mayfly.ec2.fault import CODES
from mayfly.ec2.values import PHASE_CODES, PHASES

REPOSITORY = Path(__file__).parents[3]
PAGE = (REPOSITORY / "docs/reference/ec2.md").read_text()


def test_every_action_is_on_the_page() -> None:
    table = PAGE.partition("## Actions")[2].partition("Each takes")[0]
    named = set(
        re.findall(r"\b(?:[A-Z][a-z]+)(?:Instances?|Tags|KeyPairs?|Images|Regions)\b", table)
    )
    assert set(ACTIONS) >= named
    assert [action for action in ACTIONS if action not in table] == []


def test_every_code_is_on_the_page() -> None:
    sources = (REPOSITORY / "src/mayfly/ec2").glob("*.py")
    text = "".join(source.read_text() for source in sources)
    used = set(re.findall(r'Fault\(\s*"([A-Za-z.]+)"', text)) | {code for code, _ in CODES.values()}
    table = PAGE.partition("## Error codes")[2]
    assert [code for code in sorted(used) if f"`{code}`" not in table] == []


def test_every_state_is_on_the_page() -> None:
    table = PAGE.partition("## States")[2].partition("An instance that")[0]
    rows = [row.split("|") for row in table.splitlines() if row.startswith("| `")]
    told = {name: row[2].strip() for row in rows for name in re.findall("`(.*?)`", row[1])}
    assert told == {
        state.value: f"{phase.value} ({PHASE_CODES[phase]})" for state, phase in PHASES.items()
    }
