"""How much may still be started: of each offer, by quotas, budgets and the bound of the cycle."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

from mayfly.planner.model import NO_CEILING, Budget, Ceiling, Offer, Rules, Worker
from mayfly.planner.price import HOUR_S, billed_s, paid_until

WARN_SHARE = 0.8
"""From this part of a budget on, admins are warned."""


class Ledger:
    """The account of one cycle; what is started is written down with ``book``."""

    def __init__(
        self,
        *,
        rules: Rules,
        offers: Mapping[str, Offer],
        budgets: Iterable[Budget],
        fleet: Iterable[Worker],
        now: float,
    ) -> None:
        self._rules = rules
        self._left = {name: max(0, offer.count) for name, offer in offers.items()}
        self._cycle = max(0, rules.start_most)
        self._machines: Counter[str] = Counter()
        self._cpus: Counter[str] = Counter()
        self._group_machines: Counter[str] = Counter()
        self._group_cpus: Counter[str] = Counter()
        self._budgets = {budget.group: budget for budget in budgets}
        self._promised: defaultdict[str, float] = defaultdict(float)
        for worker in fleet:
            self._count(worker, offers.get(worker.offer), now)

    def _count(self, worker: Worker, offer: Offer | None, now: float) -> None:
        if offer is not None:
            self._machines[offer.provider] += 1
            self._cpus[offer.provider] += worker.cpus
        self._group_machines[worker.group] += 1
        self._group_cpus[worker.group] += worker.cpus
        if worker.group in self._budgets and offer is not None:
            # It goes on costing until it is given back; what is paid for counts as spent.
            ahead = max(self._rules.reserve_s, paid_until(offer, worker.launched_at, now) - now)
            self._promised[worker.group] += (offer.price_hour or 0.0) * ahead / HOUR_S

    def room(self, offer: Offer, group: str) -> tuple[int, str]:
        """Tell how many machines of an offer a group may start, and what allows no more."""
        bounds = [
            (self._left[offer.name], "the provider has no more of it"),
            (self._cycle, f"one cycle starts {self._rules.start_most} workers at most"),
        ]
        quota = self._rules.quotas.get(offer.provider, NO_CEILING)
        used = self._machines[offer.provider], self._cpus[offer.provider]
        bounds += _within(quota, used, offer, f"quota of provider {offer.provider}")
        share = self._rules.shares.get(group, NO_CEILING)
        used = self._group_machines[group], self._group_cpus[group]
        bounds += _within(share, used, offer, f"quota of group '{group}'")
        bounds += self._affordable(offer, group)
        return min(bounds, key=lambda bound: bound[0])

    def _affordable(self, offer: Offer, group: str) -> list[tuple[int, str]]:
        budget = self._budgets.get(group)
        if budget is None:
            return []
        left = budget.amount - budget.spent - self._promised[group]
        each = self._cost(offer)
        what = f"budget of group '{group}': {max(0.0, left):.2f} of {budget.amount:.2f} left"
        if left <= 0 or budget.spent >= budget.amount:
            return [(0, what)]
        return [(int(left / each), what)] if each > 0 else []

    def _cost(self, offer: Offer) -> float:
        """Give what a start puts a group's budget under: it is promised a useful time."""
        held_s = billed_s(offer, offer.boot_s + offer.image_s + self._rules.reserve_s)
        return (offer.price_hour or 0.0) * held_s / HOUR_S

    def book(self, offer: Offer, group: str, count: int) -> None:
        """Write down that so many are started."""
        self._left[offer.name] -= count
        self._cycle -= count
        self._machines[offer.provider] += count
        self._cpus[offer.provider] += count * offer.shape.cpus
        self._group_machines[group] += count
        self._group_cpus[group] += count * offer.shape.cpus
        if group in self._budgets:
            self._promised[group] += self._cost(offer) * count

    def is_spent(self, group: str) -> bool:
        """Tell whether a group has spent its budget."""
        budget = self._budgets.get(group)
        return budget is not None and budget.spent >= budget.amount

    def notes(self) -> tuple[str, ...]:
        """Warn of budgets that are nearly or wholly spent."""
        return tuple(
            f"group '{budget.group}' has spent {budget.spent:.2f} of {budget.amount:.2f}"
            + (": nothing more is started for it" if self.is_spent(budget.group) else "")
            for budget in self._budgets.values()
            if budget.spent >= WARN_SHARE * budget.amount
        )


def _within(
    ceiling: Ceiling, used: tuple[int, int], offer: Offer, what: str
) -> list[tuple[int, str]]:
    machines, cpus = used
    bounds = []
    if ceiling.machines is not None:
        left = max(0, ceiling.machines - machines)
        bounds.append((left, f"{what}: {machines} of {ceiling.machines} machines in use"))
    if ceiling.cpus is not None:
        left = max(0, (ceiling.cpus - cpus) // offer.shape.cpus)
        bounds.append((left, f"{what}: {cpus} of {ceiling.cpus} CPUs in use"))
    return bounds
