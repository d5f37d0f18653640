"""What is the same in the programs that a batch system calls, whichever it is."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

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


class Main(Protocol):
    """What the files call that an installation writes."""

    def __call__(
        self,
        name: str,
        *,
        cluster: str,
        config: str,
        home: str = "",
        tools: Mapping[str, str] | None = None,
    ) -> None:
        """Run one of a system's programs.

        ``home``: as ``MAYFLY_HOME``, where images and policy are; ``tools``: variables with which
        the batch system's own commands are found.
        """


def main_of(programs: Callable[[], Mapping[str, Program]], roots: tuple[str, ...] = ()) -> Main:
    """Give the way into a system's programs; ``roots``: those that root runs."""

    def main(
        name: str,
        *,
        cluster: str,
        config: str,
        home: str = "",
        tools: Mapping[str, str] | None = None,
    ) -> None:
        call = call_of(cluster, config)
        if name in roots:
            # A job's user may have chosen variables: what root starts gets none of them.
            os.environ.clear()
            os.environ.update({"PATH": os.defpath, "LC_ALL": "C.UTF-8", **(tools or {})})
            call = replace(call, environ={**call.environ, **(tools or {})})
        end(programs()[name], call, home=home)

    return main
