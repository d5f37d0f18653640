"""What the bench of the planner compares, and how."""

from __future__ import annotations

import itertools
import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from bench.bound import least_cost
from bench.burst import _metrics
from bench.burst import main as bench_main
from bench.cycle import Size, exponent, snapshot
from bench.quality import Ran, _kept, against, trials
from bench.rivals import Cobald, Drones, Setup, Threshold
from bench.scenarios import MARKETS, mixed, setups
from mayfly.model import Shape
from mayfly.planner.model import Offer, Rules
from mayfly.planner.plan import plan
from mayfly.simulation.planned import Planned
from mayfly.simulation.pool import Pool
from mayfly.simulation.run import Scenario, simulate
from mayfly.simulation.trace import Trace, TraceJob, read_trace

PACKAGES = Path(__file__).parents[3] / ".build/bench-packages"
SAMPLE = Path(__file__).parents[2] / "material/sample.swf"
OFFER = Offer(
    name="o", provider="p", shape=Shape(cpus=4, memory_mib=0), price_hour=4.0, count=9, boot_s=60.0
)
OURS = Ran(
    market="two", mix="single", who="mayfly", setting="a", cost=80, p50_s=0, p95_s=50, bound=70
)


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have what the bench installs for itself; elsewhere these tests say that it is not there."""
    monkeypatch.syspath_prepend(str(PACKAGES))
    pytest.importorskip("cobald", reason="'scripts/bench burst' has not installed it yet")


# --- comparing -----------------------------------------------------------------------------------


def test_ours_at_no_longer_wait_is_compared() -> None:
    quick = replace(OURS, setting="b", cost=95, p95_s=10)
    theirs = replace(OURS, who="cobald", setting="x", cost=100, p95_s=20, bound=None)
    slow = replace(theirs, setting="y", p95_s=900)
    one, two = against([OURS, quick, theirs, slow], "cobald", "two", "single")
    assert (one.cost, one.wait) == (0.95, 0.5)
    assert two.cost == 0.8


def test_where_they_wait_shorter_than_any_of_ours_the_wait_tells() -> None:
    theirs = replace(OURS, who="cobald", setting="x", cost=100, p95_s=10, bound=None)
    (one,) = against([OURS, theirs], "cobald", "two", "single")
    assert one.wait == 5


def test_settings_that_no_site_would_keep_are_left_out() -> None:
    theirs = replace(OURS, who="cobald", setting="x", cost=1, p95_s=9000, bound=None)
    broken = replace(theirs, p95_s=20, unfinished=1)
    assert not against([OURS, theirs, broken], "cobald", "two", "single")


def test_the_worst_of_all_comparisons_is_the_figure() -> None:
    ran = []
    for number, market in enumerate(MARKETS):
        ours = replace(OURS, market=market.name, setting="headroom 5%", bound=80 / (1 + number))
        theirs = replace(OURS, market=market.name, who="cobald", setting="x, cheap first", cost=160)
        blind = replace(theirs, setting="x, any worker", cost=320)
        rule = replace(theirs, who="threshold", cost=100 + number)
        ran += [ours, theirs, blind, rule]
    found = {metric.key: metric.value for metric in _metrics(ran)}
    assert found == {
        "cost_vs_cobald": 0.5,
        "cost_vs_cobald_unranked": 0.25,
        "flat_cost_vs_cobald": 0.5,
        "p95_wait_vs_cobald": 1.0,
        "cost_vs_threshold": 0.8,
        "cost_vs_offline": 4.0,
    }


def test_what_was_run_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "kept"
    assert _kept(file) == []
    file.write_text(json.dumps(asdict(OURS)) + "\n")
    assert _kept(file) == [OURS]


def test_every_trial_has_a_name_of_its_own() -> None:
    keys = [trial.key for trial in trials(("single", "mixed"), quick=False)]
    assert len(keys) == len(set(keys))
    assert {key[2] for key in keys} == {"mayfly", "cobald", "threshold"}


def test_a_trace_that_is_not_there_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench_main(["--trace", "/nowhere/at.all"]) == 2
    assert "there is no /nowhere/at.all" in capsys.readouterr().err


def test_the_mix_is_the_same_work_each_time() -> None:
    trace = read_trace(SAMPLE)
    assert mixed(trace) == mixed(trace)
    single = Trace(jobs=tuple(TraceJob(j.submit_s, j.run_s, 1) for j in trace.jobs), dropped=0)
    assert mixed(single).core_hours == pytest.approx(single.core_hours)
    assert {job.cpus for job in mixed(single).jobs} == {1, 2, 4, 8}


# --- the others ----------------------------------------------------------------------------------


def test_a_drone_pool_says_what_is_used_and_releases_what_uses_least() -> None:
    jobs = [TraceJob(0, 9000, 3), TraceJob(1, 9000, 2)]
    pool = Pool(jobs, [OFFER], ranks=[0])
    drones = Drones(pool, 0)
    assert (drones.supply, drones.utilisation) == (0.0, 1.0)
    drones.demand = 9.0
    assert drones.orders([]) == (3, [])
    pool.launch(0, 3)
    pool.advance(100)
    nodes = list(pool.nodes.values())
    drones.look(nodes)
    assert (drones.supply, drones.utilisation) == (12.0, 5 / 12)
    drones.demand = 4.0
    count, released = drones.orders(nodes)
    assert count == 0
    assert [pool.nodes[number].free for number in released] == [4, 2]


def test_a_threshold_starts_for_what_waits_and_gives_back_what_is_idle() -> None:
    dear = replace(OFFER, name="d", price_hour=9.0)
    pool = Pool([TraceJob(0, 60, 1)] * 38, [dear, replace(OFFER, count=8)], ranks=[1, 0])
    pool.advance(0)
    rule = Threshold(idle_s=300)
    orders = rule.decide(pool)
    assert list(orders.starts) == [(1, 8), (0, 2)]
    for number, count in orders.starts:
        pool.launch(number, count)
    assert not rule.decide(pool).starts
    pool.advance(60 + 60 + 299)
    assert not rule.decide(pool).removals
    pool.advance(60 + 60 + 301)
    assert len(rule.decide(pool).removals) == 10


@pytest.mark.usefixtures("packages")
@pytest.mark.parametrize(
    "setup",
    [
        Setup(
            controller="linear" if rate < 1 else "relative",
            low=0.9,
            high=0.95,
            rate=rate,
            together=together,
            ranked=True,
        )
        for rate, together in itertools.product([0.2, 1.1], [True, False])
    ],
)
def test_controllers_of_cobald_run_all_jobs(setup: Setup) -> None:
    scenario = Scenario(offers=MARKETS[1].offers((8,)))
    result = simulate(read_trace(SAMPLE), scenario, Cobald(setup))
    assert result.unfinished == 0
    assert result.cost > 0


def test_each_market_has_settings() -> None:
    for market in MARKETS:
        names = [str(setup) for setup in setups(market)]
        assert len(names) == len(set(names)) >= 8


# --- the bound -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("packages")
def test_the_bound_is_what_a_hand_calculation_gives() -> None:
    # One job of one core and ten hours: ten hours and nothing else can be left out.
    offers = [replace(OFFER, shape=Shape(cpus=1, memory_mib=0), price_hour=1.0, boot_s=0.0)]
    jobs = [TraceJob(0, 36_000, 1)]
    assert least_cost(jobs, offers, wait_s=0, end_s=40_000) == pytest.approx(10.0)
    # A boot of half an hour is paid for, and computes nothing.
    booted = [replace(offers[0], boot_s=1800.0)]
    assert least_cost(jobs, booted, wait_s=0, end_s=45_000) == pytest.approx(10.25, abs=0.26)
    # Twenty jobs at once that may not wait need the dear offer; one of them may.
    few = replace(offers[0], count=10)
    dear = replace(offers[0], name="dear", price_hour=3.0, count=100)
    many = [TraceJob(0, 7200, 1)] * 20
    found = least_cost(many, [few, dear], wait_s=0, end_s=40_000)
    assert found == pytest.approx(11 * 2 * 1.0 + 9 * 2 * 3.0)
    assert least_cost(many, [few, dear], wait_s=7200, end_s=40_000) == pytest.approx(40.0)


@pytest.mark.usefixtures("packages")
@pytest.mark.parametrize("market", MARKETS, ids=lambda market: market.name)
def test_nobody_is_below_the_bound(market: object) -> None:
    (found,) = [each for each in MARKETS if each is market]
    trace = read_trace(SAMPLE)
    result = simulate(trace, found.scenario((2, 8)), Planned(found.rules(0.05)))
    bound = least_cost(
        trace.jobs, found.offers((1,)), wait_s=result.wait_s(95), end_s=result.ended_s
    )
    # Chance may spare a machine from interruptions; the bound goes by what is to be expected.
    assert 0 < bound <= result.cost * (1.1 if found.interruptions else 1.0)


# --- the cycle -----------------------------------------------------------------------------------


def test_growth_is_the_slope_of_the_logarithms() -> None:
    sizes = tuple(Size(machines=number, jobs=1) for number in (10, 100, 1000))
    assert exponent(sizes, [1.0, 10.0, 100.0]) == pytest.approx(1.0)
    assert exponent(sizes, [1.0, 1.0, 1.0]) == pytest.approx(0.0)
    assert exponent(sizes, [1.0, 100.0, 10_000.0]) == pytest.approx(2.0)


def test_what_is_measured_makes_the_planner_do_all_that_it_can() -> None:
    decision = plan(snapshot(Size(machines=2000, jobs=20_000)), Rules(start_most=200))
    assert decision.starts
    assert decision.removals
    assert decision.drains
    assert decision.kept
    assert decision.unmet
