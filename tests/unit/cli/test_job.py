"""``mayfly job`` where there is no batch system, and for nonsense."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from mayfly.cli.job import job
from mayfly.errors import Invalid, Missing


@pytest.fixture(autouse=True)
def _nothing_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("MAYFLY_HOST_SOCKET", "none")


def test_a_job_that_nobody_knows() -> None:
    failed = CliRunner().invoke(job, ["show", "17"]).exception
    assert isinstance(failed, Missing)
    assert "no batch system here knows a job '17'" in failed.message


@pytest.mark.parametrize("number", ["", "../x", "a b", "1;2", "9" * 100])
def test_what_is_no_job_is_refused(number: str) -> None:
    assert isinstance(CliRunner().invoke(job, ["show", number]).exception, Invalid)
