"""Ports that are added to a running machine, so that several jobs may run in it at once: pure.

Each is a device on the machine's bus of ports, connected from its beginning to one end of a pair of
sockets. Nothing is remembered here: QEMU itself says which there are, and which are left.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mayfly.engine.argv import PORTS, PORTS_MOST
from mayfly.engine.ports import NOBODY

PORTS_BUS = "/machine/peripheral/ports"
"""Where QEMU has the bus."""
MAIN = "session"
FIRST = len(PORTS) + 1
"""The lowest number that no port has from the start."""
FD_NAME = "visit"
_LABEL = re.compile(r"visit([0-9]{1,2})")

Command = tuple[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Doors:
    """What QEMU says of a machine's ports for jobs."""

    main_free: bool
    used: tuple[int, ...]
    left: tuple[int, ...]
    """Numbers of added ports at which nobody is any more."""

    @property
    def next(self) -> int | None:
        """Give the number of the next port to add; None when there is room for no more."""
        numbers = range(FIRST, PORTS_MOST)
        taken = {*self.used, *self.left}
        return next((number for number in numbers if number not in taken), None)


def read_doors(found: Sequence[Mapping[str, Any]]) -> Doors:
    """Read the answer to ``query-chardev``."""
    main_free = False
    used: list[int] = []
    left: list[int] = []
    for item in found:
        label = str(item.get("label"))
        nobody = str(item.get("filename")).startswith(NOBODY)
        if label == MAIN:
            main_free = nobody
        elif match := _LABEL.fullmatch(label):
            (left if nobody else used).append(int(match[1]))
    return Doors(main_free=main_free, used=tuple(used), left=tuple(left))


def port_name(number: int) -> str:
    """Give a port's name in the machine."""
    return f"org.mayfly.visit.{number}"


def adding(number: int) -> list[Command]:
    """Give the commands that add a port; QEMU has a socket as ``FD_NAME``."""
    label = f"visit{number}"
    address = {"type": "fd", "data": {"str": FD_NAME}}
    backend = {"type": "socket", "data": {"addr": address, "server": False}}
    device = {"driver": "virtserialport", "bus": "ports.0", "nr": number, "chardev": label}
    return [
        ("chardev-add", {"id": label, "backend": backend}),
        ("device_add", {**device, "name": port_name(number), "id": f"p{label}"}),
    ]


def removing(number: int) -> list[Command]:
    """Give the commands that remove a port at which nobody is."""
    label = f"visit{number}"
    return [("device_del", {"id": f"p{label}"}), ("chardev-remove", {"id": label})]
