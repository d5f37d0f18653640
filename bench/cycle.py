"""How long one decision of the planner takes, and how that grows."""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
import time
from dataclasses import dataclass

from mayfly.model import Shape
from mayfly.planner.demand import Job, group_jobs
from mayfly.planner.model import Kind, Offer, Phase, Rules, Snapshot, Wanted, Worker
from mayfly.planner.plan import plan

GROUPS = 500
PROVIDERS = 20
SEED = 8
IMAGES = 25


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much there is."""

    machines: int
    jobs: int


SIZES = (
    Size(machines=10_000, jobs=100_000),
    Size(machines=32_000, jobs=320_000),
    Size(machines=100_000, jobs=1_000_000),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cycle:
    """What was measured at one size, in a process of its own."""

    cycle_s: float
    grouping_s: float
    rss_mib: float
    starts: int
    changes: int


def measure(size: Size, rounds: int) -> Cycle:
    """Measure in a fresh process, whose memory is the planner's alone."""
    words = [sys.executable, "-m", "bench.cycle", str(size.machines), str(size.jobs), str(rounds)]
    done = subprocess.run(words, check=True, capture_output=True, text=True, timeout=900)
    return Cycle(**json.loads(done.stdout))


def exponent(sizes: tuple[Size, ...], seconds: list[float]) -> float:
    """Give the power with which time grows with size: the slope of the logarithms."""
    xs = [math.log(size.machines) for size in sizes]
    ys = [math.log(value) for value in seconds]
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    top = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True))
    return top / sum((x - mean_x) ** 2 for x in xs)


def snapshot(size: Size) -> Snapshot:
    """Make a site: half of the machines busy, the rest partly used, idle, booting or draining."""
    chance = random.Random(SEED)  # noqa: S311 - chance, not secrecy
    kinds = [Kind(image=f"image-{number}") for number in range(IMAGES)]
    offers = tuple(_offer(number, chance) for number in range(PROVIDERS))
    # For some images there are workers, and no jobs any more.
    every = [*kinds, *(Kind(image=f"over-{number}") for number in range(IMAGES // 5))]
    fleet = tuple(_worker(number, every, offers, chance) for number in range(size.machines))
    each = size.jobs // GROUPS
    wanted = tuple(
        Wanted(
            kind=kinds[number % IMAGES],
            shape=Shape(cpus=chance.choice((1, 1, 2, 4, 8)), memory_mib=2000),
            group=f"group-{number}",
            count=each,
            due=each,
            run_s=chance.uniform(600, 86_400),
        )
        for number in range(GROUPS)
    )
    return Snapshot(now=1e6, wanted=wanted, offers=offers, fleet=fleet)


def _offer(number: int, chance: random.Random) -> Offer:
    cpus = chance.choice((2, 4, 8, 16, 32))
    return Offer(
        name=f"offer-{number}",
        provider=f"provider-{number}",
        shape=Shape(cpus=cpus, memory_mib=4000 * cpus),
        price_hour=cpus * chance.uniform(0.02, 0.1),
        count=chance.randrange(100, 20_000),
        boot_s=120,
        billing_least_s=600,
        interruptions_hour=chance.choice((0.0, 0.0, 0.01)),
        constraints=frozenset({"x86-64"}),
    )


def _worker(
    number: int, kinds: list[Kind], offers: tuple[Offer, ...], chance: random.Random
) -> Worker:
    offer = chance.choice(offers)
    cpus = offer.shape.cpus
    phase = chance.choices([Phase.READY, Phase.BOOTING, Phase.DRAINING], [0.9, 0.05, 0.05])[0]
    free = chance.choices([0, cpus // 2, cpus], [0.5, 0.3, 0.2])[0]
    free = cpus if phase is Phase.BOOTING else free
    idle = free == cpus and phase is not Phase.BOOTING
    return Worker(
        id=f"m-{number}",
        offer=offer.name,
        kind=kinds[number % len(kinds)],
        phase=phase,
        launched_at=1e6 - chance.uniform(0, 86_400),
        idle_since=1e6 - chance.uniform(0, 600) if idle else None,
        cpus=cpus,
        free_cpus=free,
        free_memory_mib=4000 * free,
        jobs=0 if free == cpus else 1,
    )


def _jobs(count: int) -> list[Job]:
    kinds = [Kind(image=f"image-{number}") for number in range(IMAGES)]
    shape = Shape(cpus=1, memory_mib=2000)
    return [
        Job(
            id=str(number),
            kind=kinds[number % IMAGES],
            shape=shape,
            group=f"group-{number % GROUPS}",
            submitted_at=float(number % 5000),
            run_s=3600.0,
        )
        for number in range(count)
    ]


def _main(machines: int, jobs: int, rounds: int) -> None:
    size, rules = Size(machines=machines, jobs=jobs), Rules(start_most=10_000, stop_most=10_000)
    shown, seconds = snapshot(size), []
    decision = plan(shown, rules)
    for _ in range(rounds):
        # Nothing in it waits: its CPU time is what it takes on a core of its own.
        began = time.process_time()
        decision = plan(shown, rules)
        seconds.append(time.process_time() - began)
    rss_mib = _most_mib()
    waiting = _jobs(jobs)
    began = time.process_time()
    group_jobs(waiting, now=1e6)
    found = {
        "cycle_s": sorted(seconds)[len(seconds) // 2],
        "grouping_s": time.process_time() - began,
        "rss_mib": rss_mib,
        "starts": sum(start.count for start in decision.starts),
        "changes": len(decision.drains) + len(decision.removals) + len(decision.resumes),
    }
    print(json.dumps(found))


def _most_mib() -> float:
    """Give the most memory that this process has had."""
    import resource  # noqa: PLC0415 - of the measured process alone

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    _main(*map(int, sys.argv[1:]))
