"""Where a job runs in its machine: in a live directory, in a copy, or at home."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mayfly.config import Settings
from mayfly.engine.directories import not_copied
from mayfly.engine.session.job import Workdir
from mayfly.model import Account, ShareDir
from mayfly.units import MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The directories that a job finds in its machine."""

    shares: tuple[ShareDir, ...]
    workdir: Workdir | None
    cwd: str
    words: str
    """What the job's first line says of its working directory."""


def outermost(directories: Iterable[ShareDir]) -> tuple[ShareDir, ...]:
    """Leave out what lies in another one, or is named twice; the first of two as wide counts."""
    kept: list[ShareDir] = []
    for one in sorted(directories, key=lambda each: len(each.path.parts)):
        if not any(one.path.is_relative_to(other.path) for other in kept):
            kept.append(one)
    return tuple(kept)


def usable(directory: ShareDir) -> bool:
    """Tell whether the calling user can enter a directory: of a site's some are not everywhere."""
    return directory.path.is_dir() and os.access(directory.path, os.R_OK | os.X_OK)


def place_of(
    cwd: Path | None, shares: tuple[ShareDir, ...], account: Account, settings: Settings
) -> Place:
    """Decide where a job runs that was submitted in a directory; None: that is not there."""
    if cwd is None:
        words = "the working directory is not on this host: the job runs in the home directory"
        return Place(shares=shares, workdir=None, cwd=account.home, words=words)
    for share in shares:
        if cwd.is_relative_to(share.path):
            only = ", read-only" if share.read_only else ""
            words = f"working directory {cwd} (live{only})"
            return Place(shares=shares, workdir=None, cwd=str(cwd), words=words)
    if why := not_copied(cwd, account):
        words = f"working directory {cwd} is not in the machine ({why}): the job runs in the home"
        return Place(shares=shares, workdir=None, cwd=account.home, words=f"{words} directory")
    workdir = Workdir(
        path=cwd,
        guest_path=str(cwd),
        sync_delete=False,
        copy_back=True,
        limit_bytes=settings.workdir_limit_mib * MIB,
        limit_files=settings.workdir_files,
    )
    words = f"working directory {cwd} (a copy: what the job changes comes back at its end)"
    return Place(shares=shares, workdir=workdir, cwd=str(cwd), words=words)
