"""Policies and people for tests."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from mayfly.model import NetworkMode
from mayfly.policy.decide import decide
from mayfly.policy.model import Ask, Decision, ImageFacts, Origin, Policy, Trust, Wish
from mayfly.policy.people import Person
from mayfly.policy.reader import parse_policy

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
FILE = "policy.toml"
ALICE = Person(user="alice", groups=("physics",), queue="short", roles=("/cms/Role=production",))
BOB = Person(user="bob", groups=("biology",))

IMAGES = {
    "el7": ImageFacts(name="el7", os="centos 7", trust=Trust.TRUSTED, lists=("L1", "Site list")),
    "el9": ImageFacts(
        name="el9", os="almalinux 9", trust=Trust.TRUSTED, endorsers=("/C=DE/CN=Jo",)
    ),
    "el9-next": ImageFacts(name="el9-next", os="almalinux 9", trust=Trust.TRUSTED),
    "plain": ImageFacts(name="plain", os="debian 12"),
    "stolen": ImageFacts(name="stolen", trust=Trust.REFUSED, words="revoked: a hole"),
    "mine": ImageFacts(name="mine", origin=Origin.USER),
}


def policy(text: str) -> Policy:
    """Read a policy."""
    return parse_policy(text, FILE)


def image(name: str, **changes: Any) -> Wish:
    """Wish for an image."""
    return Wish(ask=Ask.IMAGE, image=name, **changes)


def wanting(name: str, network: NetworkMode, *, asked: bool = True) -> Wish:
    """Wish for an image with a network."""
    return image(name, network=network, network_asked=asked)


def answer(text: str, wish: Wish, person: Person = ALICE) -> Decision:
    """Decide on a wish."""
    return decide(policy(text), person, wish, IMAGES, NOW)


def why(text: str, wish: Wish, person: Person = ALICE) -> str:
    """Give what decided."""
    return str(answer(text, wish, person).reasons[-1])
