"""The least that any controller could have paid: a linear programme, solved by HiGHS (scipy).

It knows all jobs beforehand, may start any fraction of a core, may move a job from core to core at
any time, and is never interrupted; for interruptions see ``_each_alone``. It must pay for booting
and for the least time of each start, stay within what offers have, and keep 95 % of the jobs from
waiting longer than ``wait_s``. Whatever runs the jobs for real pays more; how much of the
difference could be saved, it does not tell.

Time is cut into slots. Each rule below is looser than the truth, never stricter:

- work done by the end of a slot is at most what had come by then, each job on its own cores;
- and at least what must have been done when each job begins ``wait_s`` after it came, apart from
  5 % of all jobs, which the programme chooses, by arrival and length;
- what is billed in a slot exceeds that of the slot before by no more than was started in both;
- a start is billed for its least time, and computes nothing while it boots, in its slot and in
  the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mayfly.planner.model import Offer
from mayfly.planner.price import useful_share
from mayfly.simulation.trace import TraceJob

SLOT_S = 3600.0
EXEMPT_SHARE = 0.05


def least_cost(
    jobs: Sequence[TraceJob], offers: Sequence[Offer], *, wait_s: float, end_s: float
) -> float:
    """Give the lower bound of the cost of running all jobs before ``end_s``."""
    import numpy as np  # noqa: PLC0415 - only the bench has it
    from scipy.optimize import linprog  # noqa: PLC0415

    table = _Curves(np, jobs, wait_s, int(end_s // SLOT_S) + 2)
    rows = _Rows(table.slots, len(offers), len(table.most))
    for slot in range(table.slots):
        done = {rows.work(each): 1.0 for each in range(slot + 1)}
        rows.at_most(done, table.come[slot])
        exempt = {rows.exempt(group): -curve[slot] for group, curve in enumerate(table.most)}
        rows.at_most(
            {key: -value for key, value in done.items()}
            | {key: value for key, value in exempt.items() if value},
            -table.must[slot],
        )
        _hold(rows, slot, offers)
    rows.at_most(
        {rows.exempt(group): 1.0 for group in range(len(table.most))}, EXEMPT_SHARE * len(jobs)
    )
    rows.at_most({rows.work(slot): -1.0 for slot in range(table.slots)}, -table.come[-1])
    found = linprog(
        _prices(rows, offers),
        A_ub=rows.matrix(),
        b_ub=rows.right,
        bounds=_bounds(rows, offers, table.counts),
        method="highs",
    )
    if not found.success:
        raise ArithmeticError(f"the linear programme has no solution: {found.message}")
    return max(float(found.fun), _each_alone(jobs, offers))


def _each_alone(jobs: Sequence[TraceJob], offers: Sequence[Offer]) -> float:
    """Give what the jobs cost, each at what is cheapest for it, if machines cost nothing else.

    A job of length t that begins anew at each interruption, at a rate r, takes (exp(rt) - 1) / r.
    Nobody knows beforehand when that will be.
    """
    return sum(
        min(
            (offer.price_hour or 0.0)
            / offer.shape.cpus
            * job.cpus
            * job.run_s
            / 3600
            / useful_share(offer, job.run_s)
            for offer in offers
        )
        for job in jobs
    )


class _Rows:
    """The inequalities, and which column each variable has."""

    def __init__(self, slots: int, offers: int, groups: int) -> None:
        self.slots, self.offers, self.groups = slots, offers, groups
        self.right: list[float] = []
        self._entries: list[tuple[int, int, float]] = []

    @property
    def width(self) -> int:
        return self.slots * (1 + 2 * self.offers) + self.groups

    def work(self, slot: int) -> int:
        return slot

    def billed(self, offer: int, slot: int) -> int:
        return self.slots * (1 + offer) + slot

    def started(self, offer: int, slot: int) -> int:
        return self.slots * (1 + self.offers + offer) + slot

    def exempt(self, group: int) -> int:
        return self.slots * (1 + 2 * self.offers) + group

    def at_most(self, parts: dict[int, float], limit: float) -> None:
        row = len(self.right)
        self._entries += [(row, column, value) for column, value in parts.items()]
        self.right.append(limit)

    def matrix(self) -> Any:
        from scipy.sparse import coo_array  # noqa: PLC0415

        rows, columns, values = zip(*self._entries, strict=True)
        return coo_array((values, (rows, columns)), shape=(len(self.right), self.width)).tocsr()


def _hold(rows: _Rows, slot: int, offers: Sequence[Offer]) -> None:
    """Tie what is billed to what is started; all in core-slots."""
    slots = [each for each in (slot, slot + 1) if each < rows.slots]
    useful: dict[int, float] = {rows.work(each): 1.0 for each in slots}
    for number, offer in enumerate(offers):
        grow = {rows.billed(number, slot): 1.0, rows.started(number, slot): -1.0}
        if slot:
            grow |= {rows.billed(number, slot - 1): -1.0, rows.started(number, slot - 1): -1.0}
        rows.at_most(grow, 0.0)
        least = min(1.0, offer.billing_least_s / SLOT_S)
        paid = {rows.billed(number, each): -1.0 for each in slots}
        rows.at_most({rows.started(number, slot): least} | paid, 0.0)
        useful |= paid
        useful[rows.started(number, slot)] = min(1.0, offer.boot_s / SLOT_S)
    rows.at_most(useful, 0.0)


def _prices(rows: _Rows, offers: Sequence[Offer]) -> list[float]:
    prices = [0.0] * rows.width
    for number, offer in enumerate(offers):
        core = (offer.price_hour or 0.0) / offer.shape.cpus * SLOT_S / 3600
        for slot in range(rows.slots):
            prices[rows.billed(number, slot)] = core
    return prices


def _bounds(
    rows: _Rows, offers: Sequence[Offer], counts: Sequence[int]
) -> list[tuple[float, float | None]]:
    bounds: list[tuple[float, float | None]] = [(0.0, None)] * rows.width
    for number, offer in enumerate(offers):
        for slot in range(rows.slots):
            bounds[rows.billed(number, slot)] = (0.0, float(offer.count * offer.shape.cpus))
    for group, count in enumerate(counts):
        bounds[rows.exempt(group)] = (0.0, float(count))
    return bounds


class _Curves:
    """Work against time, in core-slots at the end of each slot."""

    def __init__(self, np: Any, jobs: Sequence[TraceJob], wait_s: float, slots: int) -> None:
        self.slots = slots
        ends = (np.arange(slots) + 1) * SLOT_S
        self.come = np.zeros(slots)
        self.must = np.zeros(slots)
        most: dict[tuple[int, int], Any] = {}
        counts: dict[tuple[int, int], int] = {}
        for job in jobs:
            first = int(job.submit_s // SLOT_S)
            since = ends[first:] - job.submit_s
            self.come[first:] += job.cpus * np.minimum(job.run_s, since)
            late = job.cpus * np.clip(since - wait_s, 0.0, job.run_s)
            self.must[first:] += late
            # Lengths that are within a factor of two are alike; so are all below an hour.
            key = (first, max(0, int(job.run_s / SLOT_S)).bit_length())
            counts[key] = counts.get(key, 0) + 1
            if key not in most:
                most[key] = np.zeros(slots)
            most[key][first:] = np.maximum(most[key][first:], late)
        self.come /= SLOT_S
        self.must /= SLOT_S
        self.most = [curve / SLOT_S for curve in most.values()]
        self.counts = list(counts.values())
