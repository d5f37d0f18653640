"""``mayfly image search|alias``: find an image, and give it another name."""

from __future__ import annotations

import click

from mayfly.cli.image.group import explaining, image, own_catalogue
from mayfly.cli.image.look import as_json_of
from mayfly.cli.image.whereabouts import endorsed_of
from mayfly.cli.output import print_json, print_table
from mayfly.config import Paths
from mayfly.images.catalogue.search import Query, search

HEAD = ("NAME", "VERSION", "OS", "ARCH", "TAGS", "ENDORSED")


@image.command(
    "search",
    epilog="""\b
Examples:
  mayfly image search
  mayfly image search debian --tag ci
  mayfly image search --os 'centos *' --endorsed
  mayfly image search debian-12 --version '2026*' --json

\b
TEXT is part of a name, operating system, source or tag. In all of them * stands
for any letters and ? for one. Older versions are found too.
""",
)
@click.argument("text", default="")
@click.option("--os", "os_name", default="", help="Operating system: 'debian 12', 'centos *'.")
@click.option("--version", default="", help="Version.")
@click.option("--arch", default="", help="Architecture, such as x86_64.")
@click.option("--tag", "tags", multiple=True, help="A tag that it must have. Repeatable.")
@click.option("--endorsed/--not-endorsed", default=None, help="Vouched for by a list, or not.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
@explaining
def search_images(
    text: str,
    os_name: str,
    version: str,
    arch: str,
    tags: tuple[str, ...],
    endorsed: bool | None,
    as_json: bool,
) -> None:
    """Search the images and versions that are here."""
    paths = Paths.for_user()
    query = Query(text=text, os=os_name, version=version, arch=arch, tags=tags)
    found = search(own_catalogue().versions(), query)
    vouched = endorsed_of(found, paths)
    if endorsed is not None:
        found = [each for each in found if vouched[each.sha512] is endorsed]
    if as_json:
        print_json([{**as_json_of(each), "endorsed": vouched[each.sha512]} for each in found])
        return
    rows = [
        (
            each.name,
            each.version,
            each.os,
            each.arch,
            " ".join(each.tags),
            "yes" if vouched[each.sha512] else "",
        )
        for each in found
    ]
    print_table(HEAD, rows)


@image.command(
    "alias",
    epilog="""\b
Examples:
  mayfly image alias                                  # lists them
  mayfly image alias el9 almalinux-9
  mayfly image alias stable debian-12@2026.1 --force
  mayfly image alias el9 --remove

\b
An alias can be given wherever an image is named. It stands for an image (its
newest version), a version, or one disk; never for another alias.
""",
)
@click.argument("name", default="")
@click.argument("target", metavar="[IMAGE]", default="")
@click.option("--remove", is_flag=True, help="Remove the alias.")
@click.option("--force", is_flag=True, help="Change an alias that is there.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
@explaining
def alias(name: str, target: str, remove: bool, force: bool, as_json: bool) -> None:
    """Let NAME stand for an image; without arguments, list such names."""
    catalogue = own_catalogue()
    if remove:
        if not name or target:
            raise click.UsageError("--remove takes the name of one alias")
        catalogue.remove_alias(name)
        return
    if target:
        found = catalogue.set_alias(name, target, force=force)
        click.echo(f"{name} stands for {target}, now version {found.version}")
        return
    known = {key: str(value) for key, value in catalogue.aliases().items() if name in ("", key)}
    if as_json:
        print_json(known)
        return
    print_table(("ALIAS", "IMAGE"), list(known.items()))
