"""What is done for a lease, from what is wanted and what is seen."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mayfly.errors import Denied, Quota, Unavailable
from mayfly.model import State
from mayfly.ports import Ref, Seen
from mayfly.site.lease import Lease, Wanted
from mayfly.site.rules import DAY_S, USUAL, USUAL_RETRIES
from mayfly.site.step import Action, Verb, failed, not_seen, step, succeeded
from tests.unit.site.samples import HOUR, NOW, RUNNING, WISHED

LAUNCH = Action(verb=Verb.LAUNCH)


def seen(state: State = State.RUNNING, name: str = "m1") -> Seen:
    return Seen(key=WISHED.id, id=name, state=state)


def verbs(lease: Lease, what: Seen | None, now: float = NOW) -> list[Verb]:
    return [action.verb for action in step(lease, what, now, USUAL)[1]]


def test_a_new_lease_gets_a_machine() -> None:
    after, actions = step(WISHED, None, NOW, USUAL)
    assert after.state is State.STARTING
    assert actions == (LAUNCH,)


def test_it_runs_only_when_it_was_reached() -> None:
    starting, _ = step(WISHED, None, NOW, USUAL)
    # Seen is not enough: the server may have died before it had put the keys in.
    again, actions = step(starting, seen(), NOW, USUAL)
    assert (again.state, actions) == (State.STARTING, (LAUNCH,))
    done = succeeded(again, LAUNCH, Ref(id="m1", host_keys=("ssh-ed25519 AAAA",)))
    assert (done.state, done.machine) == (State.RUNNING, "m1")
    assert step(done, seen(), NOW, USUAL) == (done, ())


def test_a_reserved_one_waits() -> None:
    later = replace(WISHED, starts_at=NOW + HOUR)
    assert step(later, None, NOW, USUAL) == (later, ())
    assert verbs(later, None, NOW + HOUR) == [Verb.LAUNCH]
    unwanted = replace(later, wanted=Wanted.GONE)
    assert step(unwanted, None, NOW, USUAL)[0].state is State.GONE


def test_a_machine_that_ended_by_itself_is_not_made_again() -> None:
    after, actions = step(RUNNING, None, NOW, USUAL)
    assert (after.state, after.reason, actions) == (State.FAILED, "its machine has ended", ())
    assert verbs(after, None) == []
    assert verbs(after, seen()) == [Verb.TERMINATE]


def test_the_ladder_at_the_end() -> None:
    end = RUNNING.expires_at
    reminded, actions = step(RUNNING, seen(), end - HOUR, USUAL)
    assert [action.verb for action in actions] == [Verb.REMIND]
    assert step(reminded, seen(), end - HOUR + 1, USUAL) == (reminded, ())
    expired, actions = step(reminded, seen(), end, USUAL)
    assert (expired.wanted, expired.expired) == (Wanted.SUSPENDED, True)
    assert actions == (Action(verb=Verb.SUSPEND, machine="m1"),)
    kept, _ = step(expired, seen(State.SUSPENDED), end + 1, USUAL)
    assert kept.state is State.SUSPENDED
    assert verbs(kept, seen(State.SUSPENDED), end + USUAL.grace_s - 1) == []
    over, actions = step(kept, seen(State.SUSPENDED), end + USUAL.grace_s, USUAL)
    assert (over.state, actions[0].verb) == (State.STOPPING, Verb.TERMINATE)
    gone, actions = step(over, None, end + USUAL.grace_s + 1, USUAL)
    assert (gone.state, actions, gone.is_live) == (State.GONE, (), False)


def test_a_long_lease_is_reminded_of_as_often_as_the_site_says() -> None:
    lease = replace(RUNNING, expires_at=NOW + 30 * DAY_S)
    told = []
    for hours in range(30 * 24):
        lease, actions = step(lease, seen(), NOW + hours * HOUR, USUAL)
        told += [hours for action in actions if action.verb is Verb.REMIND]
    assert told == [23 * 24, 29 * 24, 30 * 24 - 1]


def test_one_that_never_ran_just_ends() -> None:
    after, actions = step(WISHED, None, WISHED.expires_at, USUAL)
    assert (after.wanted, after.state, actions) == (Wanted.GONE, State.GONE, ())


def test_failures_are_tried_again_later_and_given_up_at_last() -> None:
    lease, _ = step(WISHED, None, NOW, USUAL)
    now, waits = NOW, []
    while lease.state is not State.FAILED:
        lease = failed(lease, LAUNCH, Unavailable("the host is full"), now, USUAL_RETRIES)
        assert verbs(lease, None, now) == []
        waits.append(lease.retry_at - now)
        now = max(now, lease.retry_at)
    assert waits[:-1] == [2, 4, 8, 16, 32]
    assert "the host is full" in lease.reason


def test_what_can_never_be_is_given_up_at_once() -> None:
    lease = failed(WISHED, LAUNCH, Denied("not this image"), NOW, USUAL_RETRIES)
    assert (lease.state, lease.reason) == (State.FAILED, "not this image")


def test_an_end_that_fails_is_tried_for_ever() -> None:
    stopping = replace(RUNNING, wanted=Wanted.GONE, state=State.STOPPING)
    action = Action(verb=Verb.TERMINATE, machine="m1")
    for _ in range(50):
        stopping = failed(stopping, action, Quota("disk full"), NOW, USUAL_RETRIES)
    assert stopping.state is State.STOPPING
    assert stopping.retry_at - NOW == USUAL_RETRIES.longest_s


def test_a_host_that_is_not_seen_and_comes_back() -> None:
    lost = not_seen(RUNNING, "no answer")
    assert lost.state is State.UNKNOWN
    assert step(lost, seen(), NOW, USUAL)[0].state is State.RUNNING
    assert step(lost, None, NOW, USUAL)[0].state is State.FAILED


def test_a_late_success_does_not_undo_a_wish() -> None:
    leaving = replace(WISHED, state=State.STARTING, wanted=Wanted.GONE)
    done = succeeded(leaving, LAUNCH, Ref(id="m1"))
    assert (done.wanted, done.state) == (Wanted.GONE, State.STARTING)
    assert verbs(done, seen()) == [Verb.TERMINATE]


SEEN = st.one_of(
    st.none(), st.sampled_from([State.RUNNING, State.SUSPENDED, State.PAUSED]).map(seen)
)
LEASES = st.builds(
    lambda state, wanted, machine, expired, left: replace(
        WISHED,
        state=state,
        wanted=wanted,
        machine=machine,
        expired=expired,
        expires_at=NOW + left,
        host_keys=("k",) if machine else (),
    ),
    st.sampled_from([state for state in State if state is not State.GONE]),
    st.sampled_from(Wanted),
    st.sampled_from(["", "m1"]),
    st.booleans(),
    st.floats(-20 * DAY_S, 40 * DAY_S),
)


@given(LEASES, SEEN)
def test_any_lease_comes_to_an_end(lease: Lease, what: Seen | None) -> None:
    now = NOW
    for _ in range(200):
        lease, actions = step(lease, what, now, USUAL)
        for action in actions:
            if action.verb is Verb.LAUNCH:
                what = seen()
                lease = succeeded(lease, action, Ref(id="m1", host_keys=("k",)))
            elif action.verb is Verb.TERMINATE:
                what = None
            elif action.verb is not Verb.REMIND:
                what = seen(State.SUSPENDED if action.verb is Verb.SUSPEND else State.RUNNING)
                lease = succeeded(lease, action, None)
        now += DAY_S
    # Nothing of it is left, and nothing more is asked for.
    assert lease.state is State.GONE
    assert what is None


@pytest.mark.parametrize("state", list(State))
def test_what_is_gone_stays_gone(state: State) -> None:
    gone = replace(RUNNING, state=State.GONE, wanted=Wanted.GONE)
    assert step(gone, seen(state), NOW + 99 * DAY_S, USUAL) == (gone, ())
