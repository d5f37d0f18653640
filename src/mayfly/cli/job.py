"""``mayfly job``: what a batch job got, and what its machine is doing."""

from __future__ import annotations

import re
from typing import Any

import click

from mayfly.batch.systems import SYSTEMS, load_system
from mayfly.cli.host import ask
from mayfly.cli.output import plain, print_json
from mayfly.errors import Invalid, MayflyError, Missing
from mayfly.units import show_size

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
    """Show what the batch system says of job ID, and its machines on this host.

    Of machines that have ended: what they have used.
    """
    if not _ID.fullmatch(number):
        raise Invalid(f"{number[:100]!r} is no number of a job")
    told = {name: words for name in SYSTEMS if (words := load_system(name).describe(number))}
    machines, trouble = _machines(number)
    used = [] if trouble else _used(number)
    if not told and not machines and not used:
        raise Missing(
            f"no batch system here knows a job '{number}'" + (f"; {trouble}" if trouble else ""),
            hint="ask on a host of the batch system",
        )
    if as_json:
        print_json({"job": number, "systems": told, "machines": machines, "used": used})
        return
    for system, words in told.items():
        click.echo(f"{'system':12} {system}")
        for name, word in words.items():
            click.echo(f"{name:12} {plain(word)}")
    for machine in machines:
        words_of = ", ".join(f"{name} {machine[name]}" for name in MACHINE if name in machine)
        click.echo(f"{'machine':12} {plain(words_of)}")
    for event in used:
        click.echo(f"{'used':12} {plain(used_words(event))}")
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


def _used(number: str) -> list[dict[str, Any]]:
    """Give what the job's machines on this host have used that have ended, the latest first."""
    try:
        return ask("usage", {"job": number})[1]
    except MayflyError:
        # A service of an earlier version does not know.
        return []


def used_words(event: dict[str, Any]) -> str:
    """Say in a line what a machine has used."""
    seconds = float(event.get("ended_at", 0)) - float(event.get("started_at", 0))
    words = [f"machine {event.get('machine')}", f"{seconds:.0f} s"]
    if "cpu_s" in event:
        words.append(f"{event['cpu_s']} s of CPU")
    for name, key in (("memory", "memory_peak_bytes"), ("disk", "disk_bytes")):
        if key in event:
            words.append(f"{name} {show_size(int(event[key]))}")
    start = event.get("start_ms", {})
    words += [f"{step} {ms:.0f} ms" for step, ms in start.items() if isinstance(ms, int | float)]
    return ", ".join(words)
