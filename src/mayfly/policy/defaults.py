"""Which image a job gets that names none: the narrowest default, and for a few the newer one."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from mayfly.policy.model import Ask, Default, Line, Mode, Policy, Reason, Wish
from mayfly.policy.people import Person


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The image that a job gets, or why it gets none."""

    reason: Reason
    image: str = ""
    """Empty: no machine."""
    otherwise: str = ""
    """The image in its stead where this one, a canary, is not to be had."""
    denied: bool = False


def find_default(policy: Policy, person: Person) -> Default | None:
    """Give the default that is for somebody.

    What is forced comes before all else, so that nobody gets out of it by a narrower line; then
    the narrowest counts, and of several as narrow ones the first.
    """
    fitting = [
        (default.mode is Mode.FORCE, who.narrowness, -place, default)
        for place, default in enumerate(policy.default)
        for who in default.who
        if who.fits(person)
    ]
    return max(fitting, key=lambda each: each[:3])[3] if fitting else None


def choose(policy: Policy, person: Person, wish: Wish) -> Choice:
    """Say which image a wish is for."""
    default = find_default(policy, person)
    if default is None:
        return _without_default(policy.line, wish)
    match default.mode:
        case Mode.FORCE:
            return _forced(default, person, wish)
        case Mode.OFF:
            return _off(default, wish)
        case Mode.OFFER | Mode.DEFAULT:
            return _free(default, person, wish)


def _without_default(line: Line, wish: Wish) -> Choice:
    match wish.ask:
        case Ask.IMAGE:
            return Choice(image=wish.image, reason=_said(line, f"image {wish.image} is asked for"))
        case Ask.MACHINE:
            text = "a machine is asked for, but no image, and there is no default for this job"
            return Choice(denied=True, reason=_said(line, text))
        case Ask.NOTHING | Ask.NATIVE:
            text = "no machine is asked for, and there is no default for this job"
            return Choice(reason=_said(line, text))


def _forced(default: Default, person: Person, wish: Wish) -> Choice:
    own = (default.image, default.canary)
    if wish.ask is Ask.NATIVE or (wish.ask is Ask.IMAGE and wish.image not in own):
        wanted = "no machine" if wish.ask is Ask.NATIVE else f"image {wish.image}"
        text = f"{wanted} is asked for, but all of these jobs run in {default.image}"
        return Choice(denied=True, reason=_said(default.line, text))
    return _given(default, person, f"all of these jobs run in {default.image}")


def _off(default: Default, wish: Wish) -> Choice:
    if wish.ask in (Ask.IMAGE, Ask.MACHINE):
        text = "there are no machines for these jobs"
        return Choice(denied=True, reason=_said(default.line, text))
    return Choice(reason=_said(default.line, "these jobs run without a machine"))


def _free(default: Default, person: Person, wish: Wish) -> Choice:
    match wish.ask:
        case Ask.IMAGE:
            text = f"image {wish.image} is asked for"
            return Choice(image=wish.image, reason=_said(default.line, text))
        case Ask.MACHINE:
            return _given(default, person, f"{default.image} is for those who name no image")
        case Ask.NATIVE:
            return Choice(reason=_said(default.line, "no machine is wanted"))
        case Ask.NOTHING if default.mode is Mode.DEFAULT:
            return _given(default, person, f"{default.image} is the default for these jobs")
        case Ask.NOTHING:
            text = f"no machine is asked for; {default.image} is there for those who do"
            return Choice(reason=_said(default.line, text))


def _given(default: Default, person: Person, text: str) -> Choice:
    if default.canary and in_canary(person.user, default.canary, default.canary_percent):
        part = f"; {default.canary_percent} % of users get {default.canary}, this one too"
        return Choice(
            image=default.canary,
            otherwise=default.image,
            reason=_said(default.line, text + part),
        )
    return Choice(image=default.image, reason=_said(default.line, text))


def in_canary(user: str, image: str, percent: int) -> bool:
    """Tell whether a user is among those who get the newer image.

    It is always the same users for one image, and others for another; with a larger share, those
    who had it keep it.
    """
    digest = hashlib.sha256(f"{image}\0{user}".encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8]) % 10_000 < percent * 100


def _said(line: Line, text: str) -> Reason:
    return Reason(text=text, line=line)
