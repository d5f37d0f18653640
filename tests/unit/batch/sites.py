"""A site's directories into which Mayfly is put, and stand-ins for commands of a batch system."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mayfly.cli.batch import batch


def mayfly(site: Path, system: str, conf: Path, *words: str) -> Result:
    """Run ``mayfly batch`` on a site."""
    command, *rest = words
    places = [f"--conf={conf}", f"--programs={site}/lib/programs", f"--config={site}/batch.toml"]
    return CliRunner().invoke(batch, [command, system, *places, *rest])


def files(site: Path) -> dict[str, tuple[int, bytes]]:
    """Give all files with their modes, to compare."""
    return {
        str(path): (path.stat().st_mode, path.read_bytes())
        for path in site.rglob("*")
        if path.is_file() and ".tools" not in path.parts
    }


def stand_in(site: Path, name: str, body: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a command into the way that does what a Python body says; gives its directory."""
    directory = site / ".tools"
    directory.mkdir(exist_ok=True)
    command = directory / name
    command.write_text(f"#!{sys.executable} -IS\n{body}")
    command.chmod(0o755)
    if not os.environ["PATH"].startswith(f"{directory}:"):
        monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")
    return directory
