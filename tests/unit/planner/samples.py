"""Offers, workers and demand for tests of the planner."""

from __future__ import annotations

from mayfly.model import Shape
from mayfly.planner.model import (
    Budget,
    Decision,
    Kind,
    Offer,
    Phase,
    Rules,
    Snapshot,
    Wanted,
    Worker,
)
from mayfly.planner.plan import plan

EL9 = Kind(image="el9")
NOW = 100_000.0


def offer(name: str, price: float | None = 0.1, cpus: int = 4, **more: object) -> Offer:
    plain = {"memory_mib": 4000 * cpus, "count": 1000, **more}
    shape = Shape(cpus=cpus, memory_mib=int(str(plain.pop("memory_mib"))))
    fields = {"provider": name, "boot_s": 120.0, **plain}
    return Offer(name=name, shape=shape, price_hour=price, **fields)  # type: ignore[arg-type]


def wanted(count: int, cpus: int = 1, **more: object) -> Wanted:
    fields = {"kind": EL9, "due": count, **more}
    shape = Shape(cpus=cpus, memory_mib=1000 * cpus)
    return Wanted(shape=shape, count=count, **fields)  # type: ignore[arg-type]


def worker(name: str, at: Offer, jobs: int = 0, **more: object) -> Worker:
    """Give a worker of an offer whose jobs have one CPU each; it has been idle for an hour."""
    cpus, memory_mib = at.shape.cpus, at.shape.memory_mib
    fields = {
        "kind": EL9,
        "phase": Phase.READY,
        "launched_at": NOW - 7200,
        "idle_since": None if jobs else NOW - 3600,
        "free_cpus": cpus - jobs,
        "free_memory_mib": memory_mib - 1000 * jobs,
        **more,
    }
    return Worker(id=name, offer=at.name, cpus=cpus, jobs=jobs, **fields)  # type: ignore[arg-type]


def decided(
    *offers: Offer,
    wanted: tuple[Wanted, ...] = (),
    fleet: tuple[Worker, ...] = (),
    budgets: tuple[Budget, ...] = (),
    rules: Rules | None = None,
) -> Decision:
    snapshot = Snapshot(now=NOW, wanted=wanted, offers=offers, fleet=fleet, budgets=budgets)
    return plan(snapshot, rules or Rules())


def started(decision: Decision) -> dict[str, int]:
    counts: dict[str, int] = {}
    for start in decision.starts:
        counts[start.offer] = counts.get(start.offer, 0) + start.count
    return counts
