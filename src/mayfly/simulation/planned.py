"""Our own planner as the controller of a simulated pool."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

from mayfly.model import Shape
from mayfly.planner.model import (
    Budget,
    Decision,
    Kind,
    Offer,
    Phase,
    Rules,
    Snapshot,
    Start,
    Wanted,
    Worker,
)
from mayfly.planner.plan import plan
from mayfly.simulation.pool import Node, Pool
from mayfly.simulation.run import Orders

KIND = Kind()
LEARNED_FROM = 20
"""Jobs that must have ended before their mean length is believed."""


class Planned:
    """Shows the pool to the planner, and does what it decides."""

    def __init__(
        self, rules: Rules, *, budget: float | None = None, window_s: float = math.inf
    ) -> None:
        self._rules = rules
        self._budget = budget
        self._window_s = window_s
        self._window = (0.0, 0.0)
        """When the window of the budget began, and what had been spent by then."""
        self._views: dict[int, tuple[int, Worker]] = {}
        self.reasons: Counter[str] = Counter()
        """What was done, by its reason; numbers are left out of the reasons of single workers."""
        self.chosen: Start | None = None
        """The last start, with the offers that were compared for it."""

    def decide(self, pool: Pool) -> Orders:
        """Make a snapshot and plan."""
        decision = plan(self._snapshot(pool), self._rules)
        self._note(decision)
        numbers = {offer.name: number for number, offer in enumerate(pool.offers)}
        return Orders(
            starts=[(numbers[start.offer], start.count) for start in decision.starts],
            resumes=[int(change.worker) for change in decision.resumes],
            drains=[int(change.worker) for change in decision.drains],
            removals=[int(change.worker) for change in decision.removals],
            force=self._rules.force_after_s is not None,
        )

    def _note(self, decision: Decision) -> None:
        for start in decision.starts:
            self.reasons[f"started at {start.offer}"] += start.count
        for verb, changes in (
            ("taken back into use", decision.resumes),
            ("drained", decision.drains),
            ("given back", decision.removals),
        ):
            self.reasons.update(f"{verb}: {_without_numbers(each.why)}" for each in changes)
        for unmet in decision.unmet:
            self.reasons.update({f"not started: {why}" for why in map(_without_numbers, unmet.why)})
        if decision.starts:
            self.chosen = decision.starts[-1]

    def _snapshot(self, pool: Pool) -> Snapshot:
        ended = len(pool.waits)
        run_s = pool.done_s / ended if ended >= LEARNED_FROM else None
        wanted = tuple(
            Wanted(
                kind=KIND,
                shape=Shape(cpus=cpus, memory_mib=0),
                count=count,
                due=due,
                run_s=run_s,
            )
            for cpus, count, due in pool.waiting()
        )
        return Snapshot(
            now=pool.now,
            wanted=wanted,
            offers=tuple(self._left(pool)),
            fleet=self._fleet(pool),
            budgets=() if self._budget is None else (self._spent(pool, self._budget),),
        )

    def _left(self, pool: Pool) -> list[Offer]:
        return [
            replace(offer, count=offer.count - used)
            for offer, used in zip(pool.offers, pool.machines, strict=True)
        ]

    def _spent(self, pool: Pool, amount: float) -> Budget:
        spent = pool.spent()
        if pool.now - self._window[0] >= self._window_s:
            self._window = (pool.now, spent)
        return Budget(group="", amount=amount, spent=spent - self._window[1])

    def _fleet(self, pool: Pool) -> tuple[Worker, ...]:
        views = self._views
        fresh: dict[int, tuple[int, Worker]] = {}
        for number, node in pool.nodes.items():
            old = views.get(number)
            fresh[number] = (
                old
                if old is not None and old[0] == node.changes
                else (node.changes, _worker(node, pool))
            )
        self._views = fresh
        return tuple(worker for _, worker in fresh.values())


def _worker(node: Node, pool: Pool) -> Worker:
    phase = Phase.DRAINING if node.draining else Phase.READY if node.ready else Phase.BOOTING
    return Worker(
        id=str(node.id),
        offer=pool.offers[node.offer].name,
        kind=KIND,
        phase=phase,
        launched_at=node.launched_at,
        idle_since=node.idle_since,
        cpus=node.cpus,
        free_cpus=node.free if node.ready else node.cpus,
        free_memory_mib=0,
        jobs=len(node.tasks or ()),
    )


def _without_numbers(text: str) -> str:
    return " ".join("N" if any(map(str.isdigit, word)) else word for word in text.split())
