"""Numbers that a site sets for leases."""

from __future__ import annotations

from dataclasses import dataclass

DAY_S = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ladder:
    """What happens around the end of a lease's time, in seconds."""

    default_s: float = 30 * DAY_S
    """For how long, where nothing was said."""
    most_s: float = 30 * DAY_S
    """For how long at most, from now on; extended as often as wanted."""
    remind_s: tuple[float, ...] = (7 * DAY_S, DAY_S, 3600.0)
    """Reminders go out so long before the end, the longest first."""
    grace_s: float = 7 * DAY_S
    """How long a suspended machine is kept after the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retries:
    """How often a failed step is tried again, and when."""

    most: int = 6
    first_s: float = 2.0
    longest_s: float = 60.0

    def wait_s(self, attempts: int) -> float:
        """Give how long to wait after so many failures in a row."""
        doubled = self.first_s * 2.0 ** min(max(attempts - 1, 0), 30)
        return min(doubled, self.longest_s)


USUAL = Ladder()
USUAL_RETRIES = Retries()
