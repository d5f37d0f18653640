"""The group ``mayfly image``, and what its commands share."""

from __future__ import annotations

import functools
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import NoReturn, ParamSpec

import click

from mayfly.cli.output import Progress
from mayfly.config import Paths
from mayfly.images.catalogue import Catalogue
from mayfly.images.transfer.pace import Pace
from mayfly.images.trouble import explained
from mayfly.model import Image
from mayfly.units import show_size

PHASES = {
    "packages": "install packages",
    "file system": "make the file system",
    "boot loader": "write the boot loader",
    "manifest": "write down what is in it",
    "check": "check the file",
    "kernel": "fetch a kernel",
    "layers": "read the layers",
    "files": "write the files",
    "convert": "convert to qcow2",
    "copy": "copy what the machine wrote",
    "flatten": "make one disk of it",
    "strip": "strip the machine of its identity",
    "hash": "hash the disk",
}


@click.group(
    epilog="""\b
Examples:
  mayfly image build debian-12
  mayfly image import debian-12-genericcloud-amd64.qcow2 --name stock-12
  mayfly image list
"""
)
def image() -> None:
    """Build, import, list and remove images: the disks that machines start from."""


Given = ParamSpec("Given")


def explaining(command: Callable[Given, None]) -> Callable[Given, None]:
    """Have a command explain what the host refuses."""

    @functools.wraps(command)
    def explained_command(*args: Given.args, **kwargs: Given.kwargs) -> None:
        with explained(Paths.for_user().images):
            command(*args, **kwargs)

    return explained_command


def tidy_on_signals() -> None:
    """Have the signals that end a command clear what was begun."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end_tidily)


def _end_tidily(number: int, _frame: FrameType | None) -> NoReturn:
    """Leave by an exception, so that what was begun is cleared on the way."""
    sys.exit(128 + number)


class Steps:
    """Shows the phases of a build or import."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._progress = Progress()

    def __call__(self, phase: str, fraction: float | None) -> None:
        """Show the phase under way, and how much of it is done."""
        share = "" if fraction is None else f" ({fraction:.0%})"
        self._progress(f"{self._name}: {PHASES.get(phase, phase)}{share}")

    def watch(self, pace: Pace) -> None:
        """Show how far a transfer is, how fast it goes and how long it will take."""
        self._progress(str(pace))

    def note(self, text: str) -> None:
        """Say something that stays."""
        self._progress.note(text)

    def say(self, line: str) -> None:
        """Show a line that a script of the recipe printed."""
        self._progress.note(f"| {line}")

    def done(self, made: Image, verb: str) -> None:
        """Say what was made, and how to try it."""
        self._progress.note(f"{verb} {made.name}, {show_size(made.size_bytes)}: {made.disk}")
        self._progress.note(f"try it: mayfly run {made.name} -- uname -a")


def own_catalogue() -> Catalogue:
    """Give the images of the calling user, and those of the site."""
    paths = Paths.for_user()
    return Catalogue(own=paths.images, dirs=paths.image_dirs)
