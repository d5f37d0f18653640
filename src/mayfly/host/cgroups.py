"""Where the processes of a machine belong that all of a job share: in the job's cgroups.

A batch system with cgroups has one for the job and, in it, one for each step; of Slurm's, the step
``extern`` is there as long as the job. Each hierarchy is used for what it is good for:

- *memory*: that of the step which had the machine made. When a machine has used up what its job
  was granted, the kernel ends it, and the batch system tells the user so of that step.
- *freezer*: a cgroup of our own beneath ``step_extern``. It is frozen and thawed with the job. When
  a job is cancelled, all in ``step_extern`` itself is killed at once; what lies beneath is not, and
  the job may end in its own way.
- *all others*: ``step_extern``, with the job's CPUs.

Where there is one tree for all, it is a cgroup of our own in the job's: that is not tried.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

from mayfly.errors import Denied, Failed
from mayfly.host.rights import CGROUPS, put_into_cgroup

EXTERN = "step_extern"
OURS = "mayfly"
FREEZER, MEMORY = "freezer", "memory"
_LIMIT = "memory.limit_in_bytes"


def is_unified(top: Path = CGROUPS) -> bool:
    """Tell whether the host has one tree for all (the second version)."""
    return (top / "cgroup.controllers").exists()


def check_member(pid: int, cgroup: str, *, proc: Path = Path("/proc"), top: Path = CGROUPS) -> None:
    """Raise ``Denied`` unless a process is of the job whose cgroup that is."""
    if not cgroup:
        return
    paths = _paths_of(pid, proc)
    known = [paths.get("" if is_unified(top) else FREEZER, ""), paths.get(MEMORY, "")]
    if not any(_beneath(path, cgroup) for path in known):
        raise Denied(
            "this process is not of the job that the machine is for",
            hint="only what the batch system has started in the job may have its machine",
        )


def _beneath(path: str, cgroup: str) -> bool:
    return path == cgroup or path.startswith(f"{cgroup}/")


def _paths_of(pid: int, proc: Path) -> dict[str, str]:
    """Give a process's cgroup in each hierarchy, "" being the unified one."""
    try:
        lines = (proc / str(pid) / "cgroup").read_text().splitlines()
    except OSError:
        return {}
    fields = [line.split(":", 2) for line in lines]
    return {name: path for _, names, path in fields for name in names.split(",")}


def step_of(pid: int, cgroup: str, *, proc: Path = Path("/proc"), top: Path = CGROUPS) -> str:
    """Name the step whose memory a machine shall count for that this process asks for.

    Only one that was granted all that the job was: another would be too small for the machine.
    """
    path = _paths_of(pid, proc).get(MEMORY, "")
    match = re.match(rf"{re.escape(cgroup)}/(step_[a-z0-9_]+)(?:/|$)", path)
    if match is None:
        return EXTERN
    limits = [top / MEMORY / each.lstrip("/") / _LIMIT for each in (cgroup, f"{cgroup}/{match[1]}")]
    try:
        job, step = (int(limit.read_text()) for limit in limits)
    except (OSError, ValueError):
        return EXTERN
    return match[1] if step >= job else EXTERN


def settle_in(pid: int, cgroup: str, step: str, *, top: Path = CGROUPS) -> None:
    """Put a process of a shared machine where it belongs; raises ``Failed``."""
    if is_unified(top):
        with contextlib.suppress(OSError):
            _ours(cgroup, top).mkdir(exist_ok=True)
        put_into_cgroup(pid, f"{cgroup}/{OURS}", top=top)
        return
    there = [each for each in sorted(top.glob("*/")) if (each / _in(cgroup, EXTERN)).is_dir()]
    if not there:
        raise Failed(f"the job's cgroup {cgroup} is not there: the job has ended")
    for hierarchy in there:
        place = hierarchy / _in(cgroup, step if hierarchy.name == MEMORY else EXTERN)
        if hierarchy.name == FREEZER:
            place = _ours(cgroup, top)
            with contextlib.suppress(OSError):
                place.mkdir(exist_ok=True)
        _enter(pid, place)


def to_extern(pid: int, cgroup: str, *, top: Path = CGROUPS) -> None:
    """Have a process count for the job as a whole: the step that it counted for has ended."""
    place = top / MEMORY / _in(cgroup, EXTERN)
    if place.is_dir():
        _enter(pid, place)


def _ours(cgroup: str, top: Path) -> Path:
    """Give the cgroup that we make."""
    if is_unified(top):
        return top / _in(cgroup, OURS)
    return top / FREEZER / _in(cgroup, EXTERN) / OURS


def _in(cgroup: str, name: str) -> str:
    return f"{cgroup.lstrip('/')}/{name}"


def _enter(pid: int, place: Path) -> None:
    try:
        (place / "cgroup.procs").write_text(str(pid))
    except OSError as error:
        raise Failed(f"cannot put process {pid} into {place}: {error.strerror}") from error


def has_ended(cgroup: str, *, top: Path = CGROUPS) -> bool:
    """Tell whether nothing of a job runs any more, ours left out; False where it cannot be seen."""
    if is_unified(top) or not (top / FREEZER).is_dir():
        return False
    steps = (top / FREEZER / cgroup.lstrip("/")).glob("step_*")
    return not any(_pids(step) for step in steps)


def _pids(place: Path) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(word) for word in (place / "cgroup.procs").read_text().split()]
    return []


def clear(cgroup: str, *, top: Path = CGROUPS) -> bool:
    """Kill what is left of a machine in its job's cgroups, and remove those that are empty.

    Tells whether all is gone. What the batch system still uses stays.
    """
    ours = _ours(cgroup, top)
    for pid in _pids(ours):
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(OSError):
        ours.rmdir()
    if ours.exists():
        return False
    # The batch system could not remove these as long as ours was there.
    removed = [_remove(place) for place in _emptied(cgroup, top)]
    return all(removed)


def _emptied(cgroup: str, top: Path) -> Iterator[Path]:
    for hierarchy in [top] if is_unified(top) else sorted(top.glob("*/")):
        job = hierarchy / cgroup.lstrip("/")
        if job.is_dir() and not _pids(job):
            yield from sorted(step for step in job.glob("step_*") if not _pids(step))
            yield job


def _remove(place: Path) -> bool:
    for task in place.glob("task_*"):
        with contextlib.suppress(OSError):
            task.rmdir()
    with contextlib.suppress(OSError):
        place.rmdir()
    return not place.exists()


def oom_kills(cgroup: str, *, top: Path = CGROUPS) -> int:
    """Count what the kernel has ended in a job because its memory was used up."""
    files = (top / MEMORY / cgroup.lstrip("/")).glob("**/memory.oom_control")
    return sum(map(_kills, files))


def _kills(file: Path) -> int:
    with contextlib.suppress(OSError, ValueError):
        fields = dict(line.split() for line in file.read_text().splitlines())
        return int(fields.get("oom_kill", 0))
    return 0
