"""``mayfly batch``: put Mayfly into a batch system, and take it out again."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import click

from mayfly import __file__ as code
from mayfly.batch.changes import apply, difference, take_back
from mayfly.batch.launchers import compile_code
from mayfly.batch.settings import BATCH_CONFIG, load_batch_settings
from mayfly.batch.systems import SYSTEMS, System, Where, load_system
from mayfly.cli.output import print_json, print_table
from mayfly.config import Paths
from mayfly.errors import Denied, Invalid, MayflyError
from mayfly.host import client
from mayfly.model import Finding

_system = click.argument("system", type=click.Choice(list(SYSTEMS)))
_conf = click.option(
    "--conf", type=click.Path(path_type=Path), help="The batch system's configuration."
)
_programs = click.option(
    "--programs", type=click.Path(path_type=Path), help="Where programs for it go."
)
_config = click.option(
    "--config",
    type=click.Path(path_type=Path),
    default=BATCH_CONFIG,
    help=f"The site's settings [default: {BATCH_CONFIG}].",
)

_queues = click.option(
    "--queue", "queues", multiple=True, metavar="NAME", help="Grid Engine, LSF: only this queue."
)


@click.group(
    epilog="""\b
Examples:
  mayfly batch install slurm --dry-run      # what would change
  mayfly batch install slurm                # root, on each host of the batch system
  mayfly batch check slurm
  mayfly batch options slurm                # what users write
  mayfly batch uninstall slurm --yes        # every file as it was before
  mayfly batch install gridengine --queue virt
  mayfly batch install pbs                  # or htcondor, lsf; grid: jobs that come through BLAH
"""
)
def batch() -> None:
    """Let jobs of a batch system run in machines of their own."""


@batch.command()
@_system
@_conf
@_programs
@_config
@_queues
@click.option("--dry-run", is_flag=True, help="Only show what would change.")
def install(
    system: str,
    conf: Path | None,
    programs: Path | None,
    config: Path,
    queues: tuple[str, ...],
    dry_run: bool,
) -> None:
    """Put Mayfly into SYSTEM on this host; 'uninstall' restores every file."""
    one, where = _open(system, conf, programs, config)
    where = replace(where, queues=queues)
    plan = one.plan(where)
    for line in difference(plan.changes):
        click.echo(line)
    for note in plan.notes:
        click.echo(f"mayfly: {note}", err=True)
    if dry_run:
        return
    _check_root()
    apply(plan.changes, one.journal(where))
    compile_code(where.code)
    one.installed(where)
    click.echo(f"installed for {system}; 'mayfly batch check {system}' looks at it")


@batch.command()
@_system
@_conf
@_programs
@_config
@click.option("--yes", is_flag=True, help="Do not ask.")
def uninstall(
    system: str, conf: Path | None, programs: Path | None, config: Path, yes: bool
) -> None:
    """Take Mayfly out of SYSTEM on this host: every file is as it was before."""
    one, where = _open(system, conf, programs, config)
    _check_root()
    if not yes:
        click.confirm(f"Take Mayfly out of {system} on this host?", abort=True)
    with one.uninstalling(where):
        for words in take_back(one.journal(where)):
            click.echo(f"mayfly: {words}", err=True)
    click.echo(f"taken out of {system}")


@batch.command()
@_system
@_conf
@_programs
@_config
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
def check(
    system: str, conf: Path | None, programs: Path | None, config: Path, as_json: bool
) -> None:
    """Say whether jobs of SYSTEM can have machines here: exit status 0, or 1 with what is wrong."""
    one, where = _open(system, conf, programs, config)
    found = [*_of_the_host(where), *one.check(where)]
    if as_json:
        print_json(
            [{"name": f.name, "ok": f.ok, "needed": f.needed, "detail": f.detail} for f in found]
        )
    for item in [] if as_json else found:
        word = "ok  " if item.ok else "FAIL" if item.needed else "note"
        click.echo(f"{word}  {item.name}: {item.detail}")
    sys.exit(0 if all(item.ok or not item.needed for item in found) else 1)


@batch.command(
    epilog="""\b
Examples:
  mayfly batch options                      # the same options on every door
  mayfly batch options pbs
  mayfly batch options htcondor --json
"""
)
@click.argument("system", type=click.Choice(list(SYSTEMS)), required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
def options(system: str | None, as_json: bool) -> None:
    """Show what users write to have a job of SYSTEM, or of each, run in a machine."""
    rows = [
        (name, option, meaning)
        for name in ([system] if system else SYSTEMS)
        for option, meaning in load_system(name).options()
    ]
    if as_json:
        print_json([{"system": s, "option": o, "meaning": m} for s, o, m in rows])
    elif system:
        print_table(("OPTION", "MEANING"), [row[1:] for row in rows])
    else:
        print_table(("SYSTEM", "OPTION", "MEANING"), rows)


def _open(
    system: str, conf: Path | None, programs: Path | None, config: Path
) -> tuple[System, Where]:
    for path in (conf, programs, config):
        if path is not None and any(sign in str(path) for sign in " \n\0\"'"):
            raise Invalid(f"{str(path)!r}: batch systems take no such signs in a path")
    paths = Paths.for_user()
    where = Where(
        conf=conf and conf.absolute(),
        programs=programs and programs.absolute(),
        config=config.absolute(),
        home=os.environ.get("MAYFLY_HOME", ""),
        policy=paths.policy_file,
        code=Path(code).resolve().parents[1],
    )
    return load_system(system), where


def _check_root() -> None:
    if os.geteuid() != 0:
        raise Denied("only root changes a batch system", hint="run it with sudo")


def _of_the_host(where: Where) -> list[Finding]:
    """Say whether the settings can be read and a host service is there."""
    try:
        settings = load_batch_settings(where.config if where.config.exists() else None)
        switch = "jobs may have machines" if settings.enabled else "switched off: no job gets one"
        found = [Finding(name="batch.toml", ok=settings.enabled, detail=switch, needed=False)]
    except MayflyError as error:
        return [Finding(name="batch.toml", ok=False, detail=error.message)]
    try:
        client.require(settings.socket).close()
        detail = f"listens at {settings.socket}"
        return [*found, Finding(name="host service", ok=True, detail=detail)]
    except MayflyError as error:
        return [*found, Finding(name="host service", ok=False, detail=error.message)]
