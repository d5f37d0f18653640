"""Time a batch system's job by turns without a machine and with one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bench.report import Findings, Metric, median, spread
from bench.setting import FULL, Setting

GOAL_S = 0.6


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """How both are timed; each gives the seconds to the job's first output."""

    bare: Callable[[], float]
    machine: Callable[[], float]
    ready: Callable[[], None]
    """Called before each machine: waits until enough stand by."""
    command: str


def added(setting: Setting, system: str, pair: Pair) -> Findings:
    """Measure what a machine adds to a job, ``SYSTEM_added_s``."""
    count = 21 if setting.counts == FULL else 3
    bare: list[float] = []
    machines: list[float] = []
    setting.say(f"{count} pairs of {pair.command}")
    for _ in range(count):
        bare.append(pair.bare())
        pair.ready()
        machines.append(pair.machine())
    metric = Metric(
        key=f"{system}_added_s",
        value=median(machines) - median(bare),
        unit="s",
        better="lower",
        goal=GOAL_S,
        against=f"{pair.command} to the job's first output, without a machine",
    )
    notes = (
        f"{pair.command}, bare:    {spread(bare)}",
        f"{pair.command}, machine: {spread(machines)}",
    )
    return Findings(metrics=(metric,), notes=notes)
