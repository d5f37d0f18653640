"""Waiting jobs become lines of demand: what is wanted, by how many, and for how long already."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mayfly.model import Shape
from mayfly.planner.model import Kind, Wanted


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job that waits in a batch system."""

    id: str
    kind: Kind
    shape: Shape
    group: str = ""
    submitted_at: float
    starts_at: float | None = None
    """It must not begin before; None: it may at once."""
    run_s: float | None = None
    held: bool = False
    """Whether something else than a lack of workers keeps it: a hold, a dependency, a limit."""


def group_jobs(
    jobs: Iterable[Job], *, now: float, patience_s: float = 0.0, lead_s: float = 0.0
) -> tuple[Wanted, ...]:
    """Group jobs that are alike; the longest-waiting groups come first.

    A job whose start lies more than ``lead_s`` ahead is no demand yet, nor is one that is held. A
    job is due when it has waited for ``patience_s`` since it could have begun.
    """
    found: dict[tuple[Kind, Shape, str], list[float]] = {}
    for job in jobs:
        begin = job.submitted_at if job.starts_at is None else job.starts_at
        if job.held or begin > now + lead_s:
            continue
        key = (job.kind, job.shape, job.group)
        sums = found.get(key)
        if sums is None:
            # How many, how many are due, whose length is known, sum of lengths, first begin.
            sums = found[key] = [0, 0, 0, 0.0, begin]
        sums[0] += 1
        sums[1] += now - begin >= patience_s or begin > now
        if job.run_s is not None:
            sums[2] += 1
            sums[3] += job.run_s
        sums[4] = min(sums[4], begin)
    ordered = sorted(found.items(), key=lambda item: (item[1][4], str(item[0][2])))
    return tuple(
        Wanted(
            kind=kind,
            shape=shape,
            group=group,
            count=int(sums[0]),
            due=int(sums[1]),
            run_s=sums[3] / sums[2] if sums[2] else None,
        )
        for (kind, shape, group), sums in ordered
    )
