"""What mmdebstrap prints, heard line by line: how far it is, what scripts say, why one failed."""

from __future__ import annotations

from collections.abc import Callable

from mayfly.errors import Failed
from mayfly.images.build.farm.setup import BEGINS, ENDS, FAILED, SAYS
from mayfly.images.build.recipe import milestone
from mayfly.images.follow import Report


def heard_by_nobody(line: str) -> None:
    """Take what a script printed, and do nothing with it."""


class Hearing:
    """Takes each line of the output."""

    def __init__(self, report: Report, say: Callable[[str], None]) -> None:
        self._report = report
        self._say = say
        self._script = ""
        self._why = ""
        self._last = ""

    def __call__(self, line: str) -> None:
        """Take one line."""
        if line.startswith(SAYS):
            self._ours(line.removeprefix(SAYS))
        elif self._script:
            self._last = line or self._last
            self._say(line)
        else:
            fraction = milestone(line)
            if fraction is not None:
                self._report("packages", fraction)

    def _ours(self, words: str) -> None:
        if words.startswith(BEGINS):
            self._script = words.removeprefix(BEGINS)
            self._report(f"script {self._script}", None)
        elif words.startswith(FAILED):
            # What comes now is mmdebstrap's, and says no more than that it failed.
            self._why, self._script = words.removeprefix(FAILED), ""
        elif words == ENDS:
            self._script = ""

    def failure(self) -> Failed | None:
        """Give the error when it was the recipe's own part that failed."""
        if not self._why:
            return None
        last = f"; the last that it printed: {self._last[:300]}" if self._last else ""
        return Failed(
            f"the recipe's {self._why}{last}",
            hint="scripts run as root in the tree of the image, without a terminal",
        )
