"""How many standbys of each image there should be, from the claims seen lately.

**One image.** The claims are played again, as if each standby that was taken came back after the
time that a refill takes: as many as were lacking at the worst moment are wanted. A claim that
missed weighs double, since somebody had to wait, so the number goes up at once. What a moment
says is halved every ``HALF_LIFE_S``, so the number comes down when it is quiet. It stays within
``least`` and ``most``.

**Several images** share what room there is: first each gets its ``least``, then what it wants
beyond that, one standby each by turns. Images that are the default of a queue come first in each
turn, then those that the site named first. So nobody gets a second one beyond its least before
everybody who wants it has a first.

The same claims at the same time give the same numbers. Times are those of a clock that is never set
back.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Hashable, Iterable, Mapping
from typing import NamedTuple, Protocol, TypeVar

from mayfly.host.settings import Standby

HALF_LIFE_S = 1800.0
WINDOW_S = 4 * HALF_LIFE_S
"""Older claims say nothing any more."""
MISS_WEIGHT = 2
CLAIMS_MOST = 1000
"""Remembered for one image: more at once are beyond any ``most``."""
REFILL_S = 2.0
"""Taken for the time of a refill until one was seen."""
REFILL_LEAST_S = 0.1
_NEW_SHARE = 0.3
"""Of the latest refill in their mean."""

Key = TypeVar("Key", bound=Hashable)


class Claim(NamedTuple):
    """A request for an image."""

    at: float
    hit: bool
    """Whether there was a standby for it."""


class Demand:
    """What was seen of one image: claims, and how long a refill takes."""

    def __init__(self) -> None:
        self._claims: deque[Claim] = deque(maxlen=CLAIMS_MOST)
        self._refill_s: float | None = None

    @property
    def refill_s(self) -> float:
        """How long it takes to replace a standby."""
        return REFILL_S if self._refill_s is None else self._refill_s

    def claimed(self, now: float, *, hit: bool) -> None:
        """Remember a claim."""
        while self._claims and self._claims[0].at < now - WINDOW_S:
            self._claims.popleft()
        self._claims.append(Claim(now, hit))

    def refilled(self, seconds: float) -> None:
        """Remember how long a refill took, from the claim that caused it."""
        taken = max(REFILL_LEAST_S, seconds)
        if self._refill_s is None:
            self._refill_s = taken
        else:
            self._refill_s += _NEW_SHARE * (taken - self._refill_s)

    def needed(self, now: float) -> int:
        """Give how many standbys the claims ask for."""
        return needed(self._claims, now, self.refill_s)


class Hot(Protocol):
    """One image of which standbys are kept."""

    @property
    def standby(self) -> Standby:
        """What the site wants."""

    @property
    def demand(self) -> Demand:
        """What was seen."""


def needed(claims: Iterable[Claim], now: float, refill_s: float) -> int:
    """Give how many standbys the claims, oldest first, ask for; at least 0."""
    lacking = best = 0.0
    before = -math.inf
    for claim in claims:
        age_s = max(0.0, now - claim.at)
        if age_s > WINDOW_S:
            continue
        lacking = max(0.0, lacking - (claim.at - before) / refill_s)
        lacking += 1 if claim.hit else MISS_WEIGHT
        before = claim.at
        # A hair less, for what a division leaves behind the point.
        worth = math.ceil(lacking - 1e-6) * 0.5 ** (age_s / HALF_LIFE_S)
        best = max(best, worth)
    return math.floor(best + 0.5)


def wanted_counts(images: Mapping[Key, Hot], now: float, room: int) -> dict[Key, int]:
    """Give how many standbys of each image there should be; ``room``: how many fit in all."""
    # The sort is stable: else the order in which the site named them counts.
    order = sorted(images, key=lambda key: not images[key].standby.queues)
    counts = dict.fromkeys(images, 0)
    least = {key: images[key].standby.least for key in order}
    left = _deal(counts, least, room)
    wanted = {
        key: min(max(images[key].demand.needed(now), least[key]), images[key].standby.most)
        for key in order
    }
    _deal(counts, wanted, left)
    return counts


def _deal(counts: dict[Key, int], goals: Mapping[Key, int], room: int) -> int:
    """Give out one each by turns until the goals are met; gives the room that is left."""
    while room > 0:
        lacking = [key for key, goal in goals.items() if counts[key] < goal]
        if not lacking:
            break
        for key in lacking[:room]:
            counts[key] += 1
        room -= len(lacking[:room])
    return max(0, room)
