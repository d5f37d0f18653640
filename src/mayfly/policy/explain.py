"""Say in words what a policy decides and by which line, and what in it cannot be meant."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mayfly.errors import Denied
from mayfly.model import NetworkMode
from mayfly.policy.model import Ask, Decision, Default, Line, Mode, Policy, Wish
from mayfly.policy.people import Person, matches


def explain(person: Person, wish: Wish, decision: Decision) -> str:
    """Give the whole answer, for people: what was asked, what came of it, and every line."""
    lines = [f"{person}", f"asks for {_wished(wish)}", _answer(decision)]
    width = max(len(str(reason.line)) for reason in decision.reasons)
    lines += [f"  {reason.line!s:<{width}}  {reason.text}" for reason in decision.reasons]
    return "\n".join(lines)


def denied(decision: Decision) -> Denied:
    """Give the error for a wish that was denied."""
    last = decision.reasons[-1]
    return Denied(
        f"the site's policy denies it: {last}",
        hint="'mayfly policy explain' shows how that comes about; ask the site's admin for more",
    )


def _wished(wish: Wish) -> str:
    what = {
        Ask.NOTHING: "nothing in particular",
        Ask.MACHINE: "a machine",
        Ask.IMAGE: f"image {wish.image}",
        Ask.NATIVE: "no machine",
    }[wish.ask]
    more = [f"network {wish.network.value}"] if wish.network is not NetworkMode.NONE else []
    more += ["root"] if wish.root else []
    more += ["directories of the host"] if wish.shares else []
    return ", ".join([what, *more])


def _answer(decision: Decision) -> str:
    if not decision.allowed:
        return "denied"
    if not decision.image:
        return "runs without a machine"
    given = [f"image {decision.image}", f"network {decision.network.value}"]
    given += ["root"] if decision.root else []
    given += ["directories of the host"] if decision.shares else []
    return f"allowed: {', '.join(given)}"


# --- what cannot be meant ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """Something in a policy that is allowed, and most likely a mistake."""

    line: Line
    text: str

    def __str__(self) -> str:
        return f"{self.line}: {self.text}"


def advise(policy: Policy) -> list[Advice]:
    """Find what cannot be meant, in the order of the file."""
    found = [*_without_rule(policy), *_shadowed(policy), *_daring(policy)]
    return sorted(found, key=lambda advice: advice.line.number)


def _without_rule(policy: Policy) -> Iterator[Advice]:
    for default in policy.default:
        for image in _images(default):
            if not _has_rule(policy, image):
                text = f"no [[policy.allow]] is for image {image}: every such job is denied"
                yield Advice(line=default.line, text=text)


def _images(default: Default) -> list[str]:
    if default.mode is Mode.OFF:
        return []
    return [image for image in (default.image, default.canary) if image]


def _has_rule(policy: Policy, image: str) -> bool:
    return any(
        not allow.user_images and any(matches(pattern, image) for pattern in allow.rule.images)
        for allow in policy.allow
    )


def _shadowed(policy: Policy) -> Iterator[Advice]:
    for deny in policy.deny:
        rule = deny.rule
        everything = "*" in rule.images and not rule.lists and not rule.endorsers
        if everything and any(not who.terms for who in rule.who):
            yield Advice(line=rule.line, text="this denies everything to everybody")


def _daring(policy: Policy) -> Iterator[Advice]:
    for allow in policy.allow:
        networks = [each for each in allow.networks if each is not NetworkMode.NONE]
        if allow.user_images and (networks or allow.shares):
            text = "images that users bring along get a network or see directories of the host"
            yield Advice(line=allow.rule.line, text=text)
