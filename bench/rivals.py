"""Others who decide how many workers there are, to compare our planner with.

COBalD's controllers are its own, as published (MIT licence, PyPI ``cobald``); what is ours is the
pool that they see. Its children come and go as its ``FactoryPool`` has it: a drone for each
machine that demand lacks; where there are too many, those go first that use least, once their jobs
have ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mayfly.simulation.pool import Node, Pool
from mayfly.simulation.run import Orders


class Drones:
    """The machines of one offer, as a COBalD pool: four numbers, of which demand may be set."""

    def __init__(self, pool: Pool, offer: int) -> None:
        self._pool, self._offer = pool, offer
        self.demand = 0.0
        self.used = 0
        """CPUs in use on machines that take jobs: draining ones supply nothing."""

    @property
    def supply(self) -> float:
        """Give the CPUs of machines that take jobs."""
        return float(self._pool.supply[self._offer])

    @property
    def utilisation(self) -> float:
        """Give the part of the CPUs that jobs use; 1 without machines, as FactoryPool has it."""
        supply = self._pool.supply[self._offer]
        return self.used / supply if supply else 1.0

    @property
    def allocation(self) -> float:
        """Give the part of the CPUs that is given to jobs: here the same."""
        return self.utilisation

    def look(self, nodes: Sequence[Node]) -> None:
        """Count what is in use now."""
        self.used = sum(
            node.cpus - node.free
            for node in nodes
            if node.offer == self._offer and node.ready and not node.draining
        )

    def orders(self, nodes: Sequence[Node]) -> tuple[int, list[int]]:
        """Tell how many machines to start, and which to release."""
        size = self._pool.offers[self._offer].shape.cpus
        alive = [node for node in nodes if node.offer == self._offer and not node.draining]
        missing = self.demand - len(alive) * size
        if missing > 0:
            return -int(-missing // size), []
        excess = int(-missing // size)
        alive.sort(key=lambda node: node.cpus - node.free if node.ready else 0)
        return 0, [node.id for node in alive[:excess]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """One way to set COBalD up."""

    controller: Literal["linear", "relative"]
    low: float
    high: float
    rate: float
    """Cores per second (linear), or the factor of growth (relative)."""
    together: bool
    """One controller above a composite of all offers, weighted by utilisation; or one for each."""
    ranked: bool
    """Whether somebody told the batch system to fill cheap workers first: COBalD knows no price."""

    def __str__(self) -> str:
        scope = "one for all" if self.together else "one for each offer"
        rank = "cheap first" if self.ranked else "any worker"
        return f"{self.controller} {self.low:g}/{self.high:g} {self.rate:g}, {scope}, {rank}"


class Cobald:
    """COBalD's controllers above our simulated pool."""

    def __init__(self, setup: Setup, *, interval_s: float = 60.0) -> None:
        self._setup, self._interval_s = setup, interval_s
        self._drones: list[Drones] = []
        self._controllers: list[Any] = []

    def _build(self, pool: Pool) -> None:
        from cobald.composite.weighted import WeightedComposite  # noqa: PLC0415 - only this needs it
        from cobald.decorator.limiter import Limiter  # noqa: PLC0415

        self._drones = [Drones(pool, number) for number in range(len(pool.offers))]
        whole = [offer.count * offer.shape.cpus for offer in pool.offers]
        least = pool.offers[0].shape.cpus
        if self._setup.together:
            every = WeightedComposite(*self._drones, weight="utilisation")
            targets = [Limiter(every, minimum=least, maximum=sum(whole))]
        else:
            # Each keeps one machine: without any, a pool learns nothing of its demand.
            targets = [
                Limiter(drones, minimum=least, maximum=most)
                for drones, most in zip(self._drones, whole, strict=True)
            ]
        self._controllers = [self._controller(target) for target in targets]

    def _controller(self, target: Any) -> Any:
        from cobald.controller.linear import LinearController  # noqa: PLC0415
        from cobald.controller.relative_supply import RelativeSupplyController  # noqa: PLC0415

        setup = self._setup
        limits = {"low_utilisation": setup.low, "high_allocation": setup.high}
        if setup.controller == "linear":
            return LinearController(target, rate=setup.rate, **limits)
        scales = {"low_scale": 1 / setup.rate, "high_scale": setup.rate}
        return RelativeSupplyController(target, **limits, **scales)

    def decide(self, pool: Pool) -> Orders:
        """Let each controller regulate once, and do what its pool then demands."""
        if not self._drones:
            self._build(pool)
        nodes = list(pool.nodes.values())
        for drones in self._drones:
            drones.look(nodes)
        for controller in self._controllers:
            controller.regulate(self._interval_s)
        starts: list[tuple[int, int]] = []
        drains: list[int] = []
        for number, drones in enumerate(self._drones):
            count, released = drones.orders(nodes)
            starts += [(number, count)] if count else []
            drains += released
        done = [node.id for node in nodes if node.draining and not node.tasks]
        return Orders(starts=starts, drains=drains, removals=done)


class Threshold:
    """What plug-ins of vendors do: a machine for what waits, gone after some idle time.

    As Slurm's power saving with ``SuspendTime``, and the plug-ins built on it, have it: the nodes
    of the provider with the least weight come first.
    """

    def __init__(self, *, idle_s: float) -> None:
        self._idle_s = idle_s

    def decide(self, pool: Pool) -> Orders:
        """Start for all that waits and has no machine booting; give back what stood idle."""
        lacking = pool.waiting_cpus - sum(pool.booting)
        starts: list[tuple[int, int]] = []
        order = sorted(
            range(len(pool.offers)), key=lambda each: pool.offers[each].price_hour or 0.0
        )
        for number in order:
            offer = pool.offers[number]
            count = min(offer.count - pool.machines[number], -(-lacking // offer.shape.cpus))
            if lacking > 0 and count > 0:
                starts.append((number, count))
                lacking -= count * offer.shape.cpus
        idle = [
            node.id
            for node in pool.nodes.values()
            if node.idle_since is not None and pool.now - node.idle_since >= self._idle_s
        ]
        return Orders(starts=starts, removals=idle)
