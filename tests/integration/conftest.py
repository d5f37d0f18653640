"""Homes whose files a test may spoil, made of links to the warm one's."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mayfly.engine.machine import Machine
from mayfly.engine.memory import end_holder
from mayfly.engine.suspend import suspend
from tests.conftest import Cli
from tests.integration.faults import IMAGE
from tests.integration.machines import LIFE, Workshop, run, workshop_of


@pytest.fixture(scope="session")
def warm_template(warm_home: Path) -> Path:
    """The template that runs are made from: others may be there, of other agents."""
    done = Cli(home=warm_home)("template", "make", IMAGE, check=True)
    key = done.stdout.decode().split()[1]
    (template,) = (warm_home / "cache/templates").glob(f"{key}*/")
    return template


@pytest.fixture
def own_cli(warm_home: Path, warm_template: Path) -> Iterator[Cli]:
    """The command line on a home of its own, with the image and its template."""
    # Beside the warm one: links do not lead from one disk to another.
    home = Path(tempfile.mkdtemp(prefix="own-", dir=warm_home.parent))
    try:
        _fill(home, warm_home, warm_template)
        yield Cli(home=home)
    finally:
        for template in home.glob("cache/templates/*"):
            end_holder(template)
        shutil.rmtree(home)


def _fill(home: Path, warm_home: Path, template: Path) -> None:
    (home / "state").mkdir()
    (home / "cache").mkdir()
    for place in (f"state/images/{IMAGE}", "cache/probe", "cache/agent"):
        shutil.copytree(warm_home / place, home / place, copy_function=os.link)
    (home / "cache/templates").mkdir(mode=0o700)
    # Each home holds the memory itself.
    ignore = shutil.ignore_patterns("holder*")
    target = home / "cache/templates" / template.name
    shutil.copytree(template, target, copy_function=os.link, ignore=ignore)


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


@pytest.fixture(scope="module")
def workshop(warm_home: Path) -> Iterator[Workshop]:
    """What machines are made with, written down in a directory of their own."""
    # On the disk of the template: its files are linked, not copied.
    state = Path(tempfile.mkdtemp(prefix="workshop-", dir=warm_home.parent))
    yield workshop_of(warm_home, state)
    shutil.rmtree(state)


@pytest.fixture
def machine(workshop: Workshop) -> Iterator[Machine]:
    """A machine; it is gone after the test, whatever became of it."""
    one = workshop.start()
    yield one
    if not one.process.has_ended():
        one.delete()


@pytest.fixture(scope="module")
def original(workshop: Workshop) -> Path:
    """A machine in which something runs, suspended."""
    directory = workshop.engine.paths.state / "original"
    one = workshop.start()
    try:
        run(one, LIFE)
        suspend(one, workshop.template, workshop.image, directory, notes={"owner": 7})
    finally:
        one.delete()
    return directory


@pytest.fixture
def shelf(workshop: Workshop) -> Iterator[Path]:
    """A directory for what is suspended."""
    directory = workshop.engine.paths.state / "shelf"
    directory.mkdir()
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def saved(original: Path, shelf: Path) -> Path:
    """The suspended machine, for one test."""
    return shutil.copytree(original, shelf / "saved", copy_function=os.link)
