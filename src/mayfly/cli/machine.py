"""``mayfly machine``: look at, enter and delete the machines that are there."""

from __future__ import annotations

import os
import sys
import termios
import time
import tty
from dataclasses import asdict

import click

from mayfly.cli.output import Progress, print_json, print_table
from mayfly.engine import kept
from mayfly.engine.caller import (
    account_of_caller,
    caller_limits,
    job_environment,
    umask_of_caller,
)
from mayfly.engine.records import Record, is_alive, list_records, reap
from mayfly.engine.session.job import JobRequest
from mayfly.engine.session.notes import printable
from mayfly.errors import Invalid, Missing
from mayfly.units import show_duration
from mayfly.wiring import load

LONGEST = 4000
HEAD = ("ID", "IMAGE", "STATE", "CPUS", "MEMORY", "NETWORK", "AGE", "EXPIRES IN", "COMMAND")


@click.group(
    epilog="""\b
Examples:
  mayfly machine list
  mayfly machine ssh 7c2kq9xv
  mayfly machine ssh 7c2kq9xv --root -- dmesg
  mayfly machine delete 7c2kq9xv
"""
)
def machine() -> None:
    """Look at, enter and delete machines: those running now and those kept after a failure."""


@machine.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
def list_machines(as_json: bool) -> None:
    """List your machines."""
    paths, _ = load()
    now = time.time()
    for name in reap(paths.machines, now):
        click.echo(f"mayfly: removed what was left of machine {name}, which had ended", err=True)
    found = list_records(paths.machines)
    if as_json:
        print_json([_as_json(record) for record in found])
        return
    print_table(HEAD, [_row(record, now) for record in found])


def _as_json(record: Record) -> dict[str, object]:
    return {**asdict(record), "state": record.state.value, "alive": is_alive(record)}


def _row(record: Record, now: float) -> tuple[str, ...]:
    left = "" if record.expires_at is None else show_duration(max(0, record.expires_at - now))
    command = record.command if len(record.command) <= 40 else record.command[:37] + "..."
    return (
        record.id,
        record.image,
        record.state.value,
        str(record.cpus),
        f"{record.memory_mib} MiB",
        record.network,
        show_duration(now - record.created_at),
        left,
        printable(command),
    )


@machine.command()
@click.argument("name", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
def show(name: str, as_json: bool) -> None:
    """Show everything that is known of one machine."""
    paths, _ = load()
    matching = [record for record in list_records(paths.machines) if record.id == name]
    if not matching:
        raise Missing(f"no machine '{name}'", hint="'mayfly machine list' shows what there is")
    values = _as_json(matching[0])
    if as_json:
        print_json(values)
        return
    for key, value in values.items():
        click.echo(f"{key:12} {printable(str(value), LONGEST)}")


@machine.command()
@click.argument("name", metavar="ID")
@click.argument("command", nargs=-1)
@click.option("--root", is_flag=True, help="Enter as root.")
@click.option("-t/-T", "terminal", default=None, help="Force a terminal, or none.")
def ssh(name: str, command: tuple[str, ...], root: bool, terminal: bool | None) -> None:
    """Enter a kept machine: a shell, or COMMAND, in it; no ssh server is needed there."""
    paths, _ = load()
    account = account_of_caller()
    on_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    request = JobRequest(
        argv=command or (account.shell, "-l"),
        env=job_environment(os.environ, (), tty=on_terminal),
        cwd="/root" if root else account.home,
        umask=umask_of_caller(),
        limits=caller_limits(),
        root=root,
        tty=terminal,
        workdir=None,
        time_limit_s=None,
    )
    with kept.held_machine(paths.machines, name) as held:
        result = kept.enter(held, request, Progress())
    for words in (*result.warnings, *([result.reason] if result.phase != "done" else [])):
        click.echo(f"mayfly: {words}", err=True)
    sys.exit(result.code)


@machine.command()
@click.argument("name", metavar="ID")
def console(name: str) -> None:
    """Attach this terminal to a kept machine's serial console; Ctrl-] leaves it."""
    if not sys.stdin.isatty():
        raise Invalid(
            "a console needs a terminal", hint=f"'mayfly machine logs {name}' prints what it said"
        )
    paths, _ = load()
    with kept.held_machine(paths.machines, name) as held:
        click.echo(f"mayfly: console of {name}; Ctrl-] leaves it", err=True)
        before = termios.tcgetattr(0)
        try:
            tty.setraw(0)
            kept.attach_console(held, 0, 1)
        finally:
            termios.tcsetattr(0, termios.TCSADRAIN, before)
            click.echo("", err=True)


@machine.command()
@click.argument("name", metavar="ID")
def logs(name: str) -> None:
    """Print what a kept machine's serial console said."""
    paths, _ = load()
    with kept.held_machine(paths.machines, name) as held:
        text = kept.console_log(held, paths.templates)
    # A guest writes this: control characters could play tricks with the reader's terminal.
    shown = "".join(c for c in text if c.isprintable() or c in "\n\t")
    click.echo(shown if sys.stdout.isatty() else text, nl=False)


@machine.command()
@click.argument("names", metavar="ID...", nargs=-1, required=True)
def delete(names: tuple[str, ...]) -> None:
    """End machines and remove everything of them."""
    paths, _ = load()
    for name in names:
        kept.delete(paths.machines, name)
        click.echo(f"deleted {name}")
