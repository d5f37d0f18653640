"""What holds for any demand, fleet, offers and rules."""

from __future__ import annotations

import math
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from mayfly.model import Shape
from mayfly.planner.fit import fits
from mayfly.planner.model import (
    Budget,
    Ceiling,
    Decision,
    Kind,
    Offer,
    Phase,
    Rules,
    Snapshot,
    Start,
    Wanted,
    Worker,
)
from mayfly.planner.plan import plan
from mayfly.planner.price import billed_s, refusal_of

NOW = 1e6
IMAGES = [Kind(image="a"), Kind(image="b"), Kind(image="a", constraints=frozenset({"fast"}))]
GROUPS = ["", "g", "h"]

prices = st.one_of(
    st.floats(0.001, 5.0), st.sampled_from([None, -1.0, math.nan, math.inf, 1e9, 0.0])
)
shapes = st.builds(
    lambda cpus, each: Shape(cpus=cpus, memory_mib=cpus * each),
    st.sampled_from([1, 2, 3, 8]),
    st.sampled_from([0, 500, 2000]),
)


@st.composite
def offers(draw: st.DrawFn) -> tuple[Offer, ...]:
    return tuple(
        Offer(
            name=f"o{number}",
            provider=f"p{number % 2}",
            shape=Shape(cpus=cpus, memory_mib=2000 * cpus),
            price_hour=draw(prices),
            count=draw(st.integers(-1, 30)),
            boot_s=draw(st.sampled_from([0.0, 180.0])),
            billing_least_s=draw(st.sampled_from([0.0, 600.0])),
            billing_step_s=draw(st.sampled_from([1.0, 3600.0])),
            interruptions_hour=draw(st.sampled_from([0.0, 0.05, 5.0])),
            constraints=draw(st.sampled_from([frozenset[str](), frozenset({"fast"})])),
        )
        for number, cpus in enumerate(draw(st.lists(st.sampled_from([1, 2, 4, 16]), max_size=4)))
    )


@st.composite
def fleets(draw: st.DrawFn, there: tuple[Offer, ...]) -> tuple[Worker, ...]:
    found = []
    for number in range(draw(st.integers(0, 8)) if there else 0):
        offer = draw(st.sampled_from(there))
        phase = draw(st.sampled_from(list(Phase)))
        jobs = 0 if phase is Phase.BOOTING else draw(st.integers(0, offer.shape.cpus))
        idle = phase is not Phase.BOOTING and not jobs
        found.append(
            Worker(
                id=f"w{number}",
                offer=offer.name,
                kind=draw(st.sampled_from(IMAGES)),
                group=draw(st.sampled_from(GROUPS)),
                phase=phase,
                launched_at=NOW - draw(st.floats(0, 1e5)),
                idle_since=NOW - draw(st.floats(0, 1e3)) if idle else None,
                cpus=offer.shape.cpus,
                free_cpus=offer.shape.cpus - jobs,
                free_memory_mib=offer.shape.memory_mib,
                jobs=jobs,
            )
        )
    return tuple(found)


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    there = draw(offers())
    lines = []
    for _ in range(draw(st.integers(0, 4))):
        count = draw(st.integers(1, 60))
        lines.append(
            Wanted(
                kind=draw(st.sampled_from(IMAGES)),
                shape=draw(shapes),
                group=draw(st.sampled_from(GROUPS)),
                count=count,
                due=draw(st.integers(0, count)),
                run_s=draw(st.sampled_from([None, 60.0, 1e5])),
            )
        )
    budgets = tuple(
        Budget(group=group, amount=draw(st.floats(0, 50)), spent=draw(st.floats(0, 60)))
        for group in draw(st.sets(st.sampled_from(GROUPS)))
    )
    return Snapshot(
        now=NOW, wanted=tuple(lines), offers=there, fleet=draw(fleets(there)), budgets=budgets
    )


def ceilings(names: list[str]) -> st.SearchStrategy[dict[str, Ceiling]]:
    ceiling = st.builds(
        lambda machines, cpus: Ceiling(machines=machines, cpus=cpus),
        st.none() | st.integers(0, 20),
        st.none() | st.integers(0, 40),
    )
    return st.dictionaries(st.sampled_from(names), ceiling)


rules = st.builds(
    lambda start, stop, quotas, shares, headroom, life: Rules(
        start_most=start,
        stop_most=stop,
        quotas=quotas,
        shares=shares,
        headroom_share=headroom,
        life_s=life,
    ),
    st.integers(0, 50),
    st.integers(0, 5),
    ceilings(["p0", "p1"]),
    ceilings(GROUPS),
    st.sampled_from([0.0, 0.0, 0.5]),
    st.sampled_from([None, 3600.0]),
)


@settings(max_examples=80, deadline=None)
@given(snapshots(), rules)
def test_no_worker_with_jobs_is_removed_and_no_bound_is_passed(
    snapshot: Snapshot, given_rules: Rules
) -> None:
    decision = plan(snapshot, given_rules)
    fleet = {worker.id: worker for worker in snapshot.fleet}
    told = [change.worker for change in decision.removals]
    assert all(fleet[name].jobs == 0 for name in told)
    assert all(fleet[name].phase is not Phase.BOOTING for name in told)
    assert len(set(told)) == len(told) <= given_rules.stop_most
    assert len(decision.drains) <= given_rules.stop_most
    assert sum(start.count for start in decision.starts) <= given_rules.start_most
    # Nobody is told two things at once.
    every = [*told, *(each.worker for each in (*decision.drains, *decision.resumes))]
    assert len(set(every)) == len(every)


@settings(max_examples=80, deadline=None)
@given(snapshots(), rules)
def test_nothing_is_started_past_offers_quotas_and_budgets(
    snapshot: Snapshot, given_rules: Rules
) -> None:
    decision = plan(snapshot, given_rules)
    there = {offer.name: offer for offer in snapshot.offers}
    for offer in snapshot.offers:
        count = sum(start.count for start in decision.starts if start.offer == offer.name)
        assert count <= max(0, offer.count)
        assert not (count and refusal_of(offer, given_rules))
    for name, ceiling in given_rules.quotas.items():
        new = [start for start in decision.starts if there[start.offer].provider == name]
        had = [each for each in snapshot.fleet if there[each.offer].provider == name]
        sound = [each for each in had if not refusal_of(there[each.offer], given_rules)]
        check_ceiling(ceiling, new, sound, there)
    for name, ceiling in given_rules.shares.items():
        new = [start for start in decision.starts if start.group == name]
        check_ceiling(ceiling, new, [each for each in snapshot.fleet if each.group == name], there)
    for budget in snapshot.budgets:
        new = [start for start in decision.starts if start.group == budget.group]
        least = sum(
            start.count
            * (there[start.offer].price_hour or 0.0)
            * billed_s(there[start.offer], there[start.offer].boot_s + given_rules.reserve_s)
            / 3600
            for start in new
        )
        assert least == 0 or budget.spent + least <= budget.amount + 1e-6


def check_ceiling(
    ceiling: Ceiling, new: list[Start], had: list[Worker], there: dict[str, Offer]
) -> None:
    starts = [each for each in new if each.count]
    if not starts:
        return
    machines = len(had) + sum(start.count for start in starts)
    cpus = sum(each.cpus for each in had)
    cpus += sum(start.count * there[start.offer].shape.cpus for start in starts)
    assert ceiling.machines is None or machines <= ceiling.machines
    assert ceiling.cpus is None or cpus <= ceiling.cpus


@settings(max_examples=60, deadline=None)
@given(snapshots())
def test_without_limits_what_is_due_is_met_from_nothing_or_said_to_be_impossible(
    snapshot: Snapshot,
) -> None:
    plenty = tuple(replace(offer, count=100_000) for offer in snapshot.offers)
    empty = replace(snapshot, fleet=(), budgets=(), offers=plenty)
    decision = plan(empty, Rules(start_most=1_000_000))
    for unmet in decision.unmet:
        assert unmet.why
        endless = all(
            "interrupted so often" in why or "CPUs" in why or "lacks" in why for why in unmet.why
        )
        assert unmet.impossible or endless
    cpus = sum(
        start.count * next(o.shape.cpus for o in plenty if o.name == start.offer)
        for start in decision.starts
    )
    unmet_count = {id(each.wanted): each.count for each in decision.unmet}
    asked = sum(
        max(0, line.due - unmet_count.get(id(line), 0)) * line.shape.cpus for line in empty.wanted
    )
    assert cpus >= asked


@settings(max_examples=60, deadline=None)
@given(snapshots(), rules)
def test_a_decision_is_a_function_of_its_snapshot(snapshot: Snapshot, given_rules: Rules) -> None:
    assert plan(snapshot, given_rules) == plan(snapshot, given_rules)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 8), min_size=1, max_size=40),
    st.sampled_from([0.0, 0.1, 0.3]),
    st.sampled_from([1.0, 3600.0]),
)
def test_constant_demand_makes_nothing_go_up_and_down(
    jobs: list[int], headroom: float, step_s: float
) -> None:
    offer = Offer(
        name="o",
        provider="p",
        shape=Shape(cpus=8, memory_mib=0),
        price_hour=1.0,
        count=1000,
        billing_step_s=step_s,
    )
    fleet = tuple(busy(f"w{number}", used) for number, used in enumerate(jobs))
    given_rules = Rules(headroom_share=headroom)
    now, told = NOW, []
    for _ in range(60):
        snapshot = Snapshot(now=now, wanted=(), offers=(offer,), fleet=fleet)
        decision = plan(snapshot, given_rules)
        told.append(decision)
        fleet = obeyed(fleet, decision.starts, now)
        fleet = tuple(
            replace(each, phase=phase_after(each, decision))
            for each in fleet
            if each.id not in {change.worker for change in decision.removals}
        )
        now += 300.0
    for late in told[30:]:
        assert (late.starts, late.removals, late.drains, late.resumes) == ((), (), (), ())


def busy(name: str, used: int) -> Worker:
    return Worker(
        id=name,
        offer="o",
        kind=IMAGES[0],
        phase=Phase.READY,
        launched_at=NOW - 1e4,
        idle_since=None,
        cpus=8,
        free_cpus=8 - used,
        free_memory_mib=0,
        jobs=used,
    )


def obeyed(fleet: tuple[Worker, ...], starts: tuple[Start, ...], now: float) -> tuple[Worker, ...]:
    count = sum(start.count for start in starts)
    new = (
        replace(busy(f"n{now}-{number}", 0), launched_at=now, idle_since=now)
        for number in range(count)
    )
    return (*fleet, *new)


def phase_after(worker: Worker, decision: Decision) -> Phase:
    if worker.id in {change.worker for change in decision.drains}:
        return Phase.DRAINING
    if worker.id in {change.worker for change in decision.resumes}:
        return Phase.READY
    return worker.phase


@given(st.integers(0, 64), st.integers(0, 10_000), shapes)
def test_what_fits_fits(cpus: int, memory_mib: int, shape: Shape) -> None:
    count = fits(cpus, memory_mib, shape)
    assert count * shape.cpus <= cpus
    assert count * shape.memory_mib <= memory_mib or shape.memory_mib == 0
