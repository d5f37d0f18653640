"""Kills one part of the whole, chosen at random."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from soak.jobs import Running
from soak.service import Supervised, children, qemus

TARGETS = ("service", "client", "qemu", "worker")
WEIGHTS = (3, 3, 3, 2)


@dataclass(slots=True)
class Killer:
    """What was killed so far."""

    counts: Counter[str] = field(default_factory=Counter)
    times: list[float] = field(default_factory=list)
    """By the monotonic clock, of this run."""

    def strike(self, rng: random.Random, service: Supervised, jobs: Sequence[Running]) -> bool:
        """Kill something; false when there was nothing of the kind that was drawn."""
        target = rng.choices(TARGETS, WEIGHTS)[0]
        if target == "client":
            return self._client(rng, jobs)
        main = service.process
        if main is None or main.poll() is not None:
            return False
        found = _found(target, main.pid)
        return bool(found) and self._kill(rng.choice(found), target)

    def _client(self, rng: random.Random, jobs: Sequence[Running]) -> bool:
        alive = [job for job in jobs if job.process.poll() is None and not job.killed]
        if not alive:
            return False
        job = rng.choice(alive)
        job.killed = True
        return self._kill(job.process.pid, "client")

    def _kill(self, pid: int, target: str) -> bool:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return False
        self.counts[target] += 1
        self.times.append(time.monotonic())
        return True


def _found(target: str, service: int) -> list[int]:
    if target == "service":
        return [service]
    if target == "qemu":
        return qemus()
    # Those that make and save machines, and those that serve a network.
    return sorted(set(children(service)) - set(qemus()))
