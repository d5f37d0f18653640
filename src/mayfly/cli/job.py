"""``mayfly job``: what a batch job got, and what its machine is doing."""

from __future__ import annotations

import re
from typing import Any

import click

from mayfly.batch.systems import SYSTEMS, load_system
from mayfly.cli.host import ask
from mayfly.cli.output import plain, print_json
from mayfly.errors import Invalid, MayflyError, Missing

_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:+\[\]-]{0,63}")
MACHINE = ("id", "image", "state", "cpus", "memory_mib", "network", "job")


@click.group(
    epilog="""\b
Examples:
  mayfly job show 4711
  mayfly job show 4711 --json
"""
)
def job() -> None:
    """Look at jobs of a batch system."""


@job.command()
@click.argument("number", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
def show(number: str, as_json: bool) -> None:
    """Show what the batch system says of job ID, and its machines on this host."""
    if not _ID.fullmatch(number):
        raise Invalid(f"{number[:100]!r} is no number of a job")
    told = {name: words for name in SYSTEMS if (words := load_system(name).describe(number))}
    machines, trouble = _machines(number)
    if not told and not machines:
        raise Missing(
            f"no batch system here knows a job '{number}'" + (f"; {trouble}" if trouble else ""),
            hint="ask on a host of the batch system",
        )
    if as_json:
        print_json({"job": number, "systems": told, "machines": machines})
        return
    for system, words in told.items():
        click.echo(f"{'system':12} {system}")
        for name, word in words.items():
            click.echo(f"{name:12} {plain(word)}")
    for machine in machines:
        words_of = ", ".join(f"{name} {machine[name]}" for name in MACHINE if name in machine)
        click.echo(f"{'machine':12} {plain(words_of)}")
    if trouble:
        click.echo(f"{'machine':12} not known: {plain(trouble)}")


def _machines(number: str) -> tuple[list[dict[str, Any]], str]:
    """Give the caller's machines of a job on this host, or why they are not known."""
    try:
        _, found = ask("list")
    except MayflyError as error:
        return [], error.message
    mine = [item for item in found if str(item.get("job", "")).split("/")[1:2] == [number]]
    return [{name: item[name] for name in MACHINE if name in item} for item in mine], ""
