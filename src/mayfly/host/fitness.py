"""Whether machines can be made on this host, as far as the last ones tell.

A host that is sick fails fast, and so would draw all jobs of a batch system to itself. What the
batch system asks before it sends a job, it is told here.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from mayfly.errors import Failed, MayflyError, Quota, Unavailable

FAILURES = 3
"""In a row, of all images together, before a host is called sick."""
PROBATION_S = 60.0
"""After so long without a failure it is tried again."""
WELL_S = 3600.0
"""So long an image of which a machine was made speaks for the host."""
OURS = (Failed, Unavailable, Quota)
"""What may be the host's doing; all other errors are the request's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    failures: int
    reason: str
    at: float


@dataclass(slots=True)
class Fitness:
    """What became of the machines that were made last, by image; times are monotonic."""

    _seen: dict[str, _Seen] = field(default_factory=dict)

    def made(self, image: str, now: float) -> None:
        """Note that a machine could be made."""
        self._seen[image] = _Seen(failures=0, reason="", at=now)

    def failed(self, image: str, error: MayflyError, now: float) -> None:
        """Note that one could not, if that may be the host's doing."""
        if isinstance(error, OURS):
            before = self._lately(now).get(image)
            failures = 1 if before is None else before.failures + 1
            self._seen[image] = _Seen(failures=failures, reason=error.message, at=now)

    def trouble(self, now: float) -> str:
        """Say why this host should get no jobs; "" when it should.

        An image that cannot be booted anywhere is no fault of the host: one other image of which a
        machine could be made speaks for it.
        """
        lately = self._lately(now)
        self._seen = lately
        failures = [seen.failures for seen in lately.values()]
        if sum(failures) < FAILURES or not all(failures):
            return ""
        last = max(lately.values(), key=lambda seen: seen.at)
        return f"the last {sum(failures)} machines could not be made: {last.reason}"

    def _lately(self, now: float) -> dict[str, _Seen]:
        return {
            name: seen
            for name, seen in self._seen.items()
            if now - seen.at < (PROBATION_S if seen.failures else WELL_S)
        }
