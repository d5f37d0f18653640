"""Make a machine's disk fit for an image: stripped of its identity, still, and its files named."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mayfly.engine.control import Control
from mayfly.engine.reattach import reconnect
from mayfly.engine.records import Record, open_place, read_record
from mayfly.engine.refresh import new_request
from mayfly.engine.saved import LOWER
from mayfly.engine.session.notes import printable
from mayfly.engine.template import AGENT, DISK
from mayfly.errors import Conflict, Failed

REQUEST = {"type": "strip"}
LIMIT_S = 300.0
PATIENCE_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stripped:
    """A machine that stands still, and the files that it stands on."""

    record: Record
    layers: tuple[Path, ...]
    """Top first, down to the image, which is not among them."""


def check_stripped(name: str, answer: dict[str, Any]) -> None:
    """Raise ``Failed`` unless the agent says that nothing of the machine's identity is left."""
    left = answer.get("left")
    if not isinstance(left, list) or not isinstance(answer.get("trimmed"), bool):
        raise Failed(
            f"the agent of machine '{name}' cannot prove that its identity is gone",
            hint="it is of an older version: make a new machine",
        )
    if left:
        words = printable(", ".join(map(str, left)), 500)
        raise Failed(
            f"machine '{name}' cannot become an image, for this is left in it: {words}",
            hint="remove it there, by hand, and try again",
        )
    if not answer["trimmed"]:
        raise Failed(
            f"machine '{name}' cannot become an image: what was deleted in it could be read yet",
            hint="its root file system cannot give free blocks back (fstrim)",
        )


def layers_of(place: Path, template: Path) -> tuple[Path, ...]:
    """Give the files that a machine's disk consists of, above the image."""
    if (place / AGENT).exists():  # it was resumed, and brought its own
        return (place / DISK, *sorted(place.glob(LOWER)))
    if not (template / DISK).exists():
        raise Conflict(f"the template that machine '{place.name}' was cloned from is gone")
    return (place / DISK, template / DISK)


@contextlib.contextmanager
def stripped_machine(machines: Path, templates: Path, name: str) -> Iterator[Stripped]:
    """Wake a kept machine, strip it, and hold it still; it is as it was when that fails."""
    place = open_place(machines, name)
    try:
        record = read_record(place.path)
        layers = layers_of(place.path, templates / record.template)
        machine = reconnect(record, place, patience_s=PATIENCE_S)
        monitor = machine.process.monitor
        try:
            monitor.call("cont")
            try:
                machine.control.hello(timeout_s=PATIENCE_S)
                machine.control.request(new_request())
                _strip(name, machine.control)
            finally:
                monitor.call("stop")
            yield Stripped(record=record, layers=layers)
        finally:
            machine.control.close()
            machine.process.let_go()
    finally:
        place.release()


def _strip(name: str, control: Control) -> None:
    check_stripped(name, control.request(REQUEST, timeout_s=LIMIT_S))
