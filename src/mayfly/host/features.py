"""Machine and job features: what a job may know of its machine and its limits (HSF-TN-2016-02).

The values of two directories of small files, ``$MACHINEFEATURES`` and ``$JOBFEATURES``. The machine
is made for the job alone, so the CPUs of the machine are those of the job, and the job's time is
the machine's. Benchmark values (``hs06``) are there only when root has given them.
"""

from __future__ import annotations

from mayfly.host.rights import Right
from mayfly.model import Shape
from mayfly.units import MIB

Features = dict[str, dict[str, str]]


def features_of(
    shape: Shape, right: Right | None, started_at: float, *, scratch_mib: int = 0, job_id: str = ""
) -> Features:
    """Give the features of a machine that is given away at that time (seconds since the epoch).

    A machine without a right has no limits of time. ``scratch_mib``, ``job_id``: where the right
    does not say them.
    """
    machine = _machine(shape, right)
    job = _job(shape, right, started_at)
    if scratch_mib and "scratch_limit_bytes" not in job:
        job["scratch_limit_bytes"] = str(scratch_mib * MIB)
    if job_id:
        job.setdefault("job_id", job_id)
    if right is not None:
        machine |= right.machine_features
        job |= right.job_features
    return {"machine": machine, "job": job}


def _machine(shape: Shape, right: Right | None) -> dict[str, str]:
    cpus = str(shape.cpus)
    # The last three are for readers of the drafts before the note.
    values = {"total_cpu": cpus, "log_cores": cpus, "phys_cores": cpus, "jobslots": "1"}
    end = _end(right)
    if end:
        values |= {"shutdowntime": end, "grace_secs": "0"}
    return values


def _job(shape: Shape, right: Right | None, started_at: float) -> dict[str, str]:
    values = {
        "allocated_cpu": str(shape.cpus),
        "max_rss_bytes": str(shape.memory_mib * MIB),
        # Machines have no swap.
        "max_swap_bytes": "0",
        "jobstart_secs": str(int(right.created_at if right is not None else started_at)),
    }
    if right is None:
        return values
    values["job_id"] = right.key.split("/")[1]
    if right.scratch_mib:
        values["scratch_limit_bytes"] = str(right.scratch_mib * MIB)
    if right.wall_s:
        wall = int(right.wall_s)
        # CPU seconds are those of all CPUs together.
        values |= {
            "wall_limit_secs": str(wall),
            "cpu_limit_secs": str(wall * shape.cpus),
            "shutdowntime_job": _end(right),
            "grace_secs_job": "0",
        }
    return values


def _end(right: Right | None) -> str:
    """Give when the job's time is over, in whole seconds since the epoch."""
    if right is None or not right.wall_s:
        return ""
    return str(int(right.created_at + right.wall_s))
