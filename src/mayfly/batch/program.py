"""What is the same in the programs that a batch system calls, whichever it is."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mayfly.batch.settings import BatchSettings, load_batch_settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What the installation wrote into each program."""

    cluster: str
    config: Path
    """``batch.toml``; it need not be there."""

    def settings(self) -> BatchSettings:
        """Read the settings; raises ``Invalid``."""
        return load_batch_settings(self.config) if self.config.exists() else BatchSettings()


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of a program."""

    site: Site
    words: tuple[str, ...]
    environ: Mapping[str, str]


Program = Callable[[Call], int]


def call_of(cluster: str, config: str) -> Call:
    """Give the call that this process is."""
    site = Site(cluster=cluster, config=Path(config))
    return Call(site=site, words=tuple(sys.argv[1:]), environ=dict(os.environ))


def end(program: Program, call: Call, *, home: str) -> None:
    """Run a program and end with its status; ``home``: where images and policy are, if given."""
    if home:
        os.environ["MAYFLY_HOME"] = home
    sys.exit(program(call))
