"""``mayfly image``: build, import, list and remove images."""

from __future__ import annotations

import functools
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from types import FrameType
from typing import NoReturn, ParamSpec

import click

from mayfly.cli.output import Progress, print_json, print_table
from mayfly.config import Paths
from mayfly.images.build import build
from mayfly.images.catalogue import Catalogue, check
from mayfly.images.importer import import_image
from mayfly.images.mirror import given_mirror
from mayfly.images.recipe import RECIPES, Init, check_disk_bytes, find_recipe
from mayfly.images.trouble import explained
from mayfly.model import Image
from mayfly.units import parse_size, show_size

HEAD = ("NAME", "OS", "SIZE", "DISK", "CREATED", "SOURCE")
PHASES = {
    "packages": "install packages",
    "file system": "make the file system",
    "boot loader": "write the boot loader",
    "check": "check the file",
    "convert": "convert to qcow2",
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


def _tidy_on_signals() -> None:
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end_tidily)


def _end_tidily(number: int, _frame: FrameType | None) -> NoReturn:
    """Leave by an exception, so that what was begun is cleared on the way."""
    sys.exit(128 + number)


class _Steps:
    """Shows the phases of a build or import."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._progress = Progress()

    def __call__(self, phase: str, fraction: float | None) -> None:
        share = "" if fraction is None else f" ({fraction:.0%})"
        self._progress(f"{self._name}: {PHASES.get(phase, phase)}{share}")

    def done(self, made: Image, verb: str) -> None:
        self._progress.note(f"{verb} {made.name}, {show_size(made.size_bytes)}: {made.disk}")
        self._progress.note(f"try it: mayfly run {made.name} -- uname -a")


@image.command(
    "build",
    epilog="""\b
Examples:
  mayfly image build debian-12
  mayfly image build debian-12 --package python3 --package make --name tools
  mayfly image build debian-13 --mirror http://mirror.example.org/debian --force

\b
An ordinary user needs user namespaces and subordinate ids (package uidmap).
Documentation, manual pages and translations are left out of the image.
""",
)
@click.argument("recipe", metavar="|".join(RECIPES))
@click.option("--name", help="Name of the image; else that of the recipe.")
@click.option("--package", "packages", multiple=True, help="A further Debian package. Repeatable.")
@click.option("--size", default="8G", show_default=True, help="Disk that the guest sees.")
@click.option(
    "--init",
    type=click.Choice([init.value for init in Init]),
    default=Init.SYSTEMD.value,
    show_default=True,
    help="First process of the guest.",
)
@click.option("--mirror", help="Where packages come from; else this host's own Debian mirror.")
@click.option("--security-mirror", help="Where security updates come from; else MIRROR-security.")
@click.option("--force", is_flag=True, help="Replace an image of the same name.")
@explaining
def build_image(
    recipe: str,
    name: str | None,
    packages: tuple[str, ...],
    size: str,
    init: str,
    mirror: str | None,
    security_mirror: str | None,
    force: bool,
) -> None:
    """Build an image from Debian's packages; takes about a minute."""
    wanted = replace(
        find_recipe(recipe),
        packages=packages,
        disk_bytes=check_disk_bytes(parse_size(size)),
        init=Init(init),
    )
    if security_mirror and not mirror:
        raise click.UsageError("--security-mirror needs --mirror")
    _tidy_on_signals()
    steps = _Steps(name or recipe)
    made = build(
        wanted,
        _catalogue(),
        name=name,
        mirror=given_mirror(mirror, security_mirror) if mirror else None,
        force=force,
        report=steps,
    )
    steps.done(made, "built")


@image.command(
    "import",
    epilog="""\b
Examples:
  mayfly image import debian-12-genericcloud-amd64.qcow2 --name stock-12
  mayfly image import appliance.vmdk --name appliance --os "centos 7"

\b
The file can be qcow2, raw, or vmdk (monolithicSparse, streamOptimized); it must
stand alone and boot by BIOS. Inside, Mayfly's agent is started by cloud-init.
""",
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--name", required=True, help="Name of the image.")
@click.option("--os", "os_name", default="unknown", show_default=True, help="What is on the disk.")
@click.option("--force", is_flag=True, help="Replace an image of the same name.")
@explaining
def import_file(file: Path, name: str, os_name: str, force: bool) -> None:
    """Import a disk file, such as a distribution's cloud image."""
    _tidy_on_signals()
    steps = _Steps(name)
    made = import_image(file, name, _catalogue(), os_name=os_name, force=force, report=steps)
    steps.done(made, "imported")


@image.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
@explaining
def list_images(as_json: bool) -> None:
    """List the images that you can run: yours, then the site's."""
    found = _catalogue().list()
    if as_json:
        print_json([_as_json(entry) for entry in found])
        return
    print_table(HEAD, [_row(entry) for entry in found])


@image.command("show")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
@explaining
def show_image(name: str, as_json: bool) -> None:
    """Show what is known of an image, and check its disk."""
    found = _catalogue().find(name)
    if as_json:
        print_json(_as_json(found))
    else:
        for key, value in _as_json(found).items():
            click.echo(f"{key + ':':<13} {value}")
    check(found)


@image.command("remove")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@explaining
def remove_image(name: str, yes: bool) -> None:
    """Delete an image of yours."""
    catalogue = _catalogue()
    if not yes:
        catalogue.find(name)
        if not click.confirm(f"Delete image {name}?"):
            click.get_current_context().exit(1)
    catalogue.remove(name)


def _catalogue() -> Catalogue:
    paths = Paths.for_user()
    return Catalogue(own=paths.images, dirs=paths.image_dirs)


def _row(found: Image) -> tuple[str, ...]:
    size, disk = show_size(found.size_bytes), show_size(found.disk_bytes)
    return (found.name, found.os, size, disk, found.created_at[:10], found.source)


def _as_json(found: Image) -> dict[str, object]:
    return {**asdict(found), "disk": str(found.disk)}
