"""``mayfly image list|show|remove``: what is there."""

from __future__ import annotations

import socket
from dataclasses import asdict
from datetime import UTC, datetime

import click

from mayfly.cli.image.group import explaining, image, own_catalogue
from mayfly.cli.image.whereabouts import surroundings
from mayfly.cli.output import plain, print_json, print_table
from mayfly.config import Paths
from mayfly.images.catalogue import check
from mayfly.images.catalogue.glue import PREFIX, glue_1, glue_2
from mayfly.images.catalogue.tested import read_tests
from mayfly.model import Image
from mayfly.units import show_size

HEAD = ("NAME", "VERSION", "OS", "SIZE", "DISK", "CREATED", "TESTED", "SOURCE")


@image.command(
    "list",
    epilog="""\b
Examples:
  mayfly image list
  mayfly image list --all          # older versions too
  mayfly image list --glue 2.1     # JSON for a grid's information system
  mayfly image list --glue 1.3     # values of SoftwareRunTimeEnvironment
""",
)
@click.option("--all", "everything", is_flag=True, help="Older versions, too.")
@click.option("--glue", type=click.Choice(["2.1", "1.3"]), help="As grids publish it.")
@click.option(
    "--glue-prefix", default=PREFIX, show_default=True, help="What GLUE 1.3 names begin with."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
@explaining
def list_images(everything: bool, glue: str | None, glue_prefix: str, as_json: bool) -> None:
    """List the images that you can run: yours, then the site's."""
    catalogue = own_catalogue()
    found = list(catalogue.versions()) if everything else catalogue.list()
    if glue == "2.1":
        print_json(glue_2(found, socket.gethostname(), datetime.now(UTC)))
    elif glue == "1.3":
        names = [*(each.name for each in found), *catalogue.aliases()]
        click.echo("\n".join(glue_1(names, glue_prefix)))
    elif as_json:
        print_json([as_json_of(entry) for entry in found])
    else:
        print_table(HEAD, [_row(entry) for entry in found])


@image.command(
    "show",
    epilog="""\b
Examples:
  mayfly image show debian-12
  mayfly image show debian-12@20261130T120000Z --json
""",
)
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
@explaining
def show_image(name: str, as_json: bool) -> None:
    """Show what is known of an image, and check its disk."""
    catalogue = own_catalogue()
    found = catalogue.find(name)
    shown = {**as_json_of(found), **surroundings(found, catalogue, Paths.for_user())}
    if as_json:
        print_json(shown)
    else:
        for key, value in shown.items():
            text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else value
            click.echo(plain(f"{key + ':':<16} {text}".rstrip()).replace("\n", "?"))
    check(found)


@image.command(
    "remove",
    epilog="""\b
Examples:
  mayfly image remove debian-12                    # all its versions
  mayfly image remove debian-12@20261130T120000Z   # this one
""",
)
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@explaining
def remove_image(name: str, yes: bool) -> None:
    """Delete an image of yours, with all its versions, or one version."""
    catalogue = own_catalogue()
    if not yes:
        catalogue.find(name)
        count = 1 if "@" in name else len(catalogue.versions(name))
        what = f"image {name}" if count <= 1 else f"image {name} and its {count} versions"
        if not click.confirm(f"Delete {what}?"):
            click.get_current_context().exit(1)
    catalogue.remove(name)


def _row(found: Image) -> tuple[str, ...]:
    size, disk = show_size(found.size_bytes), show_size(found.disk_bytes)
    tested = read_tests(found.disk.parent, found.sha512).summary.partition(" ")[0]
    facts = (found.name, found.version, found.os, size, disk, found.created_at[:10])
    return (*facts, tested, found.source)


def as_json_of(found: Image) -> dict[str, object]:
    """Give an image's record for scripts."""
    return {**asdict(found), "disk": str(found.disk)}
