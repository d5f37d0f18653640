"""Measure what a machine adds to jobs of a real batch system, with daemons of the bench's own.

``docs/reference/benchmarks.md`` tells what each figure means.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from bench.batch_gridengine import gridengine
from bench.batch_share import shares
from bench.client import BenchError
from bench.groups import Bench
from bench.pairs import Pair, added
from bench.report import Findings, Metric
from bench.setting import FULL, IMAGE, Setting
from tests.integration.host import host_of
from tests.integration.slurm import TOOLS, Slurm, slurm_of

MEMORY = "--mem=640"
VM = f"--vm-image={IMAGE}"
JOB = "#!/bin/sh\nsleep 2\necho whole\n"
JOBS_LIMIT_S = 1800.0
LOOK_S = 0.2
READY = f'requests = "registered"\n[[standby]]\nimage = "{IMAGE}"\nleast = 4\nmost = 8\n'


@dataclass(frozen=True, slots=True, kw_only=True)
class Many:
    """What became of many jobs that were submitted at once."""

    wall_s: float
    lost: int


def slurm(setting: Setting) -> Findings:
    """Measure jobs of Slurm on two nodes with two CPUs each, with a machine and without."""
    full = setting.counts == FULL
    count = 200 if full else 12
    with _cluster(setting) as cluster:
        pair = Pair(
            bare=lambda: _first_output(cluster, []),
            machine=lambda: _first_output(cluster, [VM]),
            ready=lambda: cluster.host.refilled(4),
            command="srun",
        )
        first = added(setting, "slurm", pair)
        share = shares(setting, cluster, [MEMORY], VM)
        cluster.host.refilled(4)
        setting.say(f"{count} jobs without machines, and {count} with")
        bare, machines = (_many(cluster, count, words) for words in ([], [VM]))
    walls = f"{count} jobs: {bare.wall_s:.1f} s bare, {machines.wall_s:.1f} s with"
    return Findings(
        metrics=(*first.metrics, *_throughput(bare, machines, count), *share.metrics),
        notes=(*first.notes, walls, *share.notes),
    )


@contextmanager
def _cluster(setting: Setting) -> Iterator[Slurm]:
    lacking = [name for name in TOOLS if shutil.which(name) is None]
    if lacking:
        raise BenchError(f"no {', '.join(lacking)}: scripts/setup installs them")
    setting.warm()
    setting.say("starting a Slurm")
    with host_of(setting.home, READY) as host, slurm_of(host) as cluster:
        host.refilled(4)
        yield cluster


def _first_output(cluster: Slurm, words: list[str]) -> float:
    began = time.monotonic()
    process = cluster.begin("srun", "--quiet", MEMORY, *words, "echo", "whole")
    assert process.stdout is not None
    line = process.stdout.readline()
    took = time.monotonic() - began
    _, said = process.communicate()
    if line != "whole\n":
        raise BenchError(f"a job failed: {said[-1000:]}")
    return took


def _many(cluster: Slurm, count: int, words: list[str]) -> Many:
    """Submit jobs as fast as it goes, and wait for the last one's end."""
    for file in cluster.work.glob("slurm-*.out"):
        file.unlink()
    began = time.monotonic()
    numbers = [cluster.submit(MEMORY, *words, script=JOB) for _ in range(count)]
    while cluster.run("squeue", "-h").stdout:
        if time.monotonic() - began > JOBS_LIMIT_S:
            raise BenchError("the jobs did not end")
        time.sleep(LOOK_S)
    wall_s = time.monotonic() - began
    outputs = [(cluster.work / f"slurm-{number}.out") for number in numbers]
    whole = sum(each.exists() and "whole\n" in each.read_text() for each in outputs)
    return Many(wall_s=wall_s, lost=count - whole)


def _throughput(bare: Many, machines: Many, count: int) -> tuple[Metric, ...]:
    return (
        Metric(
            key="slurm_throughput_ratio",
            value=bare.wall_s / machines.wall_s,
            unit="times",
            better="higher",
            goal=0.8,
            against=f"{count} jobs of 'sleep 2' in 4 slots without machines",
        ),
        Metric(
            key="machines_per_minute",
            value=count * 60 / machines.wall_s,
            unit="1/min",
            better="higher",
            against="the same jobs",
        ),
        Metric(
            key="lost_jobs",
            value=bare.lost + machines.lost,
            unit="jobs",
            better="lower",
            goal=0,
            against="all of these jobs",
        ),
    )


GROUPS: dict[str, Callable[[Setting], Findings]] = {"slurm": slurm, "gridengine": gridengine}
BENCH = Bench(name="batch", text=str(__doc__), groups=GROUPS)

if __name__ == "__main__":
    sys.exit(BENCH.main(sys.argv[1:]))
