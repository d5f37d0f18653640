"""Make a machine fit for use again when its memory is that of an earlier moment.

Without it a machine that is reverted twice would draw the same random numbers twice, and think
that it is still the time at which its memory was saved.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from mayfly.engine.machine import ANSWER_LIMIT_S, Machine
from mayfly.engine.records import no_room
from mayfly.engine.renewal import check_fresh, refresh_request
from mayfly.errors import Failed

FEATURE = "refresh"
"""What an agent must say that it can do."""
DRAWN = "drawn.json"
DRAWN_LIMIT = 10_000


def new_request() -> dict[str, object]:
    """Give a request with a seed of its own and the time as it is now."""
    return refresh_request(uuid.uuid4(), os.urandom(64), time.time_ns())


@dataclass(frozen=True, slots=True, kw_only=True)
class Refreshing:
    """A refresh that is underway."""

    number: int
    """To ask ``Control.arrived`` for."""
    before_ns: int
    began_ns: int


def refresh(machine: Machine, drawn: Path) -> None:
    """Give a running machine new random numbers and the right time, and prove that it took them.

    ``drawn`` is a directory that remembers what the same memory gave when it ran before. Raises
    ``Failed`` when the machine repeats itself, or its agent does not know how: it must not go on.
    """
    end_refresh(machine, begin_refresh(machine), drawn)


def begin_refresh(machine: Machine) -> Refreshing:
    """Do the first half of ``refresh``, without waiting."""
    # The agent's end of the conversation is of that moment, too: another one begins.
    machine.control.begin()
    before, began = time.time_ns(), time.monotonic_ns()
    number = machine.control.send(new_request())
    return Refreshing(number=number, before_ns=before, began_ns=began)


def end_refresh(machine: Machine, underway: Refreshing, drawn: Path) -> None:
    """Do the second half of ``refresh``: wait for the answer, which may be here, and check it."""
    machine.control.hello(timeout_s=ANSWER_LIMIT_S)
    if FEATURE not in (machine.control.features or ()):
        raise Failed("the agent in the machine is of a version that knows no 'refresh'")
    answer = machine.control.answer(underway.number, "refresh", timeout_s=ANSWER_LIMIT_S)
    # Not by the clock itself: somebody may have set the host's meanwhile.
    after = underway.before_ns + time.monotonic_ns() - underway.began_ns
    known = read_drawn(drawn)
    check_fresh(answer, known, (underway.before_ns, after))
    _write_drawn(drawn, [*known, str(answer["random"])])


def read_drawn(directory: Path) -> list[str]:
    """Give the random numbers that were seen before; none when nothing readable is there."""
    try:
        found = json.loads((directory / DRAWN).read_text())
    except (OSError, ValueError, RecursionError):
        return []
    return [str(item) for item in found] if isinstance(found, list) else []


def _write_drawn(directory: Path, drawn: list[str]) -> None:
    fresh = directory / f"{DRAWN}.new"
    try:
        fresh.write_text(json.dumps(drawn[-DRAWN_LIMIT:]))
        fresh.replace(directory / DRAWN)
    except OSError as error:
        raise no_room(directory, error) from error
