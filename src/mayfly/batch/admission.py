"""What a job would get, as far as it can be said where it is submitted."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from mayfly.batch.wish import Wish
from mayfly.config import Paths
from mayfly.errors import MayflyError
from mayfly.images.catalogue import Catalogue
from mayfly.model import NetworkMode
from mayfly.policy.model import Ask, Policy
from mayfly.policy.model import Wish as PolicyWish
from mayfly.policy.people import Kind, Person

if TYPE_CHECKING:
    from mayfly.host.permission import Gate


class Counter:
    """Answers for one job after the other; files are read again when they have changed."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._here = Catalogue(own=paths.site_images, dirs=(paths.site_images,))
        self._gate: Gate | None = None

    def image_for(self, person: Person, wish: Wish) -> str:
        """Give the image of a job, "" for none or where it is not known yet.

        Raises ``MayflyError`` when no host would run it. Where no images are, as on a host of which
        jobs are only submitted, and where all depends on a queue that is not known, nothing is
        refused: the host of the job looks again.
        """
        asked = wish.image if wish.ask is Ask.IMAGE else ""
        if wish.ask is Ask.NATIVE or not os.path.isdir(self._paths.site_images):
            return asked
        if self._gate is None and not self._paths.has_rules():
            if asked:
                self._here.find(asked)
            return asked
        return self._decide(person, wish, asked)

    def _decide(self, person: Person, wish: Wish, asked: str) -> str:
        # Each submission is a process of its own, and most sites have no rules.
        from mayfly.host.permission import gate_of  # noqa: PLC0415
        from mayfly.policy.explain import denied  # noqa: PLC0415

        gate = self._gate = self._gate or gate_of(self._paths)
        now = datetime.now(UTC)
        if asked:
            gate.check(self._here.find(asked), now)
        if not gate.has_policy or (not person.queue and speaks_of_queues(gate.policy())):
            return asked
        decision = gate.decision(person, _policy_wish(wish), self._here, now)
        if not decision.allowed:
            raise denied(decision)
        return decision.image

    def names_for(self, person: Person) -> list[str]:
        """Give the images that somebody may have."""
        return [
            image.name
            for image in self._here.list()
            if self._may(person, Wish(ask=Ask.IMAGE, image=image.name))
        ]

    def _may(self, person: Person, wish: Wish) -> bool:
        try:
            return bool(self.image_for(person, wish))
        except MayflyError:
            return False


def _policy_wish(wish: Wish) -> PolicyWish:
    return PolicyWish(
        ask=wish.ask,
        image=wish.image,
        network=wish.network or NetworkMode.NONE,
        network_asked=wish.network is not None,
        root=wish.root,
        shares=bool(wish.shares),
    )


def speaks_of_queues(policy: Policy) -> bool:
    """Tell whether the answer depends on the queue."""
    people = [who for each in policy.allow for who in each.rule.who]
    people += [who for default in policy.default for who in default.who]
    return any(kind is Kind.QUEUE for who in people for kind, _ in who.terms)
