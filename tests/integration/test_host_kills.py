"""Fifty parts of a loaded service are killed at random moments: nothing is lost or left behind."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import pytest

from soak.main import main
from soak.service import qemus

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(os.geteuid() != 0, reason="the host service runs as root"),
]

KILLS = 50
MINUTES = 1.7


def test_nothing_is_lost_or_left_behind(
    warm_home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Printed with the failure, so that the same run can be had again.
    seed = secrets.randbits(32)
    words = ["--kills", str(KILLS), "--minutes", str(MINUTES), "--seed", str(seed)]
    code = main([*words, "--home", str(warm_home), "--out", str(tmp_path / "out")])
    told = capsys.readouterr().out
    assert code == 0, told
    assert f"seed {seed}: {KILLS} kills" in told
    assert "nothing was lost, left behind" in told
    assert (tmp_path / "out/soak.svg").read_text().count("<polyline") == 3
    assert qemus() == []
