"""One step in the life of a lease: from what is wanted and what is seen to what is to be done.

    wanted --launch--> starting --verified--> running --suspend--> suspended --resume--> running
       |                   |                     |                     |
       '-------------------'---- terminate ------'---------------------'--> stopping --> gone
                           '---- its machine ended by itself --> failed --> gone

Pure: the same words in, the same words out. Whoever calls it writes down the lease before he acts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from mayfly.errors import Denied, Invalid, MayflyError, Missing, Untrusted
from mayfly.model import State
from mayfly.ports import Ref, Seen
from mayfly.site.lease import Lease, Wanted
from mayfly.site.rules import Ladder, Retries
from mayfly.units import show_duration


class Verb(StrEnum):
    """What can be done for a lease."""

    LAUNCH = "launch"
    SUSPEND = "suspend"
    RESUME = "resume"
    TERMINATE = "terminate"
    REMIND = "remind"


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """Something to do; ``machine`` is empty for a launch."""

    verb: Verb
    machine: str = ""


Step = tuple[Lease, tuple[Action, ...]]
NEVER = (Invalid, Denied, Missing, Untrusted)
"""Errors after which the same launch would only fail again."""
_ON_DISK = frozenset({State.SUSPENDED, State.KEPT})


def step(lease: Lease, seen: Seen | None, now: float, ladder: Ladder) -> Step:
    """Give the lease as it is now, and what is to be done."""
    if not lease.is_live or lease.starts_at > now:
        return _not_begun(lease, now), ()
    lease, reminders = _on_time(lease, now, ladder)
    if lease.retry_at > now:
        return lease, reminders
    lease, actions = _TOWARDS[lease.wanted](lease, seen, now)
    return lease, (*reminders, *actions)


def _not_begun(lease: Lease, now: float) -> Lease:
    if lease.is_live and lease.wanted is Wanted.GONE:
        return _ended(lease, "deleted before it began", now)
    return lease


# --- time ----------------------------------------------------------------------------------------


def _on_time(lease: Lease, now: float, ladder: Ladder) -> Step:
    if lease.wanted is Wanted.GONE:
        return lease, ()
    if now >= lease.expires_at + ladder.grace_s:
        return replace(lease, wanted=Wanted.GONE, reason="its time and its grace are over"), ()
    if now >= lease.expires_at:
        return _expire(lease, ladder), ()
    due = [each for each in ladder.remind_s if now >= lease.expires_at - each]
    # One made for less than that needs no word: its owner has just said so.
    told = [each for each in due if each >= lease.expires_at - lease.starts_at]
    if len(due) > max(lease.reminders, len(told)):
        return replace(lease, reminders=len(due)), (Action(verb=Verb.REMIND),)
    return lease, ()


def _expire(lease: Lease, ladder: Ladder) -> Lease:
    if lease.expired:
        return lease
    if lease.state in (State.WANTED, State.FAILED):
        return replace(lease, wanted=Wanted.GONE, expired=True, reason="its time is over")
    kept = show_duration(ladder.grace_s)
    reason = f"its time is over: suspended, and deleted {kept} after its end unless extended"
    return replace(
        lease, wanted=Wanted.SUSPENDED, expired=True, reason=reason, retry_at=0.0, attempts=0
    )


# --- towards what is wanted ----------------------------------------------------------------------


def _to_running(lease: Lease, seen: Seen | None, _: float) -> Step:
    if lease.state is State.FAILED:
        return _cleared(lease, seen)
    if seen is None:
        if lease.machine and lease.state is not State.STARTING:
            return replace(lease, state=State.FAILED, reason="its machine has ended"), ()
        return replace(lease, state=State.STARTING), (Action(verb=Verb.LAUNCH),)
    if seen.state in _ON_DISK:
        return lease, (Action(verb=Verb.RESUME, machine=seen.id),)
    if lease.state is State.RUNNING:
        return _followed(lease, seen), ()
    if lease.state in (State.SUSPENDED, State.UNKNOWN) and lease.host_keys:
        return replace(lease, state=State.RUNNING, reason=""), ()
    # Not proved yet: a launch finds the machine, finishes it and connects to it.
    return replace(lease, state=State.STARTING), (Action(verb=Verb.LAUNCH),)


def _followed(lease: Lease, seen: Seen) -> Lease:
    return lease if seen.id == lease.machine else replace(lease, machine=seen.id)


def _cleared(lease: Lease, seen: Seen | None) -> Step:
    if seen is None:
        return lease, ()
    return lease, (Action(verb=Verb.TERMINATE, machine=seen.id),)


def _to_suspended(lease: Lease, seen: Seen | None, now: float) -> Step:
    if seen is None:
        return _ended(lease, lease.reason or "its machine has ended", now), ()
    if seen.state in _ON_DISK:
        done = lease if lease.state is State.SUSPENDED else replace(lease, state=State.SUSPENDED)
        return done, ()
    return lease, (Action(verb=Verb.SUSPEND, machine=seen.id),)


def _to_gone(lease: Lease, seen: Seen | None, now: float) -> Step:
    if seen is None:
        return _ended(lease, lease.reason or "deleted", now), ()
    return (
        replace(lease, state=State.STOPPING),
        (Action(verb=Verb.TERMINATE, machine=seen.id),),
    )


_TOWARDS = {
    Wanted.RUNNING: _to_running,
    Wanted.SUSPENDED: _to_suspended,
    Wanted.GONE: _to_gone,
}


def _ended(lease: Lease, reason: str, now: float) -> Lease:
    return replace(lease, state=State.GONE, wanted=Wanted.GONE, reason=reason, ended_at=now)


# --- what came of it -----------------------------------------------------------------------------


def succeeded(lease: Lease, action: Action, ref: Ref | None) -> Lease:
    """Give the lease after something was done for it."""
    lease = replace(lease, attempts=0, retry_at=0.0)
    if action.verb is Verb.LAUNCH and ref is not None:
        running = State.RUNNING if lease.wanted is Wanted.RUNNING else lease.state
        return replace(
            lease,
            machine=ref.id,
            host_keys=ref.host_keys or lease.host_keys,
            state=running,
            reason="" if running is State.RUNNING else lease.reason,
        )
    if action.verb is Verb.RESUME and lease.wanted is Wanted.RUNNING:
        return replace(lease, state=State.RUNNING, reason="")
    if action.verb is Verb.SUSPEND and lease.wanted is Wanted.SUSPENDED:
        return replace(lease, state=State.SUSPENDED)
    return lease


def failed(lease: Lease, action: Action, error: MayflyError, now: float, retries: Retries) -> Lease:
    """Give the lease after something could not be done: tried again later, or given up."""
    if action.verb is Verb.REMIND:
        return lease
    attempts = lease.attempts + 1
    launching = action.verb is Verb.LAUNCH and lease.wanted is Wanted.RUNNING
    if launching and (isinstance(error, NEVER) or attempts >= retries.most):
        # It holds no room any more; its owner reads why.
        return replace(lease, state=State.FAILED, reason=_words(error), attempts=0, retry_at=0.0)
    wait_s = retries.wait_s(attempts)
    reason = f"{_words(error)}; tried again in {show_duration(wait_s)}"
    return replace(lease, reason=reason, attempts=attempts, retry_at=now + wait_s)


def _words(error: MayflyError) -> str:
    return " ".join(error.message.split())[:1000]


def not_seen(lease: Lease, why: str) -> Lease:
    """Give a lease whose place does not answer: its state is what was known last."""
    if not lease.machine or lease.state is not State.RUNNING:
        return lease
    return replace(lease, state=State.UNKNOWN, reason=f"its host is not seen: {why}"[:1000])
