"""The simulated pool: machines, placement, time, cost; and the planner that drives it."""

from __future__ import annotations

import random
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import replace

import pytest

from mayfly.errors import Invalid
from mayfly.model import Shape
from mayfly.planner.model import Ceiling, Offer, Rules
from mayfly.simulation.planned import Planned
from mayfly.simulation.plot import draw
from mayfly.simulation.pool import Pool
from mayfly.simulation.run import Orders, Scenario, simulate
from mayfly.simulation.trace import Trace, TraceJob

OFFER = Offer(
    name="o",
    provider="p",
    shape=Shape(cpus=4, memory_mib=0),
    price_hour=3.6,
    count=10,
    boot_s=100.0,
)


def trace_of(*jobs: TraceJob) -> Trace:
    return Trace(jobs=tuple(sorted(jobs)), dropped=0)


def pool_of(*jobs: TraceJob, offers: Sequence[Offer] = (OFFER,)) -> Pool:
    return Pool(jobs, offers, ranks=list(range(len(offers))))


def test_a_job_runs_when_its_machine_has_booted() -> None:
    pool = pool_of(TraceJob(0, 50, 2))
    pool.advance(0)
    assert pool.waiting() == [(2, 1, 1)]
    pool.launch(0, 1)
    pool.advance(100)
    assert (pool.busy, pool.running, pool.waiting()) == ([2], 1, [])
    pool.advance(150)
    assert pool.is_over
    assert pool.waits == [100.0]
    pool.close()
    assert pool.totals[0].cost == pytest.approx(150 * 3.6 / 3600)
    assert pool.totals[0].used_core_s == 100


def test_the_fullest_worker_is_filled_and_cheap_ones_before_dear_ones() -> None:
    dear = replace(OFFER, name="dear", price_hour=9.0)
    jobs = [TraceJob(200, 900, 3), TraceJob(201, 900, 2), TraceJob(202, 900, 1)]
    pool = pool_of(*jobs, offers=(OFFER, dear))
    pool.launch(1, 1)
    pool.launch(0, 2)
    pool.advance(300)
    assert pool.busy == [6, 0]
    assert sorted(node.free for node in pool.nodes.values() if node.offer == 0) == [0, 2]


def test_a_small_job_passes_a_large_one_that_does_not_fit() -> None:
    pool = pool_of(TraceJob(0, 500, 3), TraceJob(1, 500, 3), TraceJob(2, 500, 1))
    pool.launch(0, 1)
    pool.advance(150)
    assert pool.busy == [4]
    assert pool.waiting() == [(3, 1, 1)]


def test_a_draining_worker_takes_nothing_until_it_is_told_to() -> None:
    pool = pool_of(TraceJob(200, 50, 1))
    pool.launch(0, 1)
    pool.advance(150)
    number = next(iter(pool.nodes))
    pool.drain([number])
    assert pool.supply == [0]
    pool.advance(300)
    assert pool.running == 0
    pool.resume([number])
    assert (pool.running, pool.supply) == (1, [4])


def test_a_worker_with_jobs_goes_only_by_force_and_its_jobs_begin_anew() -> None:
    pool = pool_of(TraceJob(0, 500, 1))
    pool.launch(0, 2)
    pool.advance(300)
    busy = next(node.id for node in pool.nodes.values() if node.tasks)
    assert pool.remove([busy]) == 0
    assert pool.remove([busy, 12345], force=True) == 1
    assert pool.running == 1
    assert pool.totals[0].lost_core_s == 200
    pool.advance(800)
    assert pool.waits == [300.0]


def test_no_more_are_launched_than_there_are() -> None:
    assert pool_of().launch(0, 11) == 10
    pool = Pool([], [OFFER], ranks=[0], quotas={"p": 9})
    assert pool.launch(0, 11) == 2
    assert pool.launch(0, -3) == 0


def test_spot_is_taken_away_and_the_work_is_done_all_the_same() -> None:
    spot = replace(OFFER, interruptions_hour=2.0)
    jobs = [TraceJob(number * 10, 900, 1) for number in range(200)]
    result = simulate(trace_of(*jobs), Scenario(offers=(spot,)), Planned(Rules()))
    assert result.unfinished == 0
    assert result.totals[0].taken > 0
    assert result.totals[0].lost_core_s > 0
    assert result.totals[0].used_core_s == 200 * 900


def test_patience_is_kept() -> None:
    trace = trace_of(TraceJob(0, 60, 1))
    scenario = Scenario(offers=(OFFER,), patience_s=600)
    result = simulate(trace, scenario, Planned(Rules()))
    assert result.wait_s(50) == 700


# --- accounts balance, whatever happens -----------------------------------------------------------


class Random:
    """Does what nobody would do, by chance."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)

    def decide(self, pool: Pool) -> Orders:
        check_books(pool)
        chance, ids = self._chance, list(pool.nodes)
        some = [number for number in ids if chance.random() < 0.1]
        return Orders(
            starts=[(chance.randrange(len(pool.offers)), chance.randrange(3))],
            drains=some,
            resumes=[number for number in ids if chance.random() < 0.1],
            removals=[number for number in ids if chance.random() < 0.02],
            force=chance.random() < 0.3,
        )


def check_books(pool: Pool) -> None:
    for number, offer in enumerate(pool.offers):
        nodes = [node for node in pool.nodes.values() if node.offer == number]
        ready = [node for node in nodes if node.ready]
        assert pool.machines[number] == len(nodes) <= offer.count
        assert pool.booting[number] == sum(node.cpus for node in nodes if not node.ready)
        assert pool.supply[number] == sum(node.cpus for node in ready if not node.draining)
        assert pool.busy[number] == sum(node.cpus - node.free for node in ready)
        for node in ready:
            used = sum(task.job.cpus for task in (node.tasks or {}).values())
            assert used == node.cpus - node.free >= 0
            assert (node.idle_since is None) == bool(used)
    waiting = pool.waiting()
    assert pool.waiting_cpus == sum(cpus * count for cpus, count, _ in waiting)


@pytest.mark.parametrize("seed", range(5))
def test_books_balance_under_any_controller(seed: int) -> None:
    chance = random.Random(seed)
    jobs = [
        TraceJob(chance.uniform(0, 20_000), chance.expovariate(1 / 2000), chance.choice([1, 2, 4]))
        for _ in range(400)
    ]
    spot = replace(OFFER, name="s", provider="q", interruptions_hour=1.0, price_hour=1.0)
    result = simulate(trace_of(*jobs), Scenario(offers=(OFFER, spot), seed=seed), Random(seed))
    assert (result.unfinished, len(result.waits)) == (0, 400)
    done = sum(job.cpus * job.run_s for job in jobs)
    assert sum(total.used_core_s for total in result.totals) == pytest.approx(done)
    held = sum(total.held_s * 4 for total in result.totals)
    assert held >= done + sum(total.lost_core_s for total in result.totals)


# --- the whole -----------------------------------------------------------------------------------


class Idle:
    """Never does anything."""

    def decide(self, pool: Pool) -> Orders:
        return Orders()


def test_jobs_that_never_run_are_told_and_do_not_hang() -> None:
    trace = trace_of(TraceJob(0, 60, 1), TraceJob(0, 60, 64))
    result = simulate(trace, Scenario(offers=(OFFER,), cycle_s=3600), Idle())
    assert (result.impossible, result.unfinished, result.cost) == (1, 1, 0.0)
    assert result.wait_s(95) == 0.0


def test_a_budget_holds_to_the_end() -> None:
    jobs = [TraceJob(number, 7200, 4) for number in range(10)]
    planned = Planned(Rules(), budget=12.0)
    result = simulate(trace_of(*jobs), Scenario(offers=(OFFER,), cycle_s=600), planned)
    assert result.unfinished > 0
    assert any("budget of group" in reason for reason in planned.reasons)
    # What runs goes on to its end, so a job may pass the budget by its own length.
    assert 0 < result.cost <= 12.0 + 3 * 7.2


def test_a_budget_begins_anew_with_its_window() -> None:
    jobs = [TraceJob(number, 7200, 4) for number in range(10)]
    planned = Planned(Rules(), budget=12.0, window_s=86_400)
    result = simulate(trace_of(*jobs), Scenario(offers=(OFFER,), cycle_s=600), planned)
    assert result.unfinished == 0
    assert result.ended_s > 2 * 86_400


@pytest.mark.parametrize("cycle_s", [60.0, 420.0, 1000.0])
def test_an_hour_that_is_paid_for_is_used_and_no_other_is_begun(cycle_s: float) -> None:
    hourly = replace(OFFER, billing_step_s=3600.0, boot_s=0.0)
    trace = trace_of(TraceJob(0, 600, 1), TraceJob(40_000, 1, 1))
    planned = Planned(Rules(cycle_s=cycle_s))
    result = simulate(trace, Scenario(offers=(hourly,), cycle_s=cycle_s), planned)
    assert result.totals[0].held_s > 3600 - cycle_s
    assert result.cost == pytest.approx(2 * 3.6)


def test_years_in_which_nothing_happens_take_no_time() -> None:
    trace = trace_of(TraceJob(0, 600, 1), TraceJob(3e9 + 1, 600, 1))
    result = simulate(trace, Scenario(offers=(OFFER,)), Planned(Rules()))
    assert list(result.waits) == pytest.approx([100.0, 159.0])
    assert len(result.samples) < 10


def test_quotas_and_counts_hold() -> None:
    jobs = [TraceJob(0, 3600, 1) for _ in range(100)]
    rules = Rules(quotas={"p": Ceiling(cpus=8)})
    result = simulate(trace_of(*jobs), Scenario(offers=(OFFER,)), Planned(rules))
    assert max(sample.cpus[0] for sample in result.samples) == 8
    assert result.unfinished == 0


def test_the_same_seed_gives_the_same_result() -> None:
    spot = replace(OFFER, interruptions_hour=1.0)
    trace = trace_of(*[TraceJob(number * 7, 1000, 1) for number in range(100)])
    one, two, other = (
        simulate(trace, Scenario(offers=(spot,), seed=seed), Planned(Rules())) for seed in (1, 1, 2)
    )
    assert (one.cost, one.waits) == (two.cost, two.waits)
    assert one.cost != other.cost


@pytest.mark.parametrize("price", [None, -1.0, float("nan")])
def test_an_offer_without_a_price_cannot_be_simulated(price: float | None) -> None:
    scenario = Scenario(offers=(replace(OFFER, price_hour=price),))
    with pytest.raises(Invalid, match="cannot be simulated"):
        simulate(trace_of(TraceJob(0, 1, 1)), scenario, Idle())
    with pytest.raises(Invalid, match="no offer"):
        simulate(trace_of(TraceJob(0, 1, 1)), Scenario(offers=()), Idle())


def test_a_plot_is_well_formed_whatever_offers_are_called() -> None:
    odd = replace(OFFER, name="<a & 'b'>")
    jobs = [TraceJob(number * 60, 3000, 1) for number in range(50)]
    result = simulate(trace_of(*jobs), Scenario(offers=(odd,)), Planned(Rules()))
    tree = ET.fromstring(draw(result, "cost < 5 & more"))
    assert [each.text for each in tree.iter() if each.text and "b'>" in each.text]
    assert len([each for each in tree.iter() if each.tag.endswith("polygon")]) == 2
    nothing = replace(result, samples=())
    assert ET.fromstring(draw(nothing, "")) is not None
