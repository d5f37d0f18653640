"""``mayfly host``: the service that keeps machines ready on this host, and what it is asked."""

from __future__ import annotations

import logging
import os
import select
import sys
from pathlib import Path
from typing import Any

import click

from mayfly.cli.output import plain, print_json, print_table
from mayfly.errors import Invalid
from mayfly.host import client
from mayfly.host.settings import HOST_CONFIG, load_host_settings
from mayfly.units import MIB, parse_size

REFRESH_S = 1.0


@click.group(
    epilog="""\b
Examples:
  mayfly host serve --config /etc/mayfly/host.toml    # root; systemd does this
  mayfly host status --watch
  mayfly host check                                   # exit status 1: something is wrong
  mayfly host drain                                   # no new machines; those there go on
  mayfly host warm debian-12 --count 2
"""
)
def host() -> None:
    """Run and ask the host service: machines kept ready, handed out and cleaned up."""


@host.command()
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    help=f"Settings of the service [default: {HOST_CONFIG}, if there].",
)
def serve(config: Path | None) -> None:
    """Run the service in the foreground until SIGTERM; machines go on without it."""
    from mayfly.host.serve import serve as run_service  # noqa: PLC0415 - for root only
    from mayfly.wiring import catalogue_of, host_engine, load  # noqa: PLC0415

    if config is None and HOST_CONFIG.exists():
        config = HOST_CONFIG
    settings = load_host_settings(config)
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    paths, own = load()
    run_service(host_engine(paths, own, settings), settings, catalogue_of(paths))


@host.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
@click.option("--watch", is_flag=True, help="Show it anew every second, until Ctrl-C.")
def status(as_json: bool, watch: bool) -> None:
    """Show what the service is doing."""
    while True:
        answer, _ = ask("status")
        del answer["type"]
        if watch and sys.stdout.isatty():
            click.clear()
        if as_json:
            print_json(answer)
        else:
            _show_status(answer)
        if not watch:
            return
        select.select([], [], [], REFRESH_S)


def _show_status(answer: dict[str, Any]) -> None:
    machines = answer["machines"]
    memory = answer["memory_mib"]
    words = ", ".join(f"{count} {state}" for state, count in sorted(machines.items())) or "none"
    click.echo(f"mayfly {answer['version']}, {answer['accelerator']}")
    click.echo(f"takes requests  {'no: it is drained' if answer['draining'] else 'yes'}")
    if answer.get("trouble"):
        click.echo(f"trouble         {plain(answer['trouble'])}")
    click.echo(f"machines        {words}")
    if answer.get("untrusted"):
        click.echo(f"untrusted       {answer['untrusted']}: 'mayfly machine list' shows them")
    click.echo(f"waiting         {answer['waiting']}")
    click.echo(
        f"memory          {memory['promised']} of {memory['to_promise']} MiB promised, "
        f"{memory['templates']} MiB of templates shared"
    )
    if answer["standby"]:
        click.echo("")
        head = ("STANDBY", "CPUS", "MEMORY", "READY", "WANTED", "TROUBLE")
        print_table(head, [_standby_row(item) for item in answer["standby"]])


def _standby_row(item: dict[str, Any]) -> tuple[str, ...]:
    return (
        item["image"],
        str(item["cpus"]),
        f"{item['memory_mib']} MiB",
        str(item["ready"]),
        str(item["wanted"]),
        plain(item["trouble"])[:80],
    )


@host.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
def check(as_json: bool) -> None:
    """Say whether this host is fit to take jobs: exit status 0, or 1 with what is wrong."""
    _, found = ask("check")
    if as_json:
        print_json(found)
    for item in [] if as_json else found:
        click.echo(f"{'ok  ' if item['ok'] else 'FAIL'}  {item['name']}: {plain(item['detail'])}")
    sys.exit(0 if all(item["ok"] for item in found) else 1)


@host.command()
def drain() -> None:
    """Take no new requests, also after a restart; what runs goes on."""
    answer, _ = ask("drain")
    click.echo(f"drained; {answer['running']} machines are still at work")


@host.command()
def undrain() -> None:
    """Take requests again."""
    ask("undrain")
    click.echo("takes requests")


@host.command()
@click.argument("image")
@click.option("--count", type=click.IntRange(1), default=1, help="How many to keep [default: 1].")
@click.option("--cpus", type=click.IntRange(1), default=1, help="CPUs of each [default: 1].")
@click.option("--memory", default="512M", help="Memory of each [default: 512M].")
def warm(image: str, count: int, cpus: int, memory: str) -> None:
    """Keep machines of IMAGE ready until the service ends, or it is cooled."""
    fields = {"image": image, "count": count, "cpus": cpus, "memory_mib": parse_size(memory) // MIB}
    ask("warm", fields)
    click.echo(f"{count} of {image} will be kept ready")


@host.command()
@click.argument("image")
def cool(image: str) -> None:
    """Keep no machines of IMAGE ready."""
    ask("cool", {"image": image})
    click.echo(f"none of {image} are kept ready")


@host.command(
    epilog="""\b
Example:
  mayfly host register key=CLUSTER/JOB/STEP uid=1000 cpus=2 memory_mib=2048 \\
      wall_s=3600 image=debian-12 cgroup=/slurm/uid_1000/job_5/step_extern
"""
)
@click.argument("assignments", nargs=-1, required=True, metavar="KEY=VALUE...")
def register(assignments: tuple[str, ...]) -> None:
    """Give a batch job the right to a machine; for a batch system's prolog."""
    right: dict[str, object] = {}
    for text in assignments:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise Invalid(f"'{text}' is not KEY=VALUE")
        right[name] = int(value) if value.isdigit() and name not in ("key", "image") else value
    ask("register", {"right": right})


@host.command()
@click.argument("key", metavar="CLUSTER/JOB/STEP")
def unregister(key: str) -> None:
    """Take a job's right back and end its machines; for a batch system's epilog."""
    ask("unregister", {"job": key})


@host.command()
def metrics() -> None:
    """Print the service's metrics as Prometheus reads them."""
    _, items = ask("metrics")
    click.echo("".join(str(item["text"]) for item in items), nl=False)


def ask(op: str, fields: dict[str, Any] | None = None) -> tuple[dict[str, Any], list[Any]]:
    """Ask the service on this host one thing."""
    connection = client.require(client.socket_path(os.environ))
    try:
        return client.call(connection, op, fields)
    finally:
        connection.close()
