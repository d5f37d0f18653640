"""Measure the planner: how fast it decides, and what its decisions cost against those of others.

``--trace FILE`` names the jobs (Standard Workload Format) for the group ``quality``; without it
the small sample is used, and the figures do not count. ``--keep FILE`` keeps each run: the next
call goes on there. ``docs/reference/benchmarks.md`` tells what each figure means.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from bench.client import REPOSITORY, BenchError
from bench.cycle import SIZES, Size, exponent, measure
from bench.groups import Bench
from bench.quality import Against, Ran, against, run_all
from bench.report import Findings, Metric
from bench.scenarios import MARKETS
from bench.setting import FULL, Setting
from mayfly.planner.model import Rules
from mayfly.simulation.trace import read_trace

SAMPLE = REPOSITORY / "tests/material/sample.swf"
DEFAULT = f"headroom {Rules().headroom_share:.0%}"
MIXES = ("single", "mixed")
QUICK_SIZES = tuple(Size(machines=each.machines // 20, jobs=each.jobs // 20) for each in SIZES)


def planner(setting: Setting) -> Findings:
    """Measure one decision at three sizes."""
    full = setting.counts == FULL
    sizes, rounds = (SIZES, 7) if full else (QUICK_SIZES, 2)
    cycles = []
    for size in sizes:
        setting.say(f"{size.machines} machines, {size.jobs} jobs")
        cycles.append(measure(size, rounds))
    most, last = sizes[-1], cycles[-1]
    what = f"{most.machines} machines, {most.jobs} jobs in 500 groups, 20 providers"
    power = exponent(sizes, [cycle.cycle_s for cycle in cycles])
    grown = "; ".join(
        f"{size.machines}: {cycle.cycle_s:.3f} s" for size, cycle in zip(sizes, cycles, strict=True)
    )
    return Findings(
        metrics=(
            _metric("planner_cycle_s", last.cycle_s, "s", 1.0, f"{what}; median of {rounds}"),
            _metric("planner_rss_mib", last.rss_mib, "MiB", 1024.0, "the whole process"),
            _metric("planner_growth_exponent", power, "", 1.0, grown),
            _metric("planner_grouping_s", last.grouping_s, "s", None, f"{most.jobs} jobs"),
        ),
        notes=(f"at the largest size: {last.starts} starts, {last.changes} other changes",),
    )


def _metric(key: str, value: float, unit: str, goal: float | None, against_: str) -> Metric:
    return Metric(key=key, value=value, unit=unit, goal=goal, better="lower", against=against_)


def quality(setting: Setting, trace: Path | None, keep: Path | None) -> Findings:
    """Run every controller in every scenario, and compare."""
    quick = setting.counts != FULL
    try:
        ran = run_all(read_trace(trace or SAMPLE), keep=keep, quick=quick, say=setting.say)
    except ModuleNotFoundError as error:
        raise BenchError(f"{error}: scripts/bench installs what the comparison needs") from error
    metrics = _metrics(ran)
    jobs = "the small sample, which proves nothing" if trace is None else trace.name
    return Findings(metrics=metrics, notes=(f"jobs: {jobs}", *_notes(ran)))


def _metrics(ran: list[Ran]) -> tuple[Metric, ...]:
    priced = [market.name for market in MARKETS if market.priced]
    flat = [market.name for market in MARKETS if not market.priced]
    worst = _worst(ran, "cobald", priced)
    level = _worst(ran, "cobald", flat)
    every = [one for name in flat + priced for one in _all(ran, "cobald", [name])]
    wait = max(every, key=lambda one: one.wait)
    blind = _worst(ran, "cobald", priced, "any worker")
    threshold = _worst(ran, "threshold", flat + priced)
    offline = max(_defaults(ran), key=lambda one: one.cost / (one.bound or one.cost))
    return (
        _metric("cost_vs_cobald", worst.cost, "times", 0.7, _named(worst)),
        _metric("cost_vs_cobald_unranked", blind.cost, "times", 0.7, _named(blind)),
        _metric("flat_cost_vs_cobald", level.cost, "times", 1.0, _named(level)),
        _metric("p95_wait_vs_cobald", wait.wait, "times", 1.0, _named(wait)),
        _metric("cost_vs_threshold", threshold.cost, "times", None, _named(threshold)),
        _metric(
            "cost_vs_offline",
            offline.cost / (offline.bound or offline.cost),
            "times",
            1.4,
            f"{offline.market}, {offline.mix}: {offline.cost:.0f} against {offline.bound or 0:.0f}",
        ),
    )


def _all(ran: list[Ran], who: str, markets: Sequence[str], only: str = "") -> list[Against]:
    return [
        one for name in markets for mix in MIXES for one in against(ran, who, name, mix, only=only)
    ]


def _worst(ran: list[Ran], who: str, markets: Sequence[str], only: str = "") -> Against:
    found = _all(ran, who, markets, only)
    if not found:
        raise BenchError(f"no setting of {who} keeps the waits short enough to be compared")
    return max(found, key=lambda one: one.cost)


def _named(one: Against) -> str:
    ours, theirs = one.ours, one.theirs
    return (
        f"{theirs.market}, {theirs.mix}: {ours.cost:.0f} (p95 {ours.p95_s:.0f} s, {ours.setting}) "
        f"against {theirs.cost:.0f} (p95 {theirs.p95_s:.0f} s, {theirs.setting})"
    )


def _defaults(ran: list[Ran]) -> list[Ran]:
    return [one for one in ran if one.who == "mayfly" and one.setting == DEFAULT]


def _notes(ran: list[Ran]) -> list[str]:
    lines = []
    for market in MARKETS:
        for mix in MIXES:
            for one in ran:
                if (one.market, one.mix, one.who) == (market.name, mix, "mayfly"):
                    bound = one.cost / (one.bound or one.cost)
                    lines.append(
                        f"{market.name}, {mix}: mayfly, {one.setting}: cost {one.cost:.0f}, p50 "
                        f"{one.p50_s:.0f} s, p95 {one.p95_s:.0f} s, {bound:.2f} of the bound"
                    )
            for who in ("cobald", "threshold"):
                found = against(ran, who, market.name, mix)
                if found:
                    one_ = max(found, key=lambda each: each.cost)
                    lines.append(f"  nearest {who}: {one_.cost:.2f}; {_named(one_)}")
    return lines


def bench(trace: Path | None, keep: Path | None) -> Bench:
    """Give the bench with its jobs."""
    groups: dict[str, Callable[[Setting], Findings]] = {
        "planner": planner,
        "quality": partial(quality, trace=trace, keep=keep),
    }
    return Bench(name="burst", text=str(__doc__), groups=groups)


BENCH = bench(None, None)


def main(words: Sequence[str]) -> int:
    """Take what is ours from the command line; the rest is that of every bench."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--trace", type=Path)
    parser.add_argument("--keep", type=Path)
    ours, rest = parser.parse_known_args(words)
    if ours.trace is not None and not ours.trace.exists():
        print(f"bench: there is no {ours.trace}", file=sys.stderr)
        return 2
    return bench(ours.trace, ours.keep).main(rest)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
