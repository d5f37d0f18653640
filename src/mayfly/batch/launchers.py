"""Writes the small files that a batch system executes: each is one of a system's programs."""

from __future__ import annotations

import compileall
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from mayfly.batch.changes import Change
from mayfly.batch.program import Site
from mayfly.batch.systems import Where


def programs_of(
    system: str,
    names: Sequence[str],
    where: Where,
    directory: Path,
    site: Site,
    tools: Mapping[str, str] | None = None,
) -> list[Change]:
    """Give the files of a system's programs, with what they have to know written into them.

    ``tools``: variables with which root's programs find the batch system's own commands.
    """
    words = f"cluster={site.cluster!r}, config={str(site.config)!r}, home={where.home!r}"
    words += f", tools={dict(tools)!r}" if tools else ""
    # In isolated mode, and without what a user's directory or a site's hooks would bring in.
    head = (
        f"#!{os.path.realpath(sys.executable)} -IS\n"
        f"# Written by 'mayfly batch install {system}'.\n"
        "import sys\n\n"
        f"sys.path.insert(0, {str(where.code)!r})\n"
        f"from mayfly.batch.{system}.programs import main  # noqa: E402\n\n"
    )
    return [
        Change(
            path=directory / name, content=f"{head}main({name!r}, {words})\n".encode(), mode=0o755
        )
        for name in names
    ]


def compile_code(directory: Path) -> None:
    """Compile Mayfly's modules, where root may: what a user runs cannot keep what it compiled.

    ``directory``: from which they are imported. A starter takes half as long with it.
    """
    compileall.compile_dir(str(directory / "mayfly"), quiet=2)
