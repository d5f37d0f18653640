"""Words for people about many files: names made safe to print, long lists made short."""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import Enum

NAME_LIMIT = 200
"""Longest name shown, in characters."""
QUIET_S = 2.0
"""Progress is shown only of what takes longer than this."""
INTERVAL_S = 0.5


def printable(text: str, limit: int = NAME_LIMIT) -> str:
    """Make text from a machine, or a file name, safe for a terminal: no control characters."""
    if len(text) > limit:
        text = f"{text[: limit // 2]}...{text[-limit // 4 :]}"
    return "".join(sign if sign.isprintable() else _escape(sign) for sign in text)


def _escape(sign: str) -> str:
    return sign.encode("unicode_escape", "surrogatepass").decode("ascii")


class Remark(Enum):
    """What may have to be said about a file, and how many names are shown before a count."""

    NOT_SENT = ("not copied into the machine", 3)
    CHANGED_WHILE_SENT = ("changed while being copied into the machine", 3)
    CONFLICT = ("changed here meanwhile and kept; the machine's version is beside it", 20)
    KEPT = ("deleted in the machine, but changed here meanwhile: kept", 10)
    REFUSED = ("refused from the machine", 5)
    NOT_WRITTEN = ("could not be written here", 10)
    OVER_LIMIT = ("not copied back, over the limit (--workdir-limit)", 10)
    UNFINISHED = ("not copied back, only a part of it came", 10)
    FROM_MACHINE = ("could not be read in the machine", 5)
    SESSION = ("", 10)
    """A whole sentence of its own."""


class Notes:
    """Collects remarks about files; however many there are, the lines stay few."""

    def __init__(self) -> None:
        self._names: dict[Remark, list[str]] = {}
        self._counts: dict[Remark, int] = {}

    def add(self, remark: Remark, name: str, why: str = "") -> None:
        """Remark on one file; both texts may come from a hostile machine."""
        self._counts[remark] = self._counts.get(remark, 0) + 1
        names = self._names.setdefault(remark, [])
        if len(names) < remark.value[1]:
            reason = f" ({printable(why)})" if why else ""
            names.append(printable(name) + reason)

    def say(self, sentence: str) -> None:
        """Add a sentence of our own."""
        self._counts[Remark.SESSION] = self._counts.get(Remark.SESSION, 0) + 1
        self._names.setdefault(Remark.SESSION, []).append(sentence)

    def lines(self) -> tuple[str, ...]:
        """Give one line for each kind of remark."""
        sentences = self._names.get(Remark.SESSION, ())
        kinds = (remark for remark in self._names if remark is not Remark.SESSION)
        return (*sentences, *(self.line(remark) for remark in kinds))

    def line(self, remark: Remark) -> str:
        """Give the line for one kind of remark about files; "" when there was none."""
        names = self._names.get(remark, [])
        if not names:
            return ""
        more = self._counts[remark] - len(names)
        rest = f" and {more} more" if more else ""
        return f"{remark.value[0]}: {', '.join(names)}{rest}"


class Progress:
    """Reports what takes long: nothing in the first two seconds, then two lines a second."""

    def __init__(
        self, report: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._report = report
        self._clock = clock
        self._next = clock() + QUIET_S

    def step(self, words: Callable[[], str]) -> None:
        """Say where we are, if it is time to."""
        now = self._clock()
        if now >= self._next:
            self._next = now + INTERVAL_S
            self._report(words())
