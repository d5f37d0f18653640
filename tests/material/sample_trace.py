"""Writes ``sample.swf``: three days of jobs that nobody has run, by a fixed seed.

python -m tests.material.sample_trace > tests/material/sample.swf
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator

SEED, JOBS, DAYS = 1, 600, 3


def lines() -> Iterator[str]:
    """Give the lines: more jobs by day than by night, some of several cores, few long ones."""
    chance = random.Random(SEED)
    yield "; Version: 2.2"
    yield f"; Note: made by a program with seed {SEED}; no such jobs have ever run"
    times: list[int] = []
    while len(times) < JOBS:
        time_s = chance.uniform(0, DAYS * 86_400)
        if chance.random() < 0.5 + 0.5 * math.sin(2 * math.pi * time_s / 86_400 - 1):
            times.append(int(time_s))
    for number, time_s in enumerate(sorted(times), start=1):
        run_s = min(86_400, int(chance.lognormvariate(6.5, 1.8)))
        cpus = chance.choices([1, 2, 4, 8], [0.7, 0.1, 0.1, 0.1])[0]
        yield _line(number, time_s, run_s, cpus)
    for number in range(JOBS + 1, JOBS + 4):
        yield _line(number, DAYS * 86_400, -1, 1)


def _line(number: int, submit_s: int, run_s: int, cpus: int) -> str:
    status = 1 if run_s >= 0 else 5
    words = [number, submit_s, -1, run_s, cpus, -1, -1, cpus, -1, -1, status, *[-1] * 7]
    return " ".join(map(str, words))


if __name__ == "__main__":
    print("\n".join(lines()))
