"""The benches, as far as they take no more than seconds."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.integration
BENCH = Path(__file__).parents[2] / "scripts/bench"


ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="the host service runs as root")
WAYS_OF_HOT = [
    *("hot_vs_floor", "hot_vs_plain", "service_share_ms"),
    *("start_p50_s", "start_p95_s", "start_p99_s"),
]


def measured(name: str, group: str, home: Path, file: Path) -> dict[str, Any]:
    """Run a group of a bench, quickly; gives its figures."""
    words = [str(BENCH), name, "--quick", "--only", group, "--json", str(file)]
    env = {**os.environ, "MAYFLY_HOME": str(home)}
    done = subprocess.run(words, check=False, env=env, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    stored = json.loads(file.read_text())
    assert stored["bench"] == name
    for key, metric in stored["metrics"].items():
        assert key in done.stdout
        assert metric["value"] >= 0
    return dict(stored["metrics"])


def test_the_floor_and_a_run_can_be_measured(warm_home: Path, tmp_path: Path) -> None:
    found = measured("engine", "start", warm_home, tmp_path / "engine.json")
    assert found["start_vs_floor"]["value"] > 0


@ROOT
def test_a_hot_start_can_be_measured(warm_home: Path, tmp_path: Path) -> None:
    found = measured("host", "hot", warm_home, tmp_path / "host.json")
    assert sorted(found) == sorted(WAYS_OF_HOT)
    # The service was asked, and had a machine: else this would be about 1.
    assert 0 < found["hot_vs_plain"]["value"] < 0.9


@ROOT
def test_a_revert_can_be_measured(warm_home: Path, tmp_path: Path) -> None:
    found = measured("host", "revert", warm_home, tmp_path / "host.json")
    assert 0 < found["revert_s"]["value"] < 60


def test_lists_can_be_measured(warm_home: Path, tmp_path: Path) -> None:
    found = measured("images", "lists", warm_home, tmp_path / "images.json")
    assert sorted(found) == ["check_at_use_ms", "verify_list_1000_s"]


@ROOT
def test_a_swarm_can_be_measured(warm_home: Path, tmp_path: Path) -> None:
    found = measured("images", "swarm", warm_home, tmp_path / "images.json")
    # Four hosts; the source sent all of it once at least, and not to each of them.
    assert 1 <= found["swarm20_source_copies"]["value"] < 4
    assert not [name for name in os.listdir("/run/netns") if name.startswith("mayfly-swarm-")]
