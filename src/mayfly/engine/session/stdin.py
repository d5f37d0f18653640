"""What the user types or pipes in, on its way to the job.

Keys are read whether the machine takes them or not: the one who looks for the keys that end the
run must see them, and a machine could refuse its standard input, or have the terminal answer so
many queries that it has no credit left.
"""

from __future__ import annotations

import select
from collections.abc import Callable

from mayfly.engine.session.conversation import Stage
from mayfly.engine.session.parts import Parts
from mayfly.guest.framing import Kind, Stream, pack

PIECE = 64 << 10
"""Bytes of keys that are read at once, and of what goes into one frame."""
HELD_LIMIT = 4 << 20
"""Bytes of keys that wait for the machine; what is typed beyond that is lost."""
BACKGROUND_S = 1.0
"""How often we look whether the shell gave us the terminal."""


def _nothing() -> None:
    """Only wake."""


class Stdin:
    """Moves standard input; ``look`` is called with all that was read."""

    def __init__(self, parts: Parts, look: Callable[[bytes], None]) -> None:
        self._parts = parts
        self._look = look
        self._held = bytearray()
        self._open = True
        self.lost = 0
        """Bytes of keys that there was no room for."""

    def watch(self, *, wanted: bool) -> None:
        """Look at the descriptor as long as what it gives can be used."""
        parts, source = self._parts, self._parts.console.input
        ours = wanted and parts.stage is Stage.JOB
        if ours and parts.console.in_background():
            ours = False
            if not parts.loop.has("background"):
                parts.loop.after(BACKGROUND_S, "background", _nothing)
        if ours:
            parts.console.give_keys()
        room = self._keys or (not parts.link.full and self._room > 0)
        events = select.POLLIN if ours and room and not source.ended else 0
        parts.loop.watch(source.fd, events, self._ready)

    def send(self) -> None:
        """Queue what the machine takes now, and at last the end."""
        parts = self._parts
        if parts.stage is not Stage.JOB or not self._open:
            self._held.clear()
            return
        while self._held and self._room > 0 and not parts.link.full:
            data = bytes(self._held[: min(self._room, PIECE)])
            del self._held[: len(data)]
            parts.link.send(pack(Kind.DATA, Stream.STDIN, data))
            parts.conversation.spend(Stream.STDIN, len(data))
        if parts.console.input.ended and not self._held:
            self._open = False
            parts.link.send(pack(Kind.EOF, Stream.STDIN))

    def refuse(self) -> None:
        """Note that the machine wants no more of it."""
        self._open = False
        if not self._keys:
            self._parts.console.input.stop()

    @property
    def _keys(self) -> bool:
        return self._parts.console.terminal is not None

    @property
    def _room(self) -> int:
        return self._parts.conversation.room(Stream.STDIN)

    def _ready(self) -> None:
        data = self._parts.console.input.read(PIECE if self._keys else self._room)
        if self._open:
            taken = data[: HELD_LIMIT - len(self._held)]
            self._held += taken
            self.lost += len(data) - len(taken)
        self.send()
        if data:
            self._look(data)
