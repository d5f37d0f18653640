"""Homes whose files a test may spoil, made of links to the warm one's."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mayfly.engine.memory import HOLDER, end_holder
from tests.conftest import Cli
from tests.integration.faults import IMAGE


@pytest.fixture
def own_cli(warm_home: Path) -> Iterator[Cli]:
    """The command line on a home of its own, with the image and its template."""
    # Beside the warm one: links do not lead from one disk to another.
    home = Path(tempfile.mkdtemp(prefix="own-", dir=warm_home.parent))
    try:
        _fill(home, warm_home)
        yield Cli(home=home)
    finally:
        for template in home.glob("cache/templates/*"):
            end_holder(template)
        shutil.rmtree(home)


def _fill(home: Path, warm_home: Path) -> None:
    (home / "state").mkdir()
    (home / "cache").mkdir()
    for place in (f"state/images/{IMAGE}", "cache/probe", "cache/agent"):
        shutil.copytree(warm_home / place, home / place, copy_function=os.link)
    (home / "cache/templates").mkdir(mode=0o700)
    for template in (warm_home / "cache/templates").glob("[!.]*/template.json"):
        if json.loads(template.read_text())["image"] == IMAGE:
            target = home / "cache/templates" / template.parent.name
            # Each home holds the memory itself.
            ignore = shutil.ignore_patterns(HOLDER)
            shutil.copytree(template.parent, target, copy_function=os.link, ignore=ignore)


@pytest.fixture
def small_disk() -> Iterator[Callable[..., None]]:
    """Put a directory onto a file system of its own with few bytes; gone after the test."""
    with contextlib.ExitStack() as stack:

        def mount(directory: Path, options: str) -> None:
            directory.mkdir(parents=True, exist_ok=True)
            argv = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(directory)]
            subprocess.run(argv, check=True)
            stack.callback(subprocess.run, ["umount", "-l", str(directory)], check=True)

        yield mount
