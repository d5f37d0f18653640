"""``mayfly template``: make, list and remove templates by hand; ``run`` makes them as needed."""

from __future__ import annotations

import json
import time

import click

from mayfly.cli.output import Progress, print_json, print_table
from mayfly.engine.freeze import ensure_template
from mayfly.engine.template import META, remove_template
from mayfly.errors import Missing
from mayfly.images.catalogue import check
from mayfly.model import Shape
from mayfly.units import MIB, parse_size, round_memory, show_duration, show_size
from mayfly.wiring import catalogue_of, engine_for, load


@click.group(
    epilog="""\b
Examples:
  mayfly template make debian-12 --cpus 2 --memory 1G
  mayfly template list
  mayfly template remove 3c6d0f
"""
)
def template() -> None:
    """Make, list and remove templates: images booted once and frozen, one per image and size."""


@template.command()
@click.argument("image")
@click.option("--cpus", type=click.IntRange(1, 255), help="CPUs [default: 1].")
@click.option("--memory", metavar="SIZE", help="Memory, rounded up to 128M [default: 512M].")
def make(image: str, cpus: int | None, memory: str | None) -> None:
    """Boot IMAGE once and freeze it, so that the first run need not wait for that."""
    paths, settings = load()
    found = catalogue_of(paths).find(image)
    check(found)
    engine, _ = engine_for(paths, settings)
    size = parse_size(memory) if memory else settings.memory_mib * MIB
    shape = Shape(cpus=cpus or settings.cpus, memory_mib=round_memory(size))
    progress = Progress()
    began = time.monotonic()
    made = ensure_template(engine, found, shape, progress)
    progress.clear()
    took = show_duration(time.monotonic() - began)
    click.echo(f"template {made.key[:12]} of {image} is there ({took})")


@template.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
def list_templates(as_json: bool) -> None:
    """List the templates that are there."""
    paths, _ = load()
    found = []
    for meta in sorted(paths.templates.glob("[!.]*/" + META)):
        values = json.loads(meta.read_text())
        values["disk_bytes"] = sum(
            file.stat().st_blocks * 512 for file in meta.parent.iterdir() if file.is_file()
        )
        found.append(values)
    if as_json:
        print_json(found)
        return
    rows = [
        (
            values["key"][:12],
            values["image"],
            str(values["shape"]["cpus"]),
            f"{values['shape']['memory_mib']} MiB",
            show_size(values["disk_bytes"]),
            show_duration(time.time() - values["created_at"]),
        )
        for values in found
    ]
    print_table(("TEMPLATE", "IMAGE", "CPUS", "MEMORY", "ON DISK", "AGE"), rows)


@template.command()
@click.argument("key", metavar="TEMPLATE")
def remove(key: str) -> None:
    """Remove a template and its memory; machines made from it go on."""
    paths, _ = load()
    matching = [path for path in paths.templates.glob("[!.]*") if path.name.startswith(key)]
    matching = [path for path in matching if path.is_dir()]
    if len(matching) != 1:
        raise Missing(
            f"{len(matching)} templates have a name beginning with '{key}'",
            hint="'mayfly template list' shows what there is",
        )
    remove_template(matching[0])
    click.echo(f"removed {matching[0].name[:12]}")
