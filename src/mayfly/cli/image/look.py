"""``mayfly image list|show|remove``: what is there."""

from __future__ import annotations

from dataclasses import asdict

import click

from mayfly.cli.image.group import explaining, image, own_catalogue
from mayfly.cli.output import print_json, print_table
from mayfly.images.catalogue import check
from mayfly.model import Image
from mayfly.units import show_size

HEAD = ("NAME", "OS", "SIZE", "DISK", "CREATED", "SOURCE")


@image.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
@explaining
def list_images(as_json: bool) -> None:
    """List the images that you can run: yours, then the site's."""
    found = own_catalogue().list()
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
    found = own_catalogue().find(name)
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
    catalogue = own_catalogue()
    if not yes:
        catalogue.find(name)
        if not click.confirm(f"Delete image {name}?"):
            click.get_current_context().exit(1)
    catalogue.remove(name)


def _row(found: Image) -> tuple[str, ...]:
    size, disk = show_size(found.size_bytes), show_size(found.disk_bytes)
    return (found.name, found.os, size, disk, found.created_at[:10], found.source)


def _as_json(found: Image) -> dict[str, object]:
    return {**asdict(found), "disk": str(found.disk)}
