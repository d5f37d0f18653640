"""``mayfly server``: the site server, which keeps people's leases of machines."""

from __future__ import annotations

import logging
import sys
from dataclasses import asdict
from pathlib import Path
from types import ModuleType

import click

from mayfly.cli.output import plain, print_json
from mayfly.cli.serverparts import config_option, parts_of, settings_file


@click.group(
    epilog="""\b
Examples:
  mayfly server migrate                               # make, or bring up to date, the database
  mayfly server serve --config /etc/mayfly/server.toml   # as a user of its own; systemd does this
  mayfly server check
  mayfly server backup /backup/site-monday.gz         # while the server runs
"""
)
def server() -> None:
    """Run and look after the site server."""


def _parts() -> ModuleType:
    return parts_of("site_wiring", "the site server")


@server.command()
@config_option
def serve(config: Path | None) -> None:
    """Run the server in the foreground until SIGTERM; machines go on without it."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    # Of its plugins nobody wants to know.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    _parts().serve(settings_file(config))


@server.command()
@config_option
def migrate(config: Path | None) -> None:
    """Make the database's tables, or bring them up to date; safe to call again."""
    before, after = _parts().migrate(settings_file(config))
    done = f"schema {after}" if before == after else f"from {before or 'nothing'} to schema {after}"
    click.echo(f"the database is up to date: {done}")


@server.command()
@config_option
@click.argument("file", type=click.Path(path_type=Path))
def backup(config: Path | None, file: Path) -> None:
    """Write all leases, events and keys into FILE, which must not be there yet.

    The server may go on meanwhile. Keep the key file of the EC2 API too: it is not in FILE.
    """
    rows = _parts().backup(settings_file(config), file)
    click.echo(f"{rows} rows are in {plain(str(file))}")


@server.command()
@config_option
@click.argument("file", type=click.Path(path_type=Path))
def restore(config: Path | None, file: Path) -> None:
    """Put a backup into an empty database, of the same kind or the other one; all or nothing.

    Machines that were made after the backup have no lease in it: the server ends them.
    """
    rows = _parts().restore(settings_file(config), file)
    click.echo(f"{rows} rows were put back")


@server.command()
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
def check(config: Path | None, as_json: bool) -> None:
    """Say whether the server has what it needs: exit status 0, or 1 with what is wrong."""
    found = _parts().check(settings_file(config))
    if as_json:
        print_json([asdict(each) for each in found])
    for each in [] if as_json else found:
        click.echo(f"{'ok  ' if each.ok else 'FAIL'}  {each.name}: {plain(each.detail)}")
    sys.exit(0 if all(each.ok for each in found) else 1)
