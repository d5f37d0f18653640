"""A machine that stays: paused, suspended and brought back while things are killed around it."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from soak.service import Supervised, command

STEPS = ("pause", "resume", "suspend", "resume", "snapshot", "revert")
STEP_LIMIT_S = 120
EXIT_MISSING = 4


@dataclass(slots=True, kw_only=True)
class Staying:
    """One machine after the other, each through some steps; one command at a time."""

    service: Supervised
    name: str = ""
    left: list[str] = field(default_factory=list)
    done: int = 0
    """Steps that succeeded."""
    _making: bool = False
    _deleting: bool = False
    _running: subprocess.Popen[bytes] | None = None

    def go_on(self, rng: random.Random) -> None:
        """Begin the next step when the one before is done; what fails ends the machine's turn."""
        if self._running is not None:
            code = self._running.poll()
            if code is None:
                return
            self._ended(code)
        words = self._next(rng)
        output = self.service.top / "stay.out"
        with open(output, "wb") as out:
            self._running = subprocess.Popen(
                command(*words),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.DEVNULL,
                env=self.service.environment(),
                cwd="/",
            )

    def _ended(self, code: int) -> None:
        self._running = None
        deleting, self._deleting = self._deleting, False
        if deleting and code in (0, EXIT_MISSING):
            self.name = ""
        if code != 0:
            # Something was killed under it: the machine goes, wherever it stands.
            self.left, self._making = [], False
            return
        self.done += 1
        if not self.name and self._making:
            self.name = (self.service.top / "stay.out").read_text().strip()
            self.left = list(STEPS)
        self._making = False

    def _next(self, rng: random.Random) -> tuple[str, ...]:
        if not self.name:
            self._making = True
            return ("run", "--detach", "--no-workdir", "--for", "2m", "debian-12")
        if not self.left:
            # Until that was heard: a deletion may be cut short like anything else.
            self._deleting = True
            return ("machine", "delete", self.name)
        step = self.left.pop(0)
        point = ("here",) if step in ("snapshot", "revert") else ()
        if rng.random() < 0.3:
            return ("machine", "ssh", self.name, "--", "true")
        return ("machine", step, self.name, *point)

    def finish(self) -> None:
        """Wait for what is under way, and delete what is there."""
        if self._running is not None:
            self._running.wait(timeout=STEP_LIMIT_S)
            self._running = None
        for item in self.service.ask("machine", "list") or []:
            if item["state"] != "standby":
                words = command("machine", "delete", item["id"])
                subprocess.run(
                    words, check=False, env=self.service.environment(), capture_output=True
                )


def size_of(directory: Path) -> int:
    """Give the bytes that a directory takes on disk."""
    total = 0
    # What goes away meanwhile is passed over: files here, directories by os.walk itself.
    for folder, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(folder, name)).st_blocks * 512
    return total
