"""The fixed scenarios of ``scripts/bench burst``, and the settings of all who run in them."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from bench.rivals import Setup
from mayfly.model import Shape
from mayfly.planner.model import Ceiling, Offer, Rules
from mayfly.simulation.run import Scenario
from mayfly.simulation.trace import Trace, TraceJob

SMALL, LARGE = 2, 8
"""CPUs of the two sizes that each provider offers, at the same price for a CPU."""
CORE_PRICE = 0.05
BOOT_S = 180.0
LEAST_S = 600.0
MIX_SEED = 20051120
MIX = {1: 0.7, 2: 0.1, 4: 0.1, 8: 0.1}
"""CPUs of a job, and how likely: the same work, on more cores for a shorter time."""
WAIT_MOST_S = 7200.0
"""A setting with which one job in twenty waits longer is none that a site would keep."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Market:
    """What can be had: providers with their price for a core-hour and their quota of CPUs."""

    name: str
    priced: bool
    prices: Mapping[str, float]
    quotas: Mapping[str, int]
    interruptions: Mapping[str, float]
    """In an hour."""

    def offers(self, sizes: tuple[int, ...]) -> tuple[Offer, ...]:
        """Give the offers with machines of these sizes."""
        return tuple(
            Offer(
                name=f"{name}-{size}",
                provider=name,
                shape=Shape(cpus=size, memory_mib=0),
                price_hour=price * size,
                count=self.quotas[name] // size,
                boot_s=BOOT_S,
                billing_least_s=LEAST_S,
                interruptions_hour=self.interruptions.get(name, 0.0),
            )
            for name, price in self.prices.items()
            for size in sizes
        )

    def scenario(self, sizes: tuple[int, ...], *, by_price: bool = True) -> Scenario:
        """Give it with machines of these sizes; the batch system fills cheap workers first."""
        return Scenario(offers=self.offers(sizes), quotas=self.quotas, by_price=by_price)

    def rules(self, headroom: float) -> Rules:
        """Give our rules: the defaults, with the quotas."""
        quotas = {name: Ceiling(cpus=cpus) for name, cpus in self.quotas.items()}
        return Rules(quotas=quotas, headroom_share=headroom)


MARKETS = (
    Market(
        name="flat",
        priced=False,
        prices={"cloud": CORE_PRICE},
        quotas={"cloud": 4000},
        interruptions={},
    ),
    Market(
        name="two",
        priced=True,
        prices={"cheap": CORE_PRICE, "dear": 2 * CORE_PRICE},
        quotas={"cheap": 2000, "dear": 4000},
        interruptions={},
    ),
    Market(
        name="spot",
        priced=True,
        prices={"spot": 0.35 * CORE_PRICE, "on-demand": CORE_PRICE},
        quotas={"spot": 2400, "on-demand": 4000},
        interruptions={"spot": 0.01},
    ),
    Market(
        name="local",
        priced=True,
        prices={"local": 0.2 * CORE_PRICE, "cloud": CORE_PRICE},
        quotas={"local": 512, "cloud": 4000},
        interruptions={},
    ),
)
"""One price; two at 2:1; spot that is taken away once in 100 hours; a small cluster and a cloud."""

HEADROOMS = (0.0, 0.02, 0.05, 0.1, 0.2)
IDLE_S = (300.0, 600.0, 1800.0)
LINEAR = tuple(
    (low, high, rate) for low, high in ((0.5, 0.5), (0.9, 0.9), (0.9, 0.98)) for rate in (0.2, 0.05)
)
"""COBalD's defaults, those of TARDIS's example, and a narrower one; cores per second."""
RELATIVE = ((0.5, 0.5, 1.1), (0.9, 0.95, 1.1))


def setups(market: Market) -> Iterator[Setup]:
    """Give the settings of COBalD that are tried in a market."""
    both = (True, False) if len(market.prices) > 1 else (True,)
    for ranked, together in itertools.product(both, both):
        for kind, settings in (("linear", LINEAR), ("relative", RELATIVE)):
            for low, high, rate in settings:
                yield Setup(
                    controller="linear" if kind == "linear" else "relative",
                    low=low,
                    high=high,
                    rate=rate,
                    together=together,
                    ranked=ranked,
                )


def mixed(trace: Trace) -> Trace:
    """Give the same work with jobs of several cores, by a fixed seed."""
    chance = random.Random(MIX_SEED)  # noqa: S311 - chance, not secrecy
    sizes = chance.choices(list(MIX), weights=list(MIX.values()), k=len(trace.jobs))
    jobs = (
        TraceJob(job.submit_s, job.run_s / cpus, cpus)
        for job, cpus in zip(trace.jobs, sizes, strict=True)
    )
    return Trace(jobs=tuple(sorted(jobs)), dropped=trace.dropped)
