"""What each batch system's module offers to ``mayfly batch``."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from mayfly.batch.changes import Change
from mayfly.model import Finding


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """Where things are, as far as it was said."""

    conf: Path | None
    """The batch system's own configuration: a file, or a directory."""
    programs: Path | None
    """Where our programs go."""
    config: Path
    """``batch.toml``."""
    home: str
    """As ``MAYFLY_HOME``; empty: the site's directories."""
    policy: Path
    code: Path
    """The directory from which Mayfly's own modules are imported."""
    queues: tuple[str, ...] = ()
    """Which of the batch system's; none: all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What an installation does."""

    changes: Sequence[Change]
    notes: Sequence[str] = field(default=())
    """What the admin has to see to."""


class System(Protocol):
    """One batch system."""

    def plan(self, where: Where) -> Plan:
        """Say which files are to be how; changes nothing."""

    def journal(self, where: Where) -> Path:
        """Give where it is written down what was changed; root's alone."""

    def installed(self, where: Where) -> None:
        """Do what there is to do besides files, when those are there."""

    def uninstalling(self, where: Where) -> AbstractContextManager[None]:
        """Do what there is to do besides files: before they are put back, and afterwards."""

    def check(self, where: Where) -> list[Finding]:
        """Say what works on this host and what does not."""

    def options(self) -> list[tuple[str, str]]:
        """Give what a user writes for each option, and what it means."""

    def describe(self, job: str) -> dict[str, str]:
        """Give what the batch system says of a job; nothing where it is not there, or knows none.

        Never raises.
        """


SYSTEMS: Mapping[str, str] = {
    "slurm": "mayfly.batch.slurm.installation",
    "gridengine": "mayfly.batch.gridengine.installation",
    "pbs": "mayfly.batch.pbs.installation",
    "htcondor": "mayfly.batch.htcondor.installation",
    "lsf": "mayfly.batch.lsf.installation",
    "grid": "mayfly.batch.grid.installation",
}
"""Each module has a ``SYSTEM`` that is a ``System``."""


def load_system(name: str) -> System:
    """Give one of the batch systems."""
    one: System = importlib.import_module(SYSTEMS[name]).SYSTEM
    return one
