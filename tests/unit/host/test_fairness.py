"""Who gets a machine now, and that nobody waits for ever."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from mayfly.host.limits import (
    PATIENCE_S,
    Bounds,
    Held,
    Need,
    Waiting,
    line,
    never,
    next_grants,
    why,
)
from mayfly.host.settings import Amounts
from tests.unit.host.asking import ADA, BOB, EVE, asks, bounds, granted, has, need, standby


def test_all_go_while_there_is_room() -> None:
    waiting = [asks("b", ADA, since=1), asks("a", ADA, since=2), asks("c", ADA, since=0)]
    assert granted(waiting, [], bounds(100)) == ["c", "b", "a"]
    assert granted(waiting, [], bounds(29)) == ["c", "b"]
    assert granted(waiting, [has(ADA)], bounds(29)) == ["c"]
    assert granted([], [], bounds(100)) == []


def test_standbys_keep_nobody_waiting_but_templates_do() -> None:
    waiting = [asks("a", ADA, need(700))]
    assert granted(waiting, [standby()] * 5, bounds(700)) == ["a"]
    assert next_grants(waiting, [], bounds(700), 1, now=0) == []
    assert next_grants(waiting, [], bounds(701), 1, now=0) == ["a"]


def test_who_holds_less_goes_first_whoever_came_first() -> None:
    waiting = [asks("ada", ADA, since=0), asks("bob", BOB, since=5), asks("eve", EVE, since=9)]
    held = [has(ADA), has(ADA), has(BOB)]
    assert granted(waiting, held, bounds(1000)) == ["eve", "bob", "ada"]
    assert granted(waiting, [], bounds(1000)) == ["ada", "bob", "eve"]


def test_the_largest_share_counts_of_whatever_is_limited() -> None:
    waiting = [asks("ada", ADA, since=0), asks("bob", BOB, since=5)]
    # Ada holds more of the CPUs than Bob of the memory.
    held = [has(ADA, need(10, cpus=5)), has(BOB, need(400))]
    limited = Bounds(memory_mib=1000, disk_mib=9, everyone=Amounts(cpus=10))
    assert granted(waiting, held, limited) == ["bob", "ada"]
    assert granted(waiting, held, bounds(1000)) == ["ada", "bob"]


def test_two_users_who_ask_for_many_get_equally_many() -> None:
    waiting = [asks(f"ada{n:02}", ADA, since=n) for n in range(50)]
    waiting += [asks(f"bob{n:02}", BOB, since=50 + n) for n in range(50)]
    first = granted(waiting, [], bounds(100))
    assert Counter(key[:3] for key in first) == {"ada": 5, "bob": 5}
    places = line(waiting, [], bounds(100), 0)
    in_order = sorted(places, key=lambda key: places[key])
    assert in_order[:4] == ["ada00", "bob00", "ada01", "bob01"]
    assert sorted(places.values()) == list(range(1, 101))


def test_a_users_own_limit_stops_only_that_user() -> None:
    waiting = [asks("a1", ADA, since=0), asks("a2", ADA, since=1), asks("bob", BOB, since=2)]
    limits = bounds(1000, user=Amounts(machines=1))
    assert granted(waiting, [], limits) == ["a1", "bob"]
    held = [has(ADA), has(BOB, need(20))]
    two = bounds(1000, user=Amounts(cpus=2))
    waiting[0] = asks("a1", ADA, need(cpus=2), since=0)
    assert granted(waiting, held, two, now=10 * PATIENCE_S) == ["bob"]


def test_requests_of_one_user_keep_their_order() -> None:
    waiting = [asks("large", ADA, need(90), since=0), asks("small", ADA, since=1)]
    assert granted(waiting, [has(BOB, need(20))], bounds(100)) == []
    assert granted(waiting, [has(BOB)], bounds(110)) == ["large", "small"]


def test_a_small_request_passes_a_large_one_but_not_for_ever() -> None:
    waiting = [asks("large", ADA, need(90), since=0), asks("small", BOB, since=PATIENCE_S - 1)]
    held = [has(EVE, need(20))]
    assert granted(waiting, held, bounds(100), now=PATIENCE_S - 1) == ["small"]
    assert granted(waiting, held, bounds(100), now=PATIENCE_S) == []
    assert granted(waiting, [], bounds(100), now=PATIENCE_S) == ["large", "small"]


def test_who_holds_less_still_passes_a_request_that_has_waited_long() -> None:
    waiting = [asks("large", ADA, need(90), since=0), asks("small", BOB, since=500)]
    held = [has(ADA), has(EVE)]
    assert granted(waiting, held, bounds(100), now=1000) == ["small"]
    assert granted(waiting, [*held, has(BOB, need(11))], bounds(100), now=1000) == []


def test_what_never_fits_keeps_nobody_waiting() -> None:
    waiting = [asks("huge", ADA, need(101), since=0), asks("a", ADA, since=1)]
    assert granted(waiting, [], bounds(100), now=10 * PATIENCE_S) == ["a"]
    late = [Waiting(key="t", uid=ADA, need=need(90), since=0, template_mib=20), asks("b", BOB)]
    assert granted(late, [has(EVE)], bounds(100), now=10 * PATIENCE_S) == ["b"]


SMALL = st.builds(
    Need, cpus=st.integers(1, 4), memory_mib=st.integers(1, 60), disk_mib=st.integers(0, 30)
)
AMOUNTS = st.builds(
    Amounts,
    machines=st.integers(0, 5),
    cpus=st.integers(0, 8),
    memory_mib=st.integers(0, 120),
    disk_mib=st.integers(0, 80),
)
REQUESTS = st.lists(st.tuples(st.integers(1, 4), SMALL, st.integers(0, 600)), max_size=25)
BOUNDS = st.builds(
    Bounds,
    memory_mib=st.integers(0, 200),
    disk_mib=st.integers(0, 100),
    everyone=AMOUNTS,
    user=AMOUNTS,
)


def fits(used: Sequence[Need], limit: Amounts) -> bool:
    sums = (
        (len(used), limit.machines),
        (sum(each.cpus for each in used), limit.cpus),
        (sum(each.memory_mib for each in used), limit.memory_mib),
        (sum(each.disk_mib for each in used), limit.disk_mib),
    )
    return all(not most or value <= most for value, most in sums)


@given(REQUESTS, st.lists(st.tuples(st.integers(1, 4), SMALL), max_size=5), BOUNDS)
def test_nothing_is_given_that_is_not_there_and_nothing_is_left_over(
    requests: list[tuple[int, Need, int]], running: list[tuple[int, Need]], limits: Bounds
) -> None:
    waiting = [
        asks(f"{n:02}", uid, wanted, since=since) for n, (uid, wanted, since) in enumerate(requests)
    ]
    held = [has(uid, wanted) for uid, wanted in running]
    keys = granted(waiting, held, limits, now=600)
    by_key = {request.key: request for request in waiting}
    assert len(set(keys)) == len(keys)
    after = list(held)
    for key in keys:
        request = by_key[key]
        assert why(request.need, request.uid, after, limits, 0) == ""
        after.append(has(request.uid, request.need))
    left = [request for request in waiting if request.key not in keys]
    if keys:
        assert fits([each.need for each in after], limits.everyone)
        given_to = {by_key[key].uid for key in keys}
        for uid in given_to:
            assert fits([each.need for each in after if each.uid == uid], limits.user)
    # Each user's requests go in their order, and nobody's first one is left that would fit...
    for uid in range(1, 5):
        own = sorted(
            (each for each in waiting if each.uid == uid and not never(each.need, uid, limits)),
            key=lambda each: (each.since, each.key),
        )
        assert [each.key in keys for each in own] == sorted(
            (each.key in keys for each in own), reverse=True
        )
        first = next((each for each in own if each in left), None)
        if first is not None and all(600 - each.since < PATIENCE_S for each in left):
            # ... unless room is kept for one that has waited long.
            assert why(first.need, uid, after, limits, 0) != ""


@given(
    st.integers(1, 100),
    st.lists(st.tuples(st.integers(2, 6), st.integers(1, 40)), min_size=1, max_size=12),
    st.integers(5, 60),
)
def test_nobody_starves_among_many_who_never_stop_asking(
    large: int, others: list[tuple[int, int]], job_s: int
) -> None:
    """Every second somebody asks again; each machine ends after ``job_s``."""
    waiting = [asks("large", 1, need(large), since=0)]
    running: deque[tuple[float, Held]] = deque()
    patient_until = int(PATIENCE_S) + job_s
    for now in range(patient_until + 1):
        while running and running[0][0] <= now:
            running.popleft()
        uid, memory = others[now % len(others)]
        waiting.append(asks(f"{now}", uid, need(memory), since=now))
        for key in granted(waiting, [held for _, held in running], bounds(100), now=now):
            request = next(each for each in waiting if each.key == key)
            waiting.remove(request)
            running.append((now + job_s, has(request.uid, request.need)))
    assert not any(each.key == "large" for each in waiting)
