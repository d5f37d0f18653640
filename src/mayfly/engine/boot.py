"""The one cold boot of a guest, before it becomes a template."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from mayfly.engine.context import EPILOG, PROLOG, Context
from mayfly.engine.control import Control
from mayfly.engine.process import Process
from mayfly.engine.session.notes import printable
from mayfly.engine.template import Report
from mayfly.engine.watch import PANIC, Signs, console_lines
from mayfly.errors import Failed, MayflyError, Quota, Unavailable
from mayfly.model import Image
from mayfly.units import show_duration

BOOT_LIMIT_S = 300.0
SETTLE_LIMIT_S = 120.0
CONSOLE_LINES = 2000
"""How much of a boot's console is kept."""
PART_LIMIT_S = 300.0
"""For one script of the site's context."""
LOGIN_LIMIT_S = 60.0
"""From the login prompt to the agent's greeting, when the boot itself is over."""
HINT_LINES = 8
FREE_SOME = "free some space, or set MAYFLY_HOME to a directory on a roomier disk"


@dataclass(frozen=True, slots=True, kw_only=True)
class Booted:
    """A guest that is up, and how long it took."""

    hello: dict[str, Any]
    boot_s: float
    settled: str
    samples: tuple[str, ...]
    console: tuple[str, ...]
    """What the serial console printed."""
    context: str = ""
    """Digest of what the site gave the image."""


class Boot:
    """A guest that is coming up, watched on its console."""

    def __init__(self, process: Process, image: Image, report: Report) -> None:
        self._process = process
        self._image = image
        self._report = report
        self._signs = Signs(process)
        self._began = time.monotonic()
        self._login_at: float | None = None
        self.console: list[str] = []

    @property
    def took_s(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self._began

    def read_console(self) -> None:
        """Take what the console printed since the last time."""
        self.console.extend(console_lines(self._process.monitor))
        del self.console[:-CONSOLE_LINES]

    def check(self) -> None:
        """Read the console; raises ``Quota`` or ``Failed`` when the machine ended."""
        self.read_console()
        self._signs.check()

    def look(self) -> None:
        """Report progress; raises ``Failed`` when the guest can be seen to get nowhere."""
        self._report(f"booting {self._image.name} once ({self.took_s:.0f} s)")
        self.check()
        if any(PANIC in line for line in self.console):
            raise Failed("its kernel panicked while booting")
        if self._process.has_ended():
            raise Failed(f"QEMU ended: {self._process.said()}")
        if self._login_at is None and any("login:" in line for line in self.console):
            self._login_at = self.took_s
        if self._login_at is not None and self.took_s - self._login_at > LOGIN_LIMIT_S:
            raise Failed(
                f"it showed a login prompt {LOGIN_LIMIT_S:.0f} s ago, but no agent was started: "
                "it needs cloud-init, or Mayfly's start stub"
            )


def boot(process: Process, image: Image, report: Report, context: Context | None = None) -> Booted:
    """Wait until the guest is up, has settled, and is ready to be frozen.

    Of a ``context`` the prolog is run as soon as it is up, the epilog when it has settled. Raises
    ``Failed`` with the last lines of its console.
    """
    watched = Boot(process, image, report)
    control = Control(process.connect("control"), process.handle, tick=watched.check)
    control.begin()
    try:
        hello = control.hello(timeout_s=BOOT_LIMIT_S, tick=watched.look)
        boot_s = watched.took_s
        report(f"{image.name} is up after {show_duration(boot_s)}; letting it settle")
        settled = _settle(control, report, context)
        control.request({"type": "prepare"}, timeout_s=SETTLE_LIMIT_S)
        sample = control.request({"type": "sample"})
        watched.read_console()
    except MayflyError as error:
        console = watched.console or [process.said()]
        raise boot_trouble(image.name, error, console) from error
    finally:
        control.close()
    return Booted(
        hello=hello,
        boot_s=boot_s,
        settled=str(settled.get("detail", ""))[:200],
        samples=(str(sample.get("random")),),
        console=tuple(watched.console),
        context="" if context is None else context.digest,
    )


def _settle(control: Control, report: Report, context: Context | None) -> dict[str, Any]:
    request = {"type": "settle", "timeout_s": SETTLE_LIMIT_S}
    scripts = () if context is None else context.scripts()
    if context is not None and PROLOG in scripts:
        _run_part(control, report, context, PROLOG)
    settled = control.request(request, timeout_s=SETTLE_LIMIT_S + 30)
    if context is not None and EPILOG in scripts:
        _run_part(control, report, context, EPILOG)
        settled = control.request(request, timeout_s=SETTLE_LIMIT_S + 30)
    return settled


def _run_part(control: Control, report: Report, context: Context, part: str) -> None:
    """Run one script of the context; what does not get its context must not become a template."""
    report(f"running {part} of the site's context")
    request = {"type": "context", "part": part, "timeout_s": PART_LIMIT_S}
    answer = control.request(request, timeout_s=PART_LIMIT_S + 30)
    if answer.get("code") != 0:
        said = printable(str(answer.get("output", "")), 1000).strip() or "it printed nothing"
        raise Failed(f"{context.directory / part} ended with status {answer.get('code')}: {said}")


def boot_trouble(name: str, error: MayflyError, console: list[str]) -> MayflyError:
    """Say what went wrong with a boot, with the last lines of the console as a hint."""
    lines = [printable(line.strip()[:160]) for line in console if line.strip()][-HINT_LINES:]
    hint = "the last lines of its console:\n  " + "\n  ".join(lines)
    if isinstance(error, Quota):
        return Quota(f"'{name}' did not become a template: {error.message}", hint=FREE_SOME)
    if isinstance(error, Unavailable):
        return Failed(
            f"'{name}' did not come up within {BOOT_LIMIT_S:.0f} s: {error.message}; "
            "it needs cloud-init, or Mayfly's start stub, and a serial console",
            hint=hint,
        )
    return Failed(f"'{name}' did not become a template: {error.message}", hint=hint)
