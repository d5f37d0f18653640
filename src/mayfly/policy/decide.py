"""Decide on a wish. What nothing allows is denied; what is denied stays so, whatever allows it.

The order of rules never matters for what is decided: one rule must allow the whole wish, and of
several that do, the one that gives the most is taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from math import inf

from mayfly.model import NetworkMode
from mayfly.policy.defaults import choose
from mayfly.policy.ends import end_of
from mayfly.policy.model import (
    Allow,
    Decision,
    EndOfLife,
    ImageFacts,
    Limits,
    OldImages,
    Origin,
    Policy,
    Reason,
    Rule,
    Trust,
    Wish,
)
from mayfly.policy.people import Person, matches
from mayfly.units import MIB, show_duration, show_size


@dataclass(frozen=True, slots=True, kw_only=True)
class _Grant:
    """What one rule makes of a wish."""

    allow: Allow
    shortfall: str
    """Why it does not allow the whole wish; empty when it does."""
    network: NetworkMode
    notes: tuple[Reason, ...] = ()

    @property
    def worth(self) -> tuple[float, ...]:
        limits = self.allow.limits
        most = (limits.machines, limits.cpus, limits.memory_mib, limits.time_s)
        return (self.network is not NetworkMode.NONE, *(each or inf for each in most))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    """One wish for one image."""

    policy: Policy
    person: Person
    wish: Wish
    image: ImageFacts
    ended: EndOfLife | None
    """Set when the image is past its end of life."""


def decide(
    policy: Policy,
    person: Person,
    wish: Wish,
    images: Mapping[str, ImageFacts],
    now: datetime,
) -> Decision:
    """Decide on a wish; ``images`` are those that are to be had, by the name that was given."""
    choice = choose(policy, person, wish)
    reasons: tuple[Reason, ...] = (choice.reason,)
    if choice.denied or not choice.image:
        return Decision(allowed=not choice.denied, reasons=reasons)
    name = choice.image
    if name not in images and choice.otherwise:
        name = choice.otherwise
        text = f"image {choice.image} is not here: {name} in its stead"
        reasons = (*reasons, Reason(text=text, line=choice.reason.line))
    if name not in images:
        text = f"there is no image {name}"
        return _denied(reasons, Reason(text=text, line=choice.reason.line), name)
    image = images[name]
    ends = end_of(image, policy.end_of_life, policy.line)
    over = ends is not None and ends.ends_on is not None and ends.ends_on < now.date()
    case = _Case(policy=policy, person=person, wish=wish, image=image, ended=ends if over else None)
    refusal = _denial(case) or _distrust(case)
    return _denied(reasons, refusal, name) if refusal else _granted(case, reasons, name)


def _denied(reasons: tuple[Reason, ...], reason: Reason, image: str) -> Decision:
    return Decision(allowed=False, reasons=(*reasons, reason), image=image)


# --- what denies ---------------------------------------------------------------------------------


def _denial(case: _Case) -> Reason | None:
    for deny in case.policy.deny:
        if _is_for(deny.rule, case):
            why = f": {deny.why}" if deny.why else ""
            return Reason(text=f"image {case.image.name} is denied{why}", line=deny.rule.line)
    return None


def _distrust(case: _Case) -> Reason | None:
    image, policy = case.image, case.policy
    if image.trust is Trust.REFUSED:
        text = f"image {image.name} is not trusted: {image.words or 'its endorsers refuse it'}"
        return Reason(text=text, line=policy.endorsed_line)
    lacking = image.trust is Trust.UNENDORSED and image.origin is Origin.SITE
    if lacking and policy.endorsed:
        text = f'no list that is trusted vouches for image {image.name} (endorsed = "required")'
        return Reason(text=text, line=policy.endorsed_line)
    return None


# --- what allows ---------------------------------------------------------------------------------


def _granted(case: _Case, reasons: tuple[Reason, ...], name: str) -> Decision:
    fitting = [
        _grant(allow, case)
        for allow in case.policy.allow
        if allow.user_images == (case.image.origin is Origin.USER) and _is_for(allow.rule, case)
    ]
    grants = [grant for grant in fitting if not grant.shortfall]
    if not grants:
        return _denied(reasons, _why_not(case, fitting), name)
    best = max(grants, key=lambda grant: grant.worth)
    text = f"image {case.image.name} is allowed"
    granted = Reason(text=text, line=best.allow.rule.line)
    return Decision(
        allowed=True,
        reasons=(*reasons, *best.notes, granted),
        image=name,
        network=best.network,
        root=case.wish.root,
        shares=case.wish.shares,
        limits=best.allow.limits,
    )


def _why_not(case: _Case, fitting: list[_Grant]) -> Reason:
    name = case.image.name
    if fitting:
        nearest = fitting[0]
        text = f"image {name} is allowed here, but not {nearest.shortfall}"
        return Reason(text=text, line=nearest.allow.rule.line)
    whose = "images of users" if case.image.origin is Origin.USER else f"image {name}"
    text = f"no rule allows {whose} for {case.person}"
    return Reason(text=text, line=case.policy.line)


def _is_for(rule: Rule, case: _Case) -> bool:
    image = case.image
    return (
        any(who.fits(case.person) for who in rule.who)
        and _any_fits(rule.images, (image.name,))
        and (not rule.lists or _any_fits(rule.lists, image.lists))
        and (not rule.endorsers or _any_fits(rule.endorsers, image.endorsers))
    )


def _any_fits(patterns: tuple[str, ...], names: tuple[str, ...]) -> bool:
    return any(matches(pattern, name) for pattern in patterns for name in names)


def _grant(allow: Allow, case: _Case) -> _Grant:
    wish = case.wish
    network, note = _network(allow, case)
    lacking = [
        f"with network {wish.network.value}" if network is None else "",
        _old(allow, case),
        "with root" if wish.root and not allow.root else "",
        "with directories of the host" if wish.shares and not allow.shares else "",
        _beyond(allow.limits, wish),
    ]
    return _Grant(
        allow=allow,
        shortfall=next((each for each in lacking if each), ""),
        network=network or NetworkMode.NONE,
        notes=(note,) if note else (),
    )


def _network(allow: Allow, case: _Case) -> tuple[NetworkMode | None, Reason | None]:
    """Give the network that a rule gives, None when it refuses, and why it is not the wished."""
    wish = case.wish
    if wish.network is NetworkMode.NONE:
        return NetworkMode.NONE, None
    ended = case.ended
    if ended is not None and allow.end_of_life is OldImages.NO_NETWORK:
        text = f"{case.image.name} is past its end of life ({ended.ends_on}): no network"
        reason = Reason(text=text, line=ended.line)
        return (None if wish.network_asked else NetworkMode.NONE), reason
    if wish.network in allow.networks:
        return wish.network, None
    text = f"network {wish.network.value} is not allowed: none"
    reason = Reason(text=text, line=allow.rule.line)
    return (None if wish.network_asked else NetworkMode.NONE), reason


def _old(allow: Allow, case: _Case) -> str:
    if case.ended is None or allow.end_of_life is not OldImages.DENY:
        return ""
    return f"past its end of life ({case.ended.ends_on})"


def _beyond(limits: Limits, wish: Wish) -> str:
    """Say which limit a wish goes beyond."""
    if limits.machines and wish.machines >= limits.machines:
        return f"for more than {limits.machines} machines at once"
    if limits.cpus and wish.cpus > limits.cpus:
        return f"with {wish.cpus} CPUs: {limits.cpus} at most"
    if limits.memory_mib and wish.memory_mib > limits.memory_mib:
        wanted, most = show_size(wish.memory_mib * MIB), show_size(limits.memory_mib * MIB)
        return f"with {wanted} of memory: {most} at most"
    if limits.time_s and wish.time_s > limits.time_s:
        return f"for {show_duration(wish.time_s)}: {show_duration(limits.time_s)} at most"
    return ""
