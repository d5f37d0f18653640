"""A pool of workers that is simulated: machines, a queue, the batch system that places the jobs.

CPUs are counted and memory is not. The batch system fills the fullest worker that has room, in the
order of the ranks of their offers, and lets smaller jobs pass larger ones that do not fit.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mayfly.planner.model import Offer
from mayfly.planner.price import billed_s
from mayfly.simulation.trace import TraceJob

ARRIVE, READY, END, TAKEN = range(4)


@dataclass(slots=True, eq=False)
class Task:
    """A job on its way through the pool."""

    job: TraceJob
    began: float = 0.0
    """When it was last begun."""


@dataclass(slots=True, eq=False)
class Node:
    """A machine."""

    id: int
    offer: int
    cpus: int
    launched_at: float
    free: int = 0
    ready: bool = False
    draining: bool = False
    idle_since: float | None = None
    tasks: dict[int, Task] | None = None
    changes: int = 0
    """Grows with each change, so that whoever keeps a view of it knows when that is stale."""


@dataclass(slots=True)
class Totals:
    """What has come together so far, of one offer."""

    machines: int = 0
    held_s: float = 0.0
    cost: float = 0.0
    used_core_s: float = 0.0
    lost_core_s: float = 0.0
    """Computed by jobs that were interrupted, and have to do it again."""
    taken: int = 0


class Pool:
    """The state of everything; ``advance`` lets time pass, the verbs change machines."""

    def __init__(
        self,
        jobs: Sequence[TraceJob],
        offers: Sequence[Offer],
        *,
        ranks: Sequence[int],
        quotas: Mapping[str, int] | None = None,
        patience_s: float = 0.0,
        seed: int = 1,
    ) -> None:
        self.now = 0.0
        self.offers = tuple(offers)
        self.nodes: dict[int, Node] = {}
        self.totals = [Totals() for _ in offers]
        self.supply = [0] * len(offers)
        """CPUs of machines that take jobs, by offer; so the next three."""
        self.busy = [0] * len(offers)
        self.booting = [0] * len(offers)
        self.machines = [0] * len(offers)
        self.waits: list[float] = []
        """Of jobs that have ended: the time in which they did not do what counted."""
        self.done_s = 0.0
        """Run time of the jobs that have ended."""
        self.waiting_cpus = 0
        self.running = 0
        self._jobs, self._next = jobs, 0
        self._patience_s = patience_s
        self._quotas = quotas or {}
        self._ranks = ranks
        self._levels = sorted(set(ranks))
        self._events: list[tuple[float, int, int, int, Task | None]] = []
        self._sequence = 0
        self._random = random.Random(seed)  # noqa: S311 - chance, not secrecy
        self._old: dict[int, deque[Task]] = {}
        self._young: dict[int, deque[Task]] = {}
        self._free: dict[int, list[dict[int, Node]]] = {}
        most = max(offer.shape.cpus for offer in offers)
        for level in self._levels:
            self._free[level] = [{} for _ in range(most + 1)]
        self._mask = dict.fromkeys(self._levels, 0)
        self.cpus_most = most

    # --- time ------------------------------------------------------------------------------------

    @property
    def is_over(self) -> bool:
        """Tell whether all jobs have ended."""
        return self._next >= len(self._jobs) and not self.running and not self.waiting_cpus

    @property
    def quiet_until(self) -> float:
        """Tell when the next job comes, where nothing can happen before; else now."""
        if self.nodes or self.waiting_cpus or self._next >= len(self._jobs):
            return self.now
        return self._jobs[self._next].submit_s

    def advance(self, until: float) -> None:
        """Let everything happen up to a moment, that included."""
        jobs, events = self._jobs, self._events
        while True:
            arrival = jobs[self._next].submit_s if self._next < len(jobs) else float("inf")
            happens = events[0][0] if events else float("inf")
            if min(arrival, happens) > until:
                break
            if arrival <= happens:
                self.now = arrival
                self._arrive(jobs[self._next])
                self._next += 1
            else:
                self.now, _, what, number, task = heapq.heappop(events)
                self._happen(what, number, task)
        self.now = until

    def _happen(self, what: int, number: int, task: Task | None) -> None:
        node = self.nodes.get(number)
        if node is None:
            return
        if what == END and task is not None:
            if node.tasks is not None and id(task) in node.tasks:
                self._end(node, task)
        elif what == READY:
            self._begin(node)
        else:
            self._take(node)

    def _push(self, at: float, what: int, number: int, task: Task | None = None) -> None:
        self._sequence += 1
        heapq.heappush(self._events, (at, self._sequence, what, number, task))

    # --- jobs ------------------------------------------------------------------------------------

    def _arrive(self, job: TraceJob) -> None:
        task = Task(job)
        node = self._find(job.cpus) if not self._queue_is_ahead(job.cpus) else None
        if node is None:
            self._young.setdefault(job.cpus, deque()).append(task)
            self.waiting_cpus += job.cpus
        else:
            self._run(node, task)

    def _queue_is_ahead(self, cpus: int) -> bool:
        return bool(self._old.get(cpus) or self._young.get(cpus))

    def _find(self, cpus: int) -> Node | None:
        for level in self._levels:
            mask = self._mask[level] >> cpus
            if mask:
                free = cpus + (mask & -mask).bit_length() - 1
                return next(iter(self._free[level][free].values()))
        return None

    def _run(self, node: Node, task: Task) -> None:
        job = task.job
        self._shelve(node, node.free - job.cpus)
        self.busy[node.offer] += job.cpus
        node.idle_since = None
        if node.tasks is None:
            node.tasks = {}
        node.tasks[id(task)] = task
        task.began = self.now
        self.running += 1
        self._push(self.now + job.run_s, END, node.id, task)

    def _end(self, node: Node, task: Task) -> None:
        job = task.job
        self._release(node, task)
        total = self.totals[node.offer]
        total.used_core_s += job.cpus * job.run_s
        self.done_s += job.run_s
        self.waits.append(max(0.0, self.now - job.submit_s - job.run_s))
        self._feed(node)

    def _release(self, node: Node, task: Task) -> None:
        assert node.tasks is not None
        del node.tasks[id(task)]
        self.running -= 1
        self.busy[node.offer] -= task.job.cpus
        self._shelve(node, node.free + task.job.cpus)
        if not node.tasks:
            node.idle_since = self.now

    def _feed(self, node: Node) -> None:
        """Give a worker what has waited longest of what fits."""
        while node.free and not node.draining and self.waiting_cpus:
            best: deque[Task] | None = None
            for queues in (self._old, self._young):
                for cpus, queue in queues.items():
                    if queue and cpus <= node.free:
                        ahead = best is None or queue[0].job.submit_s < best[0].job.submit_s
                        best = queue if ahead else best
                if best is not None:
                    break
            if best is None:
                return
            task = best.popleft()
            self.waiting_cpus -= task.job.cpus
            self._run(node, task)

    def waiting(self) -> list[tuple[int, int, int]]:
        """Give CPUs of a job, how many such wait, how many of them are due."""
        limit = self.now - self._patience_s
        found = []
        for cpus in sorted(set(self._old) | set(self._young)):
            old = self._old.setdefault(cpus, deque())
            young = self._young.setdefault(cpus, deque())
            while young and young[0].job.submit_s <= limit:
                old.append(young.popleft())
            if old or young:
                found.append((cpus, len(old) + len(young), len(old)))
        return found

    def drop(self, cpus: int) -> int:
        """Take jobs from the queue that can never run; gives how many."""
        count = 0
        for queues in (self._old, self._young):
            count += len(queues.get(cpus, ()))
            queues.pop(cpus, None)
        self.waiting_cpus -= count * cpus
        return count

    # --- machines --------------------------------------------------------------------------------

    def launch(self, offer: int, count: int) -> int:
        """Start machines; gives how many there was room for."""
        kind = self.offers[offer]
        count = max(0, min(count, kind.count - self.machines[offer], self._quota(kind)))
        for _ in range(count):
            self._sequence += 1
            node = Node(self._sequence, offer, kind.shape.cpus, self.now)
            self.nodes[node.id] = node
            self._push(self.now + kind.boot_s, READY, node.id)
            if kind.interruptions_hour > 0:
                lives_s = self._random.expovariate(kind.interruptions_hour / 3600)
                self._push(self.now + lives_s, TAKEN, node.id)
        self.machines[offer] += count
        self.booting[offer] += count * kind.shape.cpus
        self.totals[offer].machines += count
        return count

    def _quota(self, kind: Offer) -> int:
        """Tell how many machines of an offer its provider's quota of CPUs still allows."""
        limit = self._quotas.get(kind.provider)
        if limit is None:
            return kind.count
        used = sum(
            offer.shape.cpus * count
            for offer, count in zip(self.offers, self.machines, strict=True)
            if offer.provider == kind.provider
        )
        return max(0, (limit - used) // kind.shape.cpus)

    def _begin(self, node: Node) -> None:
        node.ready = True
        node.idle_since = self.now
        node.changes += 1
        self.booting[node.offer] -= node.cpus
        if not node.draining:
            self.supply[node.offer] += node.cpus
        self._shelve(node, node.cpus)
        self._feed(node)

    def drain(self, ids: Iterable[int]) -> None:
        """Let workers take no more jobs."""
        for node in self._known(ids):
            if not node.draining:
                self._shelve(node, node.free, off=True)
                node.draining = True
                self.supply[node.offer] -= node.cpus if node.ready else 0

    def resume(self, ids: Iterable[int]) -> None:
        """Let draining workers take jobs again."""
        for node in self._known(ids):
            if node.draining:
                node.draining = False
                self.supply[node.offer] += node.cpus if node.ready else 0
                self._shelve(node, node.free)
                if node.ready:
                    self._feed(node)

    def remove(self, ids: Iterable[int], *, force: bool = False) -> int:
        """Give workers back; one with jobs only by force. Gives how many were given back."""
        gone = 0
        for node in self._known(ids):
            if node.tasks and not force:
                continue
            self._leave(node)
            gone += 1
        return gone

    def spent(self) -> float:
        """Give what all machines have cost so far, those that are there included."""
        now = self.now
        return sum(total.cost for total in self.totals) + sum(
            (self.offers[node.offer].price_hour or 0.0)
            * billed_s(self.offers[node.offer], now - node.launched_at)
            / 3600
            for node in self.nodes.values()
        )

    def close(self) -> None:
        """Give back everything, at the end."""
        self.remove(list(self.nodes), force=True)

    def _known(self, ids: Iterable[int]) -> list[Node]:
        return [self.nodes[number] for number in ids if number in self.nodes]

    def _take(self, node: Node) -> None:
        """The provider takes a machine away."""
        self.totals[node.offer].taken += 1
        self._leave(node)

    def _leave(self, node: Node) -> None:
        offer, total = self.offers[node.offer], self.totals[node.offer]
        held_s = self.now - node.launched_at
        tasks = list((node.tasks or {}).values())
        for task in tasks:
            total.lost_core_s += task.job.cpus * (self.now - task.began)
            self._release(node, task)
        self._shelve(node, node.free, off=True)
        del self.nodes[node.id]
        self.machines[node.offer] -= 1
        if not node.ready:
            self.booting[node.offer] -= node.cpus
        elif not node.draining:
            self.supply[node.offer] -= node.cpus
        total.held_s += held_s
        total.cost += (offer.price_hour or 0.0) * billed_s(offer, held_s) / 3600
        self._queue_again(node, tasks)

    def _queue_again(self, node: Node, tasks: Sequence[Task]) -> None:
        for task in sorted(tasks, key=lambda each: -each.job.submit_s):
            cpus = task.job.cpus
            self._old.setdefault(cpus, deque()).appendleft(task)
            self.waiting_cpus += cpus
        for task in tasks:
            other = self._find(task.job.cpus)
            if other is not None:
                self._feed(other)

    def _shelve(self, node: Node, free: int, *, off: bool = False) -> None:
        """Put a worker where its free CPUs are found; ``off``: nowhere."""
        level = self._ranks[node.offer]
        shelves = self._free[level]
        if shelves[node.free].pop(node.id, None) is not None and not shelves[node.free]:
            self._mask[level] &= ~(1 << node.free)
        node.free = free
        node.changes += 1
        if free and node.ready and not node.draining and not off:
            shelves[free][node.id] = node
            self._mask[level] |= 1 << free
