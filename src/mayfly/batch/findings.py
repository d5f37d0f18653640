"""Findings that every system's check has."""

from __future__ import annotations

import os
from pathlib import Path

from mayfly.model import Finding


def program_there(path: Path) -> Finding:
    """Say whether a program of ours is where it was put."""
    ok = os.access(path, os.X_OK)
    detail = str(path) if ok else f"{path} is not there"
    return Finding(name=f"program {path.name}", ok=ok, detail=detail)


def recorded(system: str) -> Finding:
    """Say that nobody has seen this adapter with the real daemons."""
    return Finding(
        name="tested",
        ok=False,
        detail=f"recorded: made after {system}'s documentation, never run with its daemons; "
        "try a job before users do",
        needed=False,
    )


def read_text(path: Path) -> str:
    """Give a file of the site's, "" where there is none."""
    return path.read_text("utf-8", "surrogateescape") if path.exists() else ""
