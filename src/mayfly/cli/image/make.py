"""``mayfly image build|import``: make an image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from mayfly.cli.image.group import Steps, explaining, image, own_catalogue, tidy_on_signals
from mayfly.cli.image.pull import access_of, book_of, existing_of, import_url, is_url
from mayfly.images.build.builder import build
from mayfly.images.build.farm.blueprint import Blueprint
from mayfly.images.build.farm.manifest import read_pins
from mayfly.images.build.farm.reader import is_file, read_blueprint, read_script
from mayfly.images.build.mirror import mirror_for
from mayfly.images.build.recipe import RECIPES, Init, check_disk_bytes, find_recipe
from mayfly.images.catalogue.reference import check_name
from mayfly.images.container.convert import Wish
from mayfly.images.container.foreign import build_foreign
from mayfly.images.registry.reference import SCHEME
from mayfly.images.sources import Ways, import_source
from mayfly.images.transfer.whole import Terms
from mayfly.units import parse_size
from mayfly.wiring import load


@image.command(
    "build",
    epilog="""\b
Examples:
  mayfly image build debian-12
  mayfly image build debian-12 --package python3 --script setup.sh --name tools
  mayfly image build tools.toml --new-version
  mayfly image build debian-13 --mirror http://mirror.example.org/debian --force
  mayfly image build el9 --keyring RPM-GPG-KEY-AlmaLinux-9

\b
RECIPE is one of: {recipes}; or a file *.toml.
An ordinary user needs user namespaces and subordinate ids (package uidmap).
Documentation, manual pages and translations are left out of the image. A script
runs as root in the image's tree, which is a directory of this host: read it first.
""".format(recipes=", ".join(RECIPES)),
)
@click.argument("recipe", metavar="RECIPE")
@click.option("--name", help="Name of the image; else that of the recipe.")
@click.option("--package", "packages", multiple=True, help="A further package. Repeatable.")
@click.option(
    "--script",
    "scripts",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Run it in the image when all packages are there. Repeatable.",
)
@click.option("--size", help="Disk that the guest sees [default: 8G].")
@click.option(
    "--init",
    type=click.Choice([init.value for init in Init]),
    help="First process of the guest [default: systemd].",
)
@click.option("--mirror", help="Where packages come from; else this host's own Debian mirror.")
@click.option("--security-mirror", help="Where security updates come from; else MIRROR-security.")
@click.option(
    "--keyring",
    type=click.Path(path_type=Path),
    help="Keys of the distribution, for one that is not Debian; else where that has them.",
)
@click.option(
    "--manifest",
    type=click.Path(path_type=Path),
    help="Fail unless each package is the one that this manifest names.",
)
@click.option("--force", is_flag=True, help="Replace an image of the same name.")
@click.option("--new-version", is_flag=True, help="Keep the one of the same name beside this one.")
@explaining
def build_image(recipe: str, force: bool, new_version: bool, **typed: Any) -> None:
    """Build an image from a distribution's packages, by a recipe; takes about a minute."""
    if typed["security_mirror"] and not typed["mirror"]:
        raise click.UsageError("--security-mirror needs --mirror")
    existing_of(force=force, new_version=new_version)
    wanted = _wanted(recipe, typed)
    tidy_on_signals()
    steps = Steps(wanted.title)
    if wanted.recipe.archive is not None:
        paths, _ = load()
        kind = existing_of(force=force, new_version=new_version)
        made = build_foreign(
            wanted, own_catalogue(), cache=paths.cache, existing=kind, report=steps, say=steps.say
        )
    else:
        made = build(
            wanted, own_catalogue(), force=force, keep=new_version, report=steps, say=steps.say
        )
    steps.done(made, "built")


def _wanted(text: str, typed: Mapping[str, Any]) -> Blueprint:
    """Give what is to be built: a recipe, with what was typed in addition to it."""
    found = read_blueprint(Path(text)) if is_file(text) else Blueprint(recipe=find_recipe(text))
    recipe = found.recipe
    if typed["size"]:
        recipe = replace(recipe, disk_bytes=check_disk_bytes(parse_size(typed["size"])))
    foreign = recipe.archive is not None
    for option, fits in (("init", not foreign), ("manifest", not foreign), ("keyring", foreign)):
        if typed[option] and not fits:
            raise click.UsageError(f"--{option} has no meaning with '{recipe.name}'")
    if typed["init"]:
        recipe = replace(recipe, init=Init(typed["init"]))
    return replace(
        found,
        recipe=replace(recipe, packages=(*recipe.packages, *typed["packages"])),
        name=check_name(typed["name"]) if typed["name"] else found.name,
        scripts=(*found.scripts, *(read_script(file) for file in typed["scripts"])),
        pins=read_pins(typed["manifest"]) if typed["manifest"] else found.pins,
        mirror=(
            mirror_for(recipe, typed["mirror"], typed["security_mirror"])
            if typed["mirror"]
            else found.mirror
        ),
        keyring=str(typed["keyring"] or found.keyring),
    )


@image.command(
    "import",
    epilog="""\b
Examples:
  mayfly image import debian-12-genericcloud-amd64.qcow2 --name stock-12
  mayfly image import appliance.ova --name appliance --os "centos 7"
  mayfly image import https://images.example.org/el9.qcow2 --sha512 0b6f… --name el9
  mayfly image import docker-archive:tools.tar --name tools
  mayfly image import oci:layout:v3 --name tools-3 --size 20G
  mayfly image import docker://registry.example.org/lab/tools:4 --name tools --new-version
  mayfly image import analysis.sif --name analysis

\b
A disk can be qcow2, raw, vmdk (monolithicSparse, streamOptimized), vdi, or in an
OVA; it must stand alone and boot by BIOS. Inside, Mayfly's agent is started by
cloud-init. A container image gets a kernel of Debian's and a first process of
Mayfly's; its variables are taken over, its entry point is not.
""",
)
@click.argument("source", metavar="FILE|URL|docker-archive:FILE[:TAG]|oci:DIR[:TAG]|docker://REF")
@click.option("--name", required=True, help="Name of the image.")
@click.option("--os", "os_name", default="", help="What is on the disk; else what is found there.")
@click.option("--size", default="8G", show_default=True, help="Disk, for a container image.")
@click.option("--sha512", help="Of the file at URL, from a source that you trust.")
@click.option("--force", is_flag=True, help="Replace an image of the same name.")
@click.option("--new-version", is_flag=True, help="Keep the one of the same name beside this one.")
@explaining
def import_file(
    source: str,
    name: str,
    os_name: str,
    size: str,
    sha512: str | None,
    force: bool,
    new_version: bool,
) -> None:
    """Import a disk file, such as a distribution's cloud image, or a container image."""
    existing = existing_of(force=force, new_version=new_version)
    disk_bytes = check_disk_bytes(parse_size(size))
    wish = Wish(name=name, os=os_name, disk_bytes=disk_bytes, existing=existing)
    tidy_on_signals()
    steps = Steps(name)
    if is_url(source) and not source.startswith(SCHEME):
        made = import_url(
            source, steps, name=name, os_name=os_name or "unknown", sha512=sha512, existing=existing
        )
    elif sha512:
        raise click.UsageError("--sha512 is for a URL")
    else:
        paths, settings = load()
        ways = Ways(
            cache=paths.cache,
            access=access_of(settings),
            terms=Terms(watch=steps.watch),
            book=book_of(paths),
        )
        made = import_source(source, wish, own_catalogue(), ways, report=steps)
    steps.done(made, "imported")
