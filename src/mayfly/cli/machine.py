"""``mayfly machine``: look at, enter, stop, save and delete the machines that are there.

They are of two kinds: those of the host service, and those that commands of this user made without
one. An id names one of either.
"""

from __future__ import annotations

import os
import sys
import termios
import time
import tty
from contextlib import ExitStack, closing
from dataclasses import asdict
from typing import Any

import click

from mayfly.cli import lease
from mayfly.cli.output import Progress, print_json, print_table
from mayfly.engine import kept
from mayfly.engine.caller import (
    account_of_caller,
    caller_limits,
    job_environment,
    umask_of_caller,
)
from mayfly.engine.jobs import Steps
from mayfly.engine.records import Record, is_alive, list_records, reap
from mayfly.engine.session.job import JobRequest, JobResult
from mayfly.engine.session.notes import printable
from mayfly.errors import Invalid, MayflyError, Missing
from mayfly.host import client
from mayfly.host.run import claim, release, run_in
from mayfly.units import show_duration, show_size
from mayfly.wiring import load

LONGEST = 4000
HEAD = ("ID", "IMAGE", "STATE", "CPUS", "MEMORY", "NETWORK", "AGE", "EXPIRES IN", "COMMAND")


@click.group(
    epilog="""\b
Examples:
  mayfly machine create debian-12 --for 8h --name build1 --ssh-key ~/.ssh/id_ed25519.pub
  mayfly machine list
  mayfly machine ssh 7c2kq9xv
  mayfly machine ssh 7c2kq9xv --root -- dmesg
  mayfly machine snapshot 7c2kq9xv clean
  mayfly machine revert 7c2kq9xv clean
  mayfly machine suspend 7c2kq9xv
  mayfly machine delete 7c2kq9xv
"""
)
def machine() -> None:
    """Look at, enter, stop, save and delete machines."""


@machine.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
def list_machines(as_json: bool) -> None:
    """List your machines; root sees those of all users of the host service."""
    paths, _ = load()
    now = time.time()
    for name in reap(paths.machines, now):
        click.echo(f"mayfly: removed what was left of machine {name}, which had ended", err=True)
    found = [_as_item(record) for record in list_records(paths.machines)]
    if (items := _asked("list")) is not None:
        found += items[1]
    if (leased := lease.listed()) is not None:
        # Those that a lease stands for are told of by the server.
        found = [item for item in found if not item.get("lease")]
        if as_json:
            found += leased
        else:
            lease.show_table(leased)
            if not found:
                return
            click.echo("")
    if as_json:
        print_json(found)
        return
    print_table(HEAD, [_row(item, now) for item in found])


def _asked(op: str, **fields: object) -> tuple[dict[str, Any], list[dict[str, Any]]] | None:
    """Ask the host service; None when there is none."""
    connection = client.connect(client.socket_path())
    if connection is None:
        return None
    with closing(connection):
        return client.call(connection, op, fields)


def _is_hosted(name: str) -> bool:
    """Tell whether a machine is one of the host service."""
    try:
        return _asked("show", machine=name) is not None
    except (Missing, Invalid):
        return False


def _tell(op: str, name: str, **fields: object) -> dict[str, Any]:
    """Ask the host service to do something with one of its machines."""
    progress = Progress()
    with closing(client.require(client.socket_path())) as connection:
        connection.ask(op, {"machine": name, **fields})
        answer, _ = connection.answer(
            lambda message, _: progress(str(message.get("text", ""))), limit_s=None
        )
    progress.clear()
    return answer


def _as_item(record: Record) -> dict[str, Any]:
    more = {"state": record.state.value, "image_pin": record.image_pin, "alive": is_alive(record)}
    return {**asdict(record), **more}


def _row(item: dict[str, Any], now: float) -> tuple[str, ...]:
    expires_at = item["expires_at"]
    command = str(item["command"])
    return (
        item["id"],
        item["image"],
        item["state"] + (", untrusted" if item.get("untrusted") else ""),
        str(item["cpus"]),
        f"{item['memory_mib']} MiB",
        item["network"],
        show_duration(max(0, now - item["created_at"])),
        "" if expires_at is None else show_duration(max(0, expires_at - now)),
        printable(command if len(command) <= 40 else command[:37] + "..."),
    )


@machine.command()
@click.argument("name", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
def show(name: str, as_json: bool) -> None:
    """Show everything that is known of one machine."""
    paths, _ = load()
    if (leased := lease.find(name)) is not None:
        lease.show_one(leased, as_json=as_json)
        return
    matching = [_as_item(one) for one in list_records(paths.machines) if one.id == name]
    if not matching and _is_hosted(name):
        matching = [_tell("show", name)["machine"]]
    if not matching:
        raise Missing(f"no machine '{name}'", hint="'mayfly machine list' shows what there is")
    if as_json:
        print_json(matching[0])
        return
    for key, value in sorted(matching[0].items()):
        click.echo(f"{key:12} {printable(str(value), LONGEST)}")


@machine.command()
@click.argument("name", metavar="ID")
@click.argument("command", nargs=-1)
@click.option("--root", is_flag=True, help="Enter as root.")
@click.option("-t/-T", "terminal", default=None, help="Force a terminal, or none.")
def ssh(name: str, command: tuple[str, ...], root: bool, terminal: bool | None) -> None:
    """Enter a machine: a shell, or COMMAND, in it; no ssh server is needed there."""
    if (leased := lease.find(name)) is not None:
        lease.enter(leased, command, root=root, terminal=terminal)
    request = _request(command, root, terminal)
    _finish(_enter_hosted(name, request) if _is_hosted(name) else _enter_own(name, request))


@machine.command()
@click.argument("name", metavar="ID")
@click.argument("command", nargs=-1)
@click.option("--root", is_flag=True, help="Enter as root.")
def debug(name: str, command: tuple[str, ...], root: bool) -> None:
    """Wake a machine that was kept after a failure, as it was then, and enter it."""
    request = _request(command, root, None)
    if not _is_hosted(name):
        _finish(_enter_own(name, request))
    state = _tell("show", name)["machine"]["state"]
    if state != "running":
        _tell("resume", name)
        click.echo(
            f"mayfly: machine {name} runs again, until 'mayfly machine delete {name}'", err=True
        )
    _finish(_enter_hosted(name, request))


def _request(command: tuple[str, ...], root: bool, terminal: bool | None) -> JobRequest:
    account = account_of_caller()
    on_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    return JobRequest(
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


def _enter_own(name: str, request: JobRequest) -> JobResult:
    paths, _ = load()
    with kept.held_machine(paths.machines, name) as held:
        return kept.enter(held, request, Progress())


def _enter_hosted(name: str, request: JobRequest) -> JobResult:
    progress = Progress()
    steps = Steps(report=progress, note=progress.warn)
    with closing(client.require(client.socket_path())) as connection, ExitStack() as stack:
        connection.ask("enter", {"machine": name})
        claimed = claim(connection, steps, stack)
        result = run_in(connection, claimed, request, steps)
        release(connection, {})
    return result


def _finish(result: JobResult) -> None:
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
@click.option("--events", is_flag=True, help="What was done with it, instead of its console.")
def logs(name: str, events: bool) -> None:
    """Print what a machine's serial console said; the service knows it also when it is gone."""
    paths, _ = load()
    if any(record.id == name for record in list_records(paths.machines)):
        with kept.held_machine(paths.machines, name) as held:
            text = kept.console_log(held, paths.templates)
    else:
        asked = _asked("logs", machine=name, **({"log": "events.jsonl"} if events else {}))
        if asked is None:
            raise Missing(f"no machine '{name}'", hint="'mayfly machine list' shows what there is")
        text = "".join(str(item["text"]) for item in asked[1])
    # A guest writes this: control characters could play tricks with the reader's terminal.
    shown = "".join(c for c in text if c.isprintable() or c in "\n\t")
    click.echo(shown if sys.stdout.isatty() else text, nl=False)


@machine.command()
@click.argument("name", metavar="ID")
def pause(name: str) -> None:
    """Stop a machine's CPUs; its memory stays where it is."""
    _tell("pause", name)
    click.echo(f"paused {name}; 'mayfly machine resume {name}' lets it go on")


@machine.command()
@click.argument("name", metavar="ID")
def suspend(name: str) -> None:
    """Write a machine to disk, memory and all, and free what it holds of this host."""
    if lease.find(name) is not None:
        lease.want(name, "suspended")
        return
    answer = _tell("suspend", name)
    until = answer["machine"]["expires_at"]
    left = f", for {show_duration(max(0, until - time.time()))}" if until is not None else ""
    click.echo(f"suspended {name}{left}; 'mayfly machine resume {name}' lets it go on")


@machine.command()
@click.argument("name", metavar="ID")
def resume(name: str) -> None:
    """Let a paused, suspended or kept machine go on where it stopped."""
    if lease.find(name) is not None:
        lease.want(name, "running")
        return
    _tell("resume", name)
    click.echo(f"resumed {name}")


@machine.command()
@click.argument("name", metavar="ID")
@click.argument("point", metavar="POINT")
def snapshot(name: str, point: str) -> None:
    """Remember memory and disk of a running machine as POINT, to go back to."""
    _tell("snapshot", name, point=point)
    click.echo(f"{name} can be reverted to '{point}'")


@machine.command()
@click.argument("name", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
def snapshots(name: str, as_json: bool) -> None:
    """List the points that a machine can be taken back to."""
    with closing(client.require(client.socket_path())) as connection:
        _, found = client.call(connection, "snapshots", {"machine": name})
    if as_json:
        print_json(found)
        return
    now = time.time()
    rows = [
        (item["point"], show_duration(max(0, now - item["created_at"])), show_size(item["bytes"]))
        for item in found
    ]
    print_table(("POINT", "AGE", "MEMORY ON DISK"), rows)


@machine.command()
@click.argument("name", metavar="ID")
@click.argument("point", metavar="POINT")
def revert(name: str, point: str) -> None:
    """Take a machine back to POINT: whatever was done since has not happened."""
    _tell("revert", name, point=point)
    click.echo(f"{name} is as it was at '{point}'")


@machine.command()
@click.argument("names", metavar="ID...", nargs=-1, required=True)
def delete(names: tuple[str, ...]) -> None:
    """End machines and remove everything of them."""
    paths, _ = load()
    failed: list[MayflyError] = []
    for name in names:
        try:
            if lease.find(name) is not None:
                lease.delete(name)
            elif _is_hosted(name):
                _tell("delete", name)
            else:
                kept.delete(paths.machines, name)
            click.echo(f"deleted {name}")
        except MayflyError as error:
            failed.append(error)
    for other in failed[1:]:
        click.echo(f"mayfly: {other.message}", err=True)
    if failed:
        raise failed[0]


for _command in lease.COMMANDS:
    machine.add_command(_command)
