"""Hosts on which Mayfly is sick, as Slurm shows them."""

from __future__ import annotations

from pathlib import Path

import pytest

from mayfly.batch.settings import BatchSettings
from mayfly.batch.slurm.health import parse_node, trouble_of


@pytest.mark.parametrize(
    ("text", "drained", "reason"),
    [
        ("NodeName=n1 State=IDLE CPUs=2\n", False, ""),
        ("NodeName=n1 State=IDLE+DRAIN Reason=mayfly: no room [root@now]\n", True, "mayfly: no"),
        ("NodeName=n1 State=MIXED+DRAIN Reason=a fan\n", True, "a fan"),
        ("", False, ""),
        ("State", False, ""),
    ],
)
def test_what_slurm_shows_of_a_node(text: str, drained: bool, reason: str) -> None:
    found = parse_node(text)
    assert found[0] is drained
    assert found[1].startswith(reason)


def test_a_host_without_a_service_is_sick(tmp_path: Path) -> None:
    assert "no host service listens" in trouble_of(BatchSettings(socket=tmp_path / "none"))
