"""What is there of the machines of one home: processes, files, memory objects."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mayfly.config import Paths
from mayfly.engine.memory import read_holder

MEMORY_OBJECT = "/memfd:mayfly-"
SHOWN = 3
"""How many names make clear what is meant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Remains:
    """What is there besides the processes that hold the templates' memory."""

    processes: tuple[str, ...]
    files: tuple[str, ...]
    memories: int

    @property
    def count(self) -> int:
        """Everything together."""
        return len(self.processes) + len(self.files) + self.memories

    def __str__(self) -> str:
        names = (*self.processes, *self.files)
        shown = ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
        counts = f"{len(self.processes)} processes, {len(self.files)} files"
        return f"{counts}, {self.memories} memory objects" + (f" ({shown})" if names else "")


def look(home: Path) -> Remains:
    """Look for everything that belongs to a home."""
    paths = Paths.for_user({"MAYFLY_HOME": str(home)})
    holders = [read_holder(path) for path in paths.templates.glob("*")]
    keepers = {holder.pid for holder in holders if holder is not None}
    found = {pid for pid in _pids() if _belongs(pid, home)}
    kept = {memory for pid in found & keepers for memory in _memories(pid)}
    memories = {memory for pid in found for memory in _memories(pid)}
    return Remains(
        processes=tuple(f"{_name(pid)} {pid}" for pid in sorted(found - keepers)),
        files=tuple(str(path) for path in sorted(paths.machines.rglob("*"))),
        memories=len(memories - kept),
    )


def children_named(parent: int, start: str) -> list[int]:
    """Give a process's children whose name begins so."""
    try:
        words = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    except OSError:
        return []
    return [pid for pid in map(int, words) if _name(pid).startswith(start)]


def _pids() -> Iterator[int]:
    """Give all living processes but ourselves; zombies are dead."""
    for path in Path("/proc").iterdir():
        if path.name.isdigit() and int(path.name) != os.getpid():
            try:
                state = (path / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if state != "Z":
                yield int(path.name)


def _belongs(pid: int, home: Path) -> bool:
    """Tell a home's processes: its commands by their environment, a QEMU by its files."""
    try:
        environ = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False
    if f"MAYFLY_HOME={home}".encode() in environ:
        return True
    return any(link.startswith(f"{home}/") for link, _ in _open_files(pid))


def _memories(pid: int) -> set[int]:
    """Give the memory objects that a process has open or mapped, by their inode."""
    opened = {inode for link, inode in _open_files(pid) if link.startswith(MEMORY_OBJECT)}
    try:
        lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    except OSError:
        return opened
    return opened | {int(line.split()[4]) for line in lines if MEMORY_OBJECT in line}


def _open_files(pid: int) -> Iterator[tuple[str, int]]:
    try:
        numbers = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return
    for number in numbers:
        path = f"/proc/{pid}/fd/{number}"
        try:
            yield os.readlink(path), os.stat(path).st_ino
        except OSError:
            continue


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""
