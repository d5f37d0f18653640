"""``mayfly image build|import``: make an image."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from mayfly.cli.image.group import Steps, explaining, image, own_catalogue, tidy_on_signals
from mayfly.images.build import build
from mayfly.images.importer import import_image
from mayfly.images.mirror import given_mirror
from mayfly.images.recipe import RECIPES, Init, check_disk_bytes, find_recipe
from mayfly.units import parse_size


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
@click.option("--new-version", is_flag=True, help="Keep the one of the same name beside this one.")
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
    tidy_on_signals()
    steps = Steps(name or recipe)
    made = build(
        wanted,
        own_catalogue(),
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
@click.option("--new-version", is_flag=True, help="Keep the one of the same name beside this one.")
@explaining
def import_file(file: Path, name: str, os_name: str, force: bool) -> None:
    """Import a disk file, such as a distribution's cloud image."""
    tidy_on_signals()
    steps = Steps(name)
    made = import_image(file, name, own_catalogue(), os_name=os_name, force=force, report=steps)
    steps.done(made, "imported")
