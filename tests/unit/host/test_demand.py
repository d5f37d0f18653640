"""How many standbys of each image there should be."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mayfly.host.demand import (
    CLAIMS_MOST,
    HALF_LIFE_S,
    REFILL_LEAST_S,
    REFILL_S,
    WINDOW_S,
    Claim,
    Demand,
    needed,
    wanted_counts,
)
from mayfly.host.settings import Standby


def hits(*times: float) -> list[Claim]:
    return [Claim(at, True) for at in times]


def misses(*times: float) -> list[Claim]:
    return [Claim(at, False) for at in times]


# --- one image -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("claims", "count"),
    [
        ([], 0),
        (hits(0), 1),
        (hits(0, 0, 0), 3),
        # Each is back when the next one comes.
        (hits(0, 10, 20, 30), 1),
        (hits(0, 9), 2),
        # One every five seconds, when each takes ten to come back: half of them pile up.
        (hits(*range(0, 40, 5)), 5),
        (misses(0), 2),
        (misses(0, 0, 0), 6),
        (hits(0) + misses(0), 3),
    ],
)
def test_so_many_that_none_of_the_claims_would_have_missed(claims: list[Claim], count: int) -> None:
    now = claims[-1].at if claims else 0
    assert needed(claims, now, refill_s=10) == count


def test_a_slow_refill_asks_for_more() -> None:
    claims = hits(0, 10, 20, 30)
    assert [needed(claims, 30, refill_s=seconds) for seconds in (10, 20, 40)] == [1, 3, 4]


def test_quiet_brings_the_number_down() -> None:
    burst = hits(*[0.0] * 8)
    ages = (0, HALF_LIFE_S, 2 * HALF_LIFE_S, 3 * HALF_LIFE_S, WINDOW_S + 1)
    assert [needed(burst, age, refill_s=10) for age in ages] == [8, 4, 2, 1, 0]


def test_a_later_smaller_burst_does_not_hide_a_large_one() -> None:
    claims = hits(*[0.0] * 8) + hits(*[600.0] * 2)
    assert needed(claims, 600, refill_s=10) == round(8 * 0.5 ** (600 / HALF_LIFE_S))


@given(
    st.lists(st.tuples(st.floats(0, 2000), st.booleans()), max_size=40),
    st.floats(REFILL_LEAST_S, 100),
)
def test_a_number_is_never_more_than_the_claims_can_explain(
    raw: list[tuple[float, bool]], refill_s: float
) -> None:
    claims = [Claim(at, hit) for at, hit in sorted(raw)]
    now = claims[-1].at if claims else 0.0
    count = needed(claims, now, refill_s)
    assert 0 <= count <= sum(1 if hit else 2 for _, hit in claims)
    assert count >= bool(claims)
    # One more claim just now asks for no less.
    assert needed([*claims, Claim(now, True)], now, refill_s) >= count
    assert needed(claims, now + 100, refill_s) <= count


@given(st.lists(st.floats(0, 500), min_size=1, max_size=30), st.floats(1, 60))
def test_with_so_many_standbys_none_of_these_claims_misses(
    times: list[float], refill_s: float
) -> None:
    """The standbys that were taken come back one after the other, each after a refill."""
    times.sort()
    # At each moment, before any of it is forgotten.
    ready = max(needed(hits(*times[:n]), times[n - 1], refill_s) for n in range(1, len(times) + 1))
    back: list[float] = []
    for at in times:
        ready += sum(due <= at + 1e-6 for due in back)
        back = [due for due in back if due > at + 1e-6]
        assert ready > 0
        ready -= 1
        back.append(max([at, *back]) + refill_s)


def test_what_was_seen_is_remembered() -> None:
    demand = Demand()
    assert demand.needed(now=0) == 0
    demand.claimed(0, hit=True)
    demand.claimed(0, hit=False)
    assert demand.needed(now=0) == 3
    assert demand.needed(now=HALF_LIFE_S) == 2
    demand.claimed(WINDOW_S + 1, hit=True)
    assert demand.needed(now=WINDOW_S + 1) == 1


def test_no_more_claims_are_remembered_than_any_number_needs() -> None:
    demand = Demand()
    for _ in range(CLAIMS_MOST + 50):
        demand.claimed(0, hit=True)
    assert demand.needed(now=0) == CLAIMS_MOST


def test_the_time_of_a_refill_follows_what_was_seen() -> None:
    demand = Demand()
    assert demand.refill_s == REFILL_S
    demand.refilled(10)
    assert demand.refill_s == 10
    demand.refilled(20)
    assert 10 < demand.refill_s < 20
    for _ in range(50):
        demand.refilled(0)
    assert demand.refill_s == pytest.approx(REFILL_LEAST_S, rel=0.01)


# --- several -------------------------------------------------------------------------------------


@dataclass
class Image:
    standby: Standby
    demand: Demand


def image(*, least: int = 1, most: int = 4, claims: int = 0, queues: tuple[str, ...] = ()) -> Image:
    demand = Demand()
    for _ in range(claims):
        demand.claimed(0, hit=True)
    return Image(Standby(image="i", least=least, most=most, queues=queues), demand)


@pytest.mark.parametrize(
    ("least", "most", "claims", "count"),
    [(1, 4, 0, 1), (1, 4, 3, 3), (1, 4, 9, 4), (2, 4, 1, 2), (0, 4, 0, 0), (0, 1, 1, 1)],
)
def test_a_number_stays_within_its_bounds(least: int, most: int, claims: int, count: int) -> None:
    images = {"a": image(least=least, most=most, claims=claims)}
    assert wanted_counts(images, now=0, room=100) == {"a": count}


def test_little_room_is_shared() -> None:
    images = {"a": image(claims=4), "b": image(claims=4), "c": image(claims=2)}
    rooms = {room: tuple(wanted_counts(images, 0, room).values()) for room in range(-1, 12)}
    assert rooms[-1] == rooms[0] == (0, 0, 0)
    assert rooms[1] == (1, 0, 0)
    assert rooms[3] == (1, 1, 1)
    assert rooms[5] == (2, 2, 1)
    assert rooms[8] == (3, 3, 2)
    assert rooms[10] == rooms[11] == (4, 4, 2)


def test_the_least_of_all_comes_before_the_wishes_of_one() -> None:
    images = {"busy": image(claims=4), "idle": image(least=2)}
    assert wanted_counts(images, 0, room=3) == {"busy": 1, "idle": 2}
    assert wanted_counts(images, 0, room=4) == {"busy": 2, "idle": 2}


def test_the_default_of_a_queue_is_hot_first() -> None:
    images = {"a": image(), "b": image(queues=("short",)), "c": image()}
    assert wanted_counts(images, 0, room=1) == {"a": 0, "b": 1, "c": 0}
    assert wanted_counts(images, 0, room=2) == {"a": 1, "b": 1, "c": 0}


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 12)), max_size=6),
    st.integers(0, 30),
)
def test_all_room_is_used_that_somebody_wants(raw: list[tuple[int, int, int]], room: int) -> None:
    images = {
        n: image(least=least, most=max(1, least + more), claims=claims)
        for n, (least, more, claims) in enumerate(raw)
    }
    plenty = wanted_counts(images, 0, room=1000)
    counts = wanted_counts(images, 0, room=room)
    assert counts.keys() == images.keys()
    assert sum(counts.values()) == min(room, sum(plenty.values()))
    assert all(counts[key] <= plenty[key] for key in images)
    least = {key: images[key].standby.least for key in images}
    least = {key: images[key].standby.least for key in images}
    more = {key: counts[key] - least[key] for key in images}
    for lacking in (key for key in images if counts[key] < plenty[key]):
        if more[lacking] < 0:
            assert all(counts[key] <= counts[lacking] + 1 for key in images)
            assert all(count <= 0 for count in more.values())
        else:
            assert all(count <= more[lacking] + 1 for count in more.values())
