"""Wait for conditions, and look at processes, without guessing at times."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path


def wait_until(condition: Callable[[], bool], what: str, *, limit_s: float = 20) -> None:
    """Return when the condition holds; fails after ``limit_s``."""
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {limit_s:g} s in vain for {what}"
        time.sleep(0.005)


def _stat(pid: int) -> tuple[str, int] | None:
    """Give state and parent of a process."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return fields[0], int(fields[1])
    return None


def gone(pid: int) -> bool:
    """Tell whether a process has ended (it may not have been collected)."""
    seen = _stat(pid)
    return seen is None or seen[0] in "ZX"


def parent(pid: int) -> int:
    """Give the process that has another as its child; 0 when that one is gone."""
    seen = _stat(pid)
    return 0 if seen is None else seen[1]


def command_of(pid: int) -> str:
    """Give the name of the program that a process runs; "" when it is gone."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


def descendants(pid: int) -> list[int]:
    """Give the processes that a process has started, and theirs."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        seen = _stat(int(entry.name)) if entry.name.isdigit() else None
        if seen is not None:
            parents[int(entry.name)] = seen[1]
    found: list[int] = []
    level = {pid}
    while level:
        level = {child for child, parent in parents.items() if parent in level}
        found += level
    return found
