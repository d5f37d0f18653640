"""Drive a simulated pool with a controller, cycle by cycle, to the end of a trace."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from mayfly.errors import Invalid
from mayfly.planner.model import Offer, Rules
from mayfly.planner.price import refusal_of
from mayfly.simulation.pool import Pool, Totals
from mayfly.simulation.trace import Trace

SAMPLES = 600
STALL_S = 7 * 86_400.0
"""When nothing has run for so long, and no more jobs come, the rest will never run."""
HUSH_CYCLES = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """What a controller wants done."""

    starts: Sequence[tuple[int, int]] = ()
    """Number of an offer, and how many machines."""
    resumes: Sequence[int] = ()
    drains: Sequence[int] = ()
    removals: Sequence[int] = ()
    force: bool = False
    """Whether machines with jobs are given back too."""


class Controller(Protocol):
    """Whoever decides how many machines there are."""

    def decide(self, pool: Pool) -> Orders:
        """Look at the pool and say what is to be done now."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """What is simulated, besides the jobs."""

    offers: tuple[Offer, ...]
    """``count`` is how many machines there may be at once."""
    by_price: bool = True
    """Whether the batch system fills cheap workers first, as one does that is told to."""
    quotas: Mapping[str, int] = field(default_factory=dict)
    """CPUs that a provider gives at once, of all its offers."""
    patience_s: float = 0.0
    cycle_s: float = 60.0
    seed: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The pool at one moment."""

    at_s: float
    cpus: tuple[int, ...]
    """Of each offer's machines, those that boot and drain included."""
    busy: int
    waiting: int
    """CPUs that waiting jobs ask for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of the jobs, and what it cost."""

    offers: tuple[Offer, ...]
    totals: tuple[Totals, ...]
    waits: tuple[float, ...]
    """In order of length."""
    samples: tuple[Sample, ...]
    impossible: int
    """Jobs larger than any machine."""
    unfinished: int
    """Jobs that had not run when nothing moved any more."""
    ended_s: float

    @property
    def cost(self) -> float:
        """Give the whole cost, in the currency of the prices."""
        return sum(total.cost for total in self.totals)

    @property
    def core_hours(self) -> float:
        """Give the useful core-hours."""
        return sum(total.used_core_s for total in self.totals) / 3600

    @property
    def machine_hours(self) -> float:
        """Give the hours of all machines, from launch to end."""
        return sum(total.held_s for total in self.totals) / 3600

    def wait_s(self, percent: float) -> float:
        """Give the wait that so many percent of the jobs do not exceed."""
        if not self.waits:
            return 0.0
        place = -(-len(self.waits) * percent // 100)
        return self.waits[max(0, int(place) - 1)]


def simulate(
    trace: Trace,
    scenario: Scenario,
    controller: Controller,
    progress: Callable[[float], None] = lambda _: None,
) -> Result:
    """Run all jobs of a trace; ``progress`` hears the part that is done.

    Raises ``Invalid`` when an offer cannot be simulated. The same arguments give the same result.
    """
    _check(scenario)
    most = max(offer.shape.cpus for offer in scenario.offers)
    jobs = [job for job in trace.jobs if job.cpus <= most]
    pool = Pool(
        jobs,
        scenario.offers,
        ranks=_ranks(scenario),
        quotas=scenario.quotas,
        patience_s=scenario.patience_s,
        seed=scenario.seed,
    )
    last = jobs[-1].submit_s if jobs else 0.0
    samples = _cycles(pool, scenario, controller, last, progress)
    unfinished = len(jobs) - len(pool.waits)
    pool.close()
    return Result(
        offers=scenario.offers,
        totals=tuple(pool.totals),
        waits=tuple(sorted(pool.waits)),
        samples=tuple(samples),
        impossible=len(trace.jobs) - len(jobs),
        unfinished=unfinished,
        ended_s=pool.now,
    )


def _check(scenario: Scenario) -> None:
    if not scenario.offers:
        raise Invalid("there is no offer to simulate with")
    for offer in scenario.offers:
        why = refusal_of(offer, Rules(price_most_hour=1e9))
        if why:
            raise Invalid(f"offer '{offer.name}' cannot be simulated: {why}")


def _ranks(scenario: Scenario) -> list[int]:
    if not scenario.by_price:
        return [0] * len(scenario.offers)
    prices = [(offer.price_hour or 0.0) / offer.shape.cpus for offer in scenario.offers]
    order = sorted(set(prices))
    return [order.index(price) for price in prices]


def _cycles(
    pool: Pool,
    scenario: Scenario,
    controller: Controller,
    last: float,
    progress: Callable[[float], None],
) -> list[Sample]:
    every = max(scenario.cycle_s, last / SAMPLES)
    samples: list[Sample] = []
    moved_at = at = 0.0
    number = 0
    while not pool.is_over:
        pool.advance(at)
        _apply(pool, controller.decide(pool))
        if not samples or at >= samples[-1].at_s + every:
            samples.append(_sample(pool))
        moved_at = pool.now if pool.running else max(moved_at, min(pool.now, last))
        if pool.now - moved_at > STALL_S:
            break
        # A trace may have years in which nothing happens.
        pause_s = max(0.0, pool.quiet_until - at)
        at += scenario.cycle_s * max(1, math.ceil(pause_s / scenario.cycle_s))
        number += 1
        if number % HUSH_CYCLES == 0:
            progress(min(1.0, at / max(1.0, last)))
    return samples


def _apply(pool: Pool, orders: Orders) -> None:
    pool.resume(orders.resumes)
    pool.drain(orders.drains)
    pool.remove(orders.removals, force=orders.force)
    for offer, count in orders.starts:
        pool.launch(offer, count)


def _sample(pool: Pool) -> Sample:
    return Sample(
        at_s=pool.now,
        cpus=tuple(
            count * offer.shape.cpus
            for count, offer in zip(pool.machines, pool.offers, strict=True)
        ),
        busy=sum(pool.busy),
        waiting=pool.waiting_cpus,
    )
