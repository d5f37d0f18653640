"""Rights of batch jobs, as tests write them down."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mayfly.host.limits import Held, Need
from mayfly.host.rights import Right, Rights, parse_right
from mayfly.model import Shape

KEY = "cluster/123_4/0"
OVERHEAD_MIB = 128
PLAIN: Mapping[str, Any] = {
    "key": KEY,
    "uid": 1000,
    "cpus": 2,
    "memory_mib": 2048,
    "wall_s": 3600,
}
FULL: Mapping[str, Any] = {
    **PLAIN,
    "image": "debian-12",
    "cgroup": "/slurm/uid_1000/job_123/step_extern",
    "machines": 3,
    "scratch_mib": 4096,
    "machine_features": {"hs06": "12.5"},
    "job_features": {"hs06_job": "25"},
}


class Clock:
    """A clock that a test sets."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def right(**changes: Any) -> Right:
    return parse_right({**PLAIN, **changes}, created_at=50)


def opened(folder: Path, clock: Clock | None = None, boot_id: str = "boot-1") -> Rights:
    store = Rights(folder, overhead_mib=OVERHEAD_MIB, clock=clock or Clock(), boot_id=boot_id)
    assert store.load() == []
    return store


def held(memory_mib: int, cpus: int = 1) -> Held:
    return Held(uid=1000, need=Need(cpus=cpus, memory_mib=memory_mib, disk_mib=0))


SHAPE = Shape(cpus=1, memory_mib=512)
