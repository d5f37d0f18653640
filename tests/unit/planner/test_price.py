"""What a useful core-hour costs."""

from __future__ import annotations

import math
import random

import pytest

from mayfly.planner.model import Rules
from mayfly.planner.price import (
    billed_s,
    core_hour_cost,
    drained_share,
    paid_until,
    useful_share,
)
from tests.unit.planner.samples import offer


@pytest.mark.parametrize(
    ("held_s", "least_s", "step_s", "billed"),
    [
        (0, 0, 1, 0),
        (10, 600, 1, 600),
        (600, 600, 1, 600),
        (600.5, 600, 1, 601),
        (3600, 0, 3600, 3600),
        (3601, 0, 3600, 7200),
    ],
)
def test_time_is_billed_in_steps(
    held_s: float, least_s: float, step_s: float, billed: float
) -> None:
    one = offer("o", billing_least_s=least_s, billing_step_s=step_s)
    assert billed_s(one, held_s) == billed


def test_what_is_paid_for_lasts_to_the_end_of_its_step() -> None:
    one = offer("o", billing_step_s=3600.0)
    assert paid_until(one, 1000.0, 1000.0 + 3700) == 1000.0 + 7200


def test_interruptions_cost_what_chance_says() -> None:
    chance = random.Random(1)
    rate, run_s = 0.2, 5 * 3600.0
    spent = 0.0
    for _ in range(20_000):
        while (lives := chance.expovariate(rate) * 3600) < run_s:
            spent += lives
        spent += run_s
    share = useful_share(offer("spot", interruptions_hour=rate), run_s)
    assert share == pytest.approx(20_000 * run_s / spent, rel=0.03)


def test_the_last_of_many_jobs_ends_when_chance_says() -> None:
    chance = random.Random(1)
    rounds, jobs = 5000, 8
    used = held = 0.0
    for _ in range(rounds):
        lengths = [chance.expovariate(1.0) for _ in range(jobs)]
        used += sum(lengths) / jobs
        held += max(lengths)
    # Without a time before in which all are in use.
    assert drained_share(jobs, 1.0, 0.0) == pytest.approx(used / held, rel=0.03)


def test_one_job_on_a_machine_wastes_nothing() -> None:
    assert drained_share(1, 3600.0, 3600.0) == 1.0


def cost(boot_s: float = 0.0, *, jobs: int = 4, run_s: float = 3600.0, **more: object) -> float:
    one = offer("o", 0.4, 4, boot_s=boot_s, **more)
    return core_hour_cost(one, Rules(), image="el9", used=(jobs, jobs), run_s=run_s)


def test_cost_grows_with_all_that_is_lost() -> None:
    plain = cost()
    assert cost(jobs=1) > plain
    assert cost(600.0) > plain
    assert cost(image_s=600.0) > plain
    assert cost(interruptions_hour=0.1) > plain
    assert cost(billing_step_s=36_000.0) > plain
    assert cost(image_s=600.0, images=frozenset({"el9"})) == plain


def test_where_no_job_would_ever_end_the_cost_is_endless() -> None:
    assert cost(run_s=1e6, interruptions_hour=10.0) == math.inf
