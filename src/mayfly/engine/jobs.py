"""A job as ``mayfly run`` was asked for it, and how far it has come."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from mayfly.engine.session.job import JobRequest
from mayfly.errors import RUN_FAILED, MayflyError, Quota
from mayfly.model import Account, MachineSpec, Outcome, ShareDir, Who

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Everything that ``mayfly run`` was asked for."""

    spec: MachineSpec
    account: Account
    request: JobRequest
    shares: tuple[ShareDir, ...] = ()
    keep_on_failure: bool = False
    sized: bool = True
    """Whether a size was asked for; else a batch job's machine has what the job was granted."""
    may_root: bool = True
    """Whether its owner may become root in the machine."""
    label: str = ""
    """The command, for people who list machines."""


@dataclass(slots=True)
class Steps:
    """How far a run has come, with the time of each step for ``--timings``."""

    report: Report
    note: Report
    phase: str = "template"
    machine: str = ""
    image: str = ""
    """The image that it is made of, as ``NAME@sha512:DIGEST``."""
    service_ms: float | None = None
    """What the host service itself took of the claim, when there was one."""
    error: MayflyError | None = None
    """What ended it before the job began, where an error did."""
    began: Callable[[str], None] = lambda machine: None
    """Called with the machine's name when the job in it has begun."""
    marks: list[tuple[str, float]] = field(default_factory=lambda: [("begin", time.monotonic())])

    def mark(self, name: str) -> None:
        """A step is done."""
        self.marks.append((name, time.monotonic()))


def failed_outcome(error: MayflyError, steps: Steps) -> Outcome:
    """Give the outcome of a run that Mayfly, or the site's lack of room, ended."""
    steps.error = error
    return Outcome(
        phase=steps.phase,
        who=Who.SITE if isinstance(error, Quota) else Who.MAYFLY,
        code=RUN_FAILED,
        reason=error.message + (f"\n  hint: {error.hint}" if error.hint else ""),
        machine=steps.machine,
        image=steps.image,
    )


def guest_directory(account: Account, workdir: Path | None, shares: tuple[ShareDir, ...]) -> str:
    """Give where the job starts: the caller's directory when it is there, else home."""
    if workdir is not None:
        return str(workdir)
    try:
        here = Path.cwd()
    except FileNotFoundError:
        return account.home
    if any(here == share.path or share.path in here.parents for share in shares):
        return str(here)
    return account.home
