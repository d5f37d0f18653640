"""The bench of the engine, as far as it takes no more than seconds."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration
BENCH = Path(__file__).parents[2] / "scripts/bench"


def test_the_floor_and_a_run_can_be_measured(warm_home: Path, tmp_path: Path) -> None:
    file = tmp_path / "engine.json"
    words = [str(BENCH), "engine", "--quick", "--only", "start", "--json", str(file)]
    env = {**os.environ, "MAYFLY_HOME": str(warm_home)}
    done = subprocess.run(words, check=False, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "start_vs_floor" in done.stdout
    stored = json.loads(file.read_text())
    assert stored["bench"] == "engine"
    assert stored["metrics"]["start_vs_floor"]["value"] > 0
