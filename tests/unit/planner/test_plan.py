"""What the planner decides, case by case."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from mayfly.model import Shape
from mayfly.planner.model import Budget, Ceiling, Kind, Phase, Rules
from tests.unit.planner.samples import EL9, NOW, decided, offer, started, wanted, worker

CHEAP, DEAR = offer("cheap", 0.1), offer("dear", 0.2)


# --- starting ------------------------------------------------------------------------------------


def test_from_zero_machines_demand_is_met() -> None:
    assert started(decided(CHEAP, wanted=(wanted(8),))) == {"cheap": 2}


def test_the_whole_need_is_packed_and_not_one_machine_for_each_job() -> None:
    lines = (wanted(2, 3), wanted(2, 1))
    assert started(decided(CHEAP, wanted=lines)) == {"cheap": 2}


def test_the_cheapest_is_filled_first_and_the_rest_comes_from_the_next() -> None:
    few = replace(CHEAP, count=3)
    assert started(decided(few, DEAR, wanted=(wanted(20),))) == {"cheap": 3, "dear": 2}


def test_the_last_machine_is_a_small_one() -> None:
    small = offer("small", 0.06, cpus=2)
    rules = Rules(run_s=1.0)
    assert started(decided(offer("large", 0.1), small, wanted=(wanted(5),), rules=rules)) == {
        "large": 1,
        "small": 1,
    }


def test_a_start_shows_what_was_compared() -> None:
    refused = offer("nothing-left", 0.01, count=0)
    (start,) = decided(CHEAP, DEAR, refused, wanted=(wanted(8),)).starts
    assert [each.offer for each in start.compared] == ["cheap", "dear", "nothing-left"]
    costs = [each.cost for each in start.compared]
    assert costs[0] is not None
    assert costs[1] is not None
    assert costs[0] < costs[1]
    assert costs[2] is None
    assert start.compared[2].why == "the provider has no more of it"


def test_spot_is_taken_for_short_jobs_and_not_for_long_ones() -> None:
    spot = offer("spot", 0.05, interruptions_hour=0.2)
    assert started(decided(spot, CHEAP, wanted=(wanted(4, run_s=1800.0),))) == {"spot": 1}
    assert started(decided(spot, CHEAP, wanted=(wanted(4, run_s=36_000.0),))) == {"cheap": 1}


def test_an_image_that_is_there_is_worth_something() -> None:
    near = offer("near", 0.1, images=frozenset({"el9"}), image_s=3600.0)
    far = offer("far", 0.095, image_s=3600.0)
    assert started(decided(near, far, wanted=(wanted(4),))) == {"near": 1}


def test_minimum_billing_counts() -> None:
    coarse = offer("coarse", 0.09, billing_step_s=86_400.0)
    assert started(decided(coarse, CHEAP, wanted=(wanted(4),))) == {"cheap": 1}


def test_energy_counts_where_the_site_gives_it_a_price() -> None:
    dirty, clean = offer("dirty", 0.1, weight_hour=0.5), offer("clean", 0.12)
    assert started(decided(dirty, clean, wanted=(wanted(4),))) == {"dirty": 1}
    rules = Rules(weight_price=0.1)
    assert started(decided(dirty, clean, wanted=(wanted(4),), rules=rules)) == {"clean": 1}


def test_long_jobs_make_small_machines_cheaper() -> None:
    large, small = offer("large", 0.8, cpus=16), offer("small", 0.1, cpus=2)
    assert started(decided(large, small, wanted=(wanted(16, run_s=36_000.0),))) == {"small": 8}


def test_jobs_that_are_not_due_get_free_room_but_no_machine() -> None:
    decision = decided(CHEAP, wanted=(wanted(8, due=0),))
    assert not decision.starts
    assert not decision.unmet


def test_what_boots_is_counted() -> None:
    booting = worker("a", CHEAP, phase=Phase.BOOTING, idle_since=None)
    assert started(decided(CHEAP, wanted=(wanted(5),), fleet=(booting,))) == {"cheap": 1}


def test_a_cycle_starts_no_more_than_it_may() -> None:
    decision = decided(CHEAP, wanted=(wanted(400),), rules=Rules(start_most=7))
    assert started(decision) == {"cheap": 7}
    (unmet,) = decision.unmet
    assert unmet.count == 400 - 28
    assert unmet.why == ("cheap: one cycle starts 7 workers at most",)
    assert not unmet.impossible


def test_idle_workers_that_jobs_do_not_use_are_no_reason_for_more() -> None:
    decision = decided(CHEAP, wanted=(wanted(4),), fleet=(worker("a", CHEAP),))
    assert not decision.starts
    assert not decision.removals
    assert "4 jobs of group '' wait although idle workers could run them" in decision.notes[0]


# --- limits --------------------------------------------------------------------------------------


def test_the_quota_of_a_provider_sends_the_rest_elsewhere() -> None:
    rules = Rules(quotas={"cheap": Ceiling(cpus=9)})
    fleet = (worker("a", CHEAP, jobs=4),)
    found = decided(CHEAP, DEAR, wanted=(wanted(8),), fleet=fleet, rules=rules)
    assert started(found) == {"cheap": 1, "dear": 1}


def test_the_quota_of_a_group_stops_it() -> None:
    rules = Rules(shares={"physics": Ceiling(machines=2)})
    lines = (wanted(20, group="physics"), wanted(4, group="biology"))
    decision = decided(CHEAP, wanted=lines, rules=rules)
    assert started(decision) == {"cheap": 3}
    assert decision.unmet[0].why == ("cheap: quota of group 'physics': 2 of 2 machines in use",)


def test_a_budget_is_not_exceeded() -> None:
    budget = Budget(group="", amount=10.0, spent=9.6)
    decision = decided(CHEAP, wanted=(wanted(400),), budgets=(budget,))
    # Each start is promised an hour, and its boot: 0.1033.
    assert started(decision) == {"cheap": 3}
    assert decision.notes == ("group '' has spent 9.60 of 10.00",)


def test_a_spent_budget_starts_nothing_and_lets_idle_workers_go() -> None:
    budget = Budget(group="g", amount=10.0, spent=10.0)
    fleet = (worker("a", CHEAP, group="g", idle_since=NOW - 1), worker("b", CHEAP, 1, group="g"))
    decision = decided(CHEAP, wanted=(wanted(40, group="g"),), fleet=fleet, budgets=(budget,))
    assert not decision.starts
    assert [change.worker for change in decision.removals] == ["a"]
    # Otherwise one job after the other would keep the rest running.
    assert [change.worker for change in decision.drains] == ["b"]
    assert decision.drains[0].why == "the budget of group 'g' is spent"
    assert "nothing more is started for it" in decision.notes[0]


def test_workers_of_a_group_are_for_its_jobs_alone() -> None:
    fleet = (worker("a", CHEAP, group="physics"),)
    found = decided(CHEAP, wanted=(wanted(4, group="biology"),), fleet=fleet)
    assert started(found) == {"cheap": 1}


@pytest.mark.parametrize("price", [None, -1.0, math.nan, math.inf, 1e6])
def test_a_price_that_is_none_is_refused_with_a_reason(price: float | None) -> None:
    decision = decided(offer("odd", price), DEAR, wanted=(wanted(4),))
    assert started(decision) == {"dear": 1}
    (refused,) = decision.refused
    assert refused.offer == "odd"
    assert "price" in refused.why


@pytest.mark.parametrize(
    "fault",
    [
        {"cpus": 0},
        {"boot_s": -1.0},
        {"billing_step_s": 0.0},
        {"billing_least_s": math.inf},
        {"interruptions_hour": math.nan},
        {"weight_hour": math.inf},
    ],
)
def test_other_nonsense_is_refused_too(fault: dict[str, float]) -> None:
    odd = offer("odd", 0.01, **fault)  # type: ignore[arg-type]
    decision = decided(odd, DEAR, wanted=(wanted(4),))
    assert started(decision) == {"dear": 1}
    assert [each.offer for each in decision.refused] == ["odd"]


def test_a_job_that_nobody_could_run_is_named_at_once() -> None:
    huge = wanted(3, 64, due=0)
    decision = decided(CHEAP, DEAR, wanted=(huge, wanted(4)))
    (unmet,) = decision.unmet
    assert unmet.impossible
    assert (unmet.wanted, unmet.count) == (huge, 3)
    assert unmet.why[0].startswith("cheap: a job needs 64 CPUs")
    assert started(decision) == {"cheap": 1}


def test_constraints_and_partitions_are_looked_at() -> None:
    kind = Kind(image="el9", partition="long", constraints=frozenset({"avx512"}))
    plain = offer("plain", 0.01)
    fast = offer("fast", 0.5, constraints=frozenset({"avx512"}))
    short = replace(fast, name="short", price_hour=0.02, partitions=frozenset({"short"}))
    decision = decided(plain, fast, short, wanted=(wanted(4, kind=kind),))
    assert started(decision) == {"fast": 1}
    why = {each.offer: each.why for each in decision.starts[0].compared}
    assert why["plain"] == "lacks avx512"
    assert why["short"] == "not for partition 'long'"


def test_memory_decides_as_cpus_do() -> None:
    thin = offer("thin", 0.1, memory_mib=2000)
    line = replace(wanted(4), shape=Shape(cpus=1, memory_mib=1000))
    assert started(decided(thin, wanted=(line,))) == {"thin": 2}


# --- giving back ---------------------------------------------------------------------------------


def test_the_dearest_idle_worker_goes_first() -> None:
    fleet = (worker("a", CHEAP), worker("b", DEAR), worker("c", CHEAP))
    decision = decided(CHEAP, DEAR, fleet=fleet, rules=Rules(stop_most=2))
    assert [change.worker for change in decision.removals] == ["b", "a"]
    assert decision.removals[0].why == "idle for 3600 s, and no job waits for it"
    assert decision.kept[0].why == "one cycle gives back 2 workers at most"


def test_what_has_just_become_idle_stays_for_a_while() -> None:
    decision = decided(CHEAP, fleet=(worker("a", CHEAP, idle_since=NOW - 10),))
    assert not decision.removals
    assert decision.kept[0].why == "idle for less than 300 s"


def test_hours_that_are_paid_for_are_used() -> None:
    hourly = offer("hourly", 0.1, billing_step_s=3600.0)
    early = worker("a", hourly, launched_at=NOW - 3700)
    late = worker("b", hourly, launched_at=NOW - 7199)
    decision = decided(hourly, fleet=(early, late))
    assert [change.worker for change in decision.removals] == ["b"]
    assert decision.kept[0].why == "its time is paid for"


def test_an_idle_worker_that_demand_needs_stays() -> None:
    decision = decided(CHEAP, wanted=(wanted(2),), fleet=(worker("a", CHEAP), worker("b", CHEAP)))
    assert len(decision.removals) == 1


def test_a_worker_with_jobs_is_drained_and_not_removed() -> None:
    fleet = tuple(worker(f"w{number}", CHEAP, jobs=1) for number in range(10))
    decision = decided(CHEAP, fleet=fleet)
    assert decision.drains
    assert not decision.removals


def test_kinds_that_are_equal_are_one_kind() -> None:
    fleet = tuple(
        worker(f"w{number}", CHEAP, jobs=1, kind=Kind(image="el9")) for number in range(10)
    )
    shared = tuple(replace(each, kind=EL9) for each in fleet)
    assert decided(CHEAP, fleet=fleet) == decided(CHEAP, fleet=shared)


def test_the_dearest_is_drained_first_and_room_is_left() -> None:
    fleet = (worker("a", CHEAP, 1), worker("b", DEAR, 3), worker("c", CHEAP, 1))
    assert [change.worker for change in decided(CHEAP, DEAR, fleet=fleet).drains] == ["b"]


def test_a_draining_worker_takes_jobs_again_before_one_is_started() -> None:
    fleet = (worker("a", CHEAP, 1, phase=Phase.DRAINING),)
    decision = decided(CHEAP, wanted=(wanted(3),), fleet=fleet)
    assert [change.worker for change in decision.resumes] == ["a"]
    assert not decision.starts


def test_a_drained_worker_goes_when_its_last_job_has_ended() -> None:
    fleet = (worker("a", CHEAP, phase=Phase.DRAINING, idle_since=NOW - 1),)
    (removal,) = decided(CHEAP, fleet=fleet).removals
    assert removal.why == "its last job has ended"


def test_an_old_worker_is_drained_and_forced_only_where_the_site_wants_that() -> None:
    fleet = (worker("a", CHEAP, 4),)
    gentle = decided(CHEAP, fleet=fleet, rules=Rules(life_s=3600.0))
    assert [change.worker for change in gentle.drains] == ["a"]
    assert not gentle.removals
    firm = decided(CHEAP, fleet=fleet, rules=Rules(life_s=3600.0, force_after_s=1800.0))
    assert [change.worker for change in firm.removals] == ["a"]


def test_headroom_is_started_and_kept() -> None:
    busy = tuple(worker(f"w{number}", CHEAP, jobs=4) for number in range(10))
    rules = Rules(headroom_share=0.2)
    assert started(decided(CHEAP, fleet=busy, rules=rules)) == {"cheap": 2}
    spare = (worker("x", CHEAP), worker("y", CHEAP), worker("z", CHEAP))
    decision = decided(CHEAP, fleet=busy + spare, rules=rules)
    assert not decision.starts
    assert len(decision.removals) == 1


def test_a_worker_whose_offer_is_gone_is_still_looked_after() -> None:
    lost = offer("lost")
    decision = decided(CHEAP, wanted=(wanted(4, kind=Kind(image="x")),), fleet=(worker("a", lost),))
    assert [change.worker for change in decision.removals] == ["a"]
    assert started(decision) == {"cheap": 1}


def test_a_kind_without_partition_serves_all() -> None:
    kind = replace(EL9, partition="long")
    fleet = (worker("a", CHEAP),)
    assert not decided(CHEAP, wanted=(wanted(4, kind=kind),), fleet=fleet).starts
