"""What our planner costs and lets wait, against others in the same simulated pool."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.bound import least_cost
from bench.rivals import Cobald, Threshold
from bench.scenarios import (
    HEADROOMS,
    IDLE_S,
    LARGE,
    MARKETS,
    SMALL,
    WAIT_MOST_S,
    Market,
    mixed,
    setups,
)
from mayfly.simulation.planned import Planned
from mayfly.simulation.run import Controller, Result, Scenario, simulate
from mayfly.simulation.trace import Trace

SETTLED_S = 1.0
"""Waits that differ by less are the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """One run of one controller with one setting."""

    market: str
    mix: str
    who: str
    setting: str
    cost: float
    p50_s: float
    p95_s: float
    bound: float | None = None
    """The least that anybody could have paid at this wait; only for ours."""
    unfinished: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A run that is still to be made."""

    market: Market
    mix: str
    who: str
    setting: str
    scenario: Scenario
    controller: Callable[[], Controller]

    @property
    def key(self) -> tuple[str, str, str, str]:
        """Name it."""
        return self.market.name, self.mix, self.who, self.setting


def trials(mixes: tuple[str, ...], *, quick: bool) -> Iterator[Trial]:
    """Give all runs of all scenarios, ours first."""
    for market in MARKETS:
        for mix in mixes:
            yield from _ours(market, mix)
            many = [*_thresholds(market, mix), *_cobalds(market, mix)]
            yield from many[:: len(many) // 3] if quick else many


def _ours(market: Market, mix: str) -> Iterator[Trial]:
    for headroom in HEADROOMS:
        yield Trial(
            market=market,
            mix=mix,
            who="mayfly",
            setting=f"headroom {headroom:.0%}",
            scenario=market.scenario((SMALL, LARGE)),
            controller=lambda headroom=headroom: Planned(market.rules(headroom)),  # type: ignore[misc]
        )


def _sizes(mix: str) -> tuple[int, ...]:
    # Jobs of eight cores need machines that have them.
    return (SMALL, LARGE) if mix == "single" else (LARGE,)


def _thresholds(market: Market, mix: str) -> Iterator[Trial]:
    for size in _sizes(mix):
        for idle_s in IDLE_S:
            yield Trial(
                market=market,
                mix=mix,
                who="threshold",
                setting=f"idle {idle_s:.0f} s, {size} CPUs",
                scenario=market.scenario((size,)),
                controller=lambda idle_s=idle_s: Threshold(idle_s=idle_s),  # type: ignore[misc]
            )


def _cobalds(market: Market, mix: str) -> Iterator[Trial]:
    for size in _sizes(mix):
        for setup in setups(market):
            yield Trial(
                market=market,
                mix=mix,
                who="cobald",
                setting=f"{setup}, {size} CPUs",
                scenario=market.scenario((size,), by_price=setup.ranked),
                controller=lambda setup=setup: Cobald(setup),  # type: ignore[misc]
            )


def run_all(
    trace: Trace, *, keep: Path | None, quick: bool, say: Callable[[str], None]
) -> list[Ran]:
    """Make all runs that ``keep`` does not have yet; it grows with each."""
    traces = {"single": trace, "mixed": mixed(trace)}
    have = {(ran.market, ran.mix, ran.who, ran.setting): ran for ran in _kept(keep)}
    for trial in trials(tuple(traces), quick=quick):
        if trial.key in have:
            continue
        say(" / ".join(trial.key))
        ran = _run(trial, traces[trial.mix])
        have[trial.key] = ran
        if keep is not None:
            with keep.open("a") as file:
                file.write(json.dumps(asdict(ran)) + "\n")
    return list(have.values())


def _kept(keep: Path | None) -> list[Ran]:
    if keep is None or not keep.exists():
        return []
    return [Ran(**json.loads(line)) for line in keep.read_text().splitlines()]


def _run(trial: Trial, trace: Trace) -> Ran:
    result = simulate(trace, trial.scenario, trial.controller())
    return Ran(
        market=trial.market.name,
        mix=trial.mix,
        who=trial.who,
        setting=trial.setting,
        cost=result.cost,
        p50_s=result.wait_s(50),
        p95_s=result.wait_s(95),
        bound=_bound(trial, trace, result) if trial.who == "mayfly" else None,
        unfinished=result.unfinished + result.impossible,
    )


def _bound(trial: Trial, trace: Trace, result: Result) -> float:
    return least_cost(
        trace.jobs,
        trial.market.offers((1,)),
        wait_s=result.wait_s(95),
        end_s=result.ended_s,
    )


# --- comparing -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Against:
    """Our cost at no longer wait, against one setting of another."""

    ours: Ran
    theirs: Ran

    @property
    def cost(self) -> float:
        """Give the ratio of the costs."""
        return self.ours.cost / self.theirs.cost

    @property
    def wait(self) -> float:
        """Give the ratio of the waits; where both wait for nothing it is 1."""
        return max(self.ours.p95_s, SETTLED_S) / max(self.theirs.p95_s, SETTLED_S)


def against(ran: list[Ran], who: str, market: str, mix: str, *, only: str = "") -> list[Against]:
    """Set each setting of another that a site would keep against our cheapest that waits no longer.

    Where none of ours waits so short, that of ours which waits shortest is taken: the wait tells.
    ``only``: settings with these words.
    """
    here = [each for each in ran if (each.market, each.mix) == (market, mix)]
    ours = [each for each in here if each.who == "mayfly"]
    found = []
    for theirs in here:
        if theirs.who != who or theirs.unfinished or only not in theirs.setting:
            continue
        if theirs.p95_s > WAIT_MOST_S:
            continue
        able = [each for each in ours if each.p95_s <= theirs.p95_s + SETTLED_S]
        best = min(able, key=lambda each: each.cost) if able else min(ours, key=lambda e: e.p95_s)
        found.append(Against(ours=best, theirs=theirs))
    return found
