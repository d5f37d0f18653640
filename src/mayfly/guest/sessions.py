"""The conversations in which jobs run: those on the session port, and one on each port of a visit.

A visit is a port that the host adds while the machine runs, so that several jobs may run at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from mayfly.guest.fields import Refused
from mayfly.guest.framing import Frame
from mayfly.guest.lines import Line, Sort, find_device
from mayfly.guest.loop import Loop
from mayfly.guest.machine import Machine
from mayfly.guest.ports import Port
from mayfly.guest.session import Session

VISIT = re.compile(r"org\.mayfly\.visit\.[0-9]{1,2}")
VISIT_S = 20.0
"""How long the system may take to find a port that was added."""
LOOK_S = 0.01


class Sessions:
    """The conversations on one port: one after the other, one job each."""

    def __init__(self, loop: Loop, port: Port, machine: Machine) -> None:
        self._loop = loop
        self._port = port
        self._machine = machine
        self._session: Session | None = None

    def begin(self) -> None:
        """A host is there."""
        self._session = Session(
            self._loop,
            self._port,
            lambda as_root: self._machine.user(as_root=as_root),
            on_end=lambda: None,
        )

    def frame(self, frame: Frame) -> None:
        """Hand a frame to the session."""
        if self._session is not None:
            self._session.frame(frame)

    def lost(self) -> None:
        """The host is gone."""
        if self._session is not None:
            self._session.hang_up()
            self._session = None


def receive_visit(loop: Loop, machine: Machine, name: str, done: Callable[[str], None]) -> None:
    """Serve a port that was just added; ``done`` is told what kept us from it, "" for nothing.

    Raises ``Refused`` when that is no name of such a port.
    """
    if not VISIT.fullmatch(name):
        raise Refused(f"'{name}' is no port of a visit")
    left = [round(VISIT_S / LOOK_S)]

    def look() -> None:
        left[0] -= 1
        path = find_device(name)
        if path is None and left[0] > 0:
            loop.after(LOOK_S, look)
            return
        if path is None:
            done(f"the port {name} did not appear")
            return
        try:
            port = Port(loop, Line(sort=Sort.VISIT, path=path))
        except OSError as error:
            done(f"the port {name} cannot be opened: {error.strerror}")
            return
        port.talk = Sessions(loop, port, machine)
        done("")

    look()
