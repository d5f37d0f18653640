"""What ``mayfly machine`` does with a site server: machines that one has for a time, by name."""

from __future__ import annotations

import os
import shlex
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

import click

from mayfly.cli.output import Progress, plain, print_json, print_table
from mayfly.client import Client, Lease
from mayfly.client.way import pump
from mayfly.config import Paths
from mayfly.errors import Failed, Invalid, MayflyError, Missing, Unavailable
from mayfly.units import MIB, parse_duration, parse_size, show_duration
from mayfly.wiring import load

WAIT_S = 900.0
POLL_S = 0.25
HEAD = ("NAME", "IMAGE", "STATE", "CPUS", "MEMORY", "OWNER", "EXPIRES IN", "WHY")


def server_url() -> str:
    """Give where the site server is: MAYFLY_SERVER, or the setting; "" where there is none."""
    named = os.environ.get("MAYFLY_SERVER")
    return load()[1].server if named is None else named.removeprefix("none")


def server() -> Client | None:
    """Give the site server, None where none is configured."""
    url = server_url()
    return Client(url) if url else None


def required_server() -> Client:
    """Give the site server; raises ``Missing`` where none is configured."""
    client = server()
    if client is None:
        raise Missing(
            "no site server is configured, and leases are kept by one",
            hint="set 'server' in /etc/mayfly/config.toml, or MAYFLY_SERVER",
        )
    return client


def find(name: str) -> Lease | None:
    """Give the lease of this name or id, None where there is none, or no server."""
    client = server()
    if client is None:
        return None
    with client, suppress(Missing):
        return client.lease(name)
    return None


def listed() -> list[dict[str, Any]] | None:
    """Give one's leases as JSON has them, None where no server is configured."""
    client = server()
    if client is None:
        return None
    with client:
        return [_item(each) for each in client.leases()]


def _item(lease: Lease) -> dict[str, Any]:
    words = asdict(lease)
    return {k: v.isoformat() if isinstance(v, datetime) else v for k, v in words.items()}


def show_table(items: list[dict[str, Any]]) -> None:
    """Print leases for people."""
    now = datetime.now(UTC)
    print_table(HEAD, [_row(item, now) for item in items])


def _row(item: dict[str, Any], now: datetime) -> tuple[str, ...]:
    left_s = (datetime.fromisoformat(item["expires_at"]) - now).total_seconds()
    return (
        item["name"],
        item["image"],
        item["state"],
        str(item["cpus"]),
        f"{item['memory_mib']} MiB",
        item["owner"],
        show_duration(left_s) if left_s > 0 else "over",
        plain(item["reason"])[:60],
    )


def show_one(lease: Lease, *, as_json: bool) -> None:
    """Print everything that is known of one."""
    item = _item(lease)
    if as_json:
        print_json(item)
        return
    for key, value in item.items():
        click.echo(f"{key:12} {plain(str(value))}")


def want(name: str, wanted: str) -> None:
    """Have a lease's machine suspended or running, and wait until it is."""
    with required_server() as client:
        client.want(name, wanted)
        _wait(client, name, wanted)
    click.echo(f"{name} is {wanted}")


def delete(name: str) -> None:
    """End a lease."""
    with required_server() as client:
        client.delete(name)


# --- create, extend ------------------------------------------------------------------------------


@click.command(
    epilog="""\b
Examples:
  mayfly machine create debian-12 --for 8h --name build1 --ssh-key ~/.ssh/id_ed25519.pub
  mayfly machine create debian-12 --cpus 2 --memory 4G --network open --for 2d
  mayfly machine create debian-12 --for 8h --dry-run
"""
)
@click.argument("image")
@click.option("--cpus", type=click.IntRange(1, 255), default=1, help="CPUs [default: 1].")
@click.option("--memory", default="512M", help="Memory [default: 512M].")
@click.option(
    "--network",
    type=click.Choice(["none", "open"]),
    default="none",
    help="What it can reach [default: none].",
)
@click.option("--for", "for_", help="For how long, as 8h or 2d [default: as the site has it].")
@click.option("--name", help="What to call it [default: made up].")
@click.option("--group", help="Group whose quota it counts for [default: your first].")
@click.option(
    "--ssh-key",
    "keys",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Public key that may log in; may be given several times.",
)
@click.option("--no-wait", is_flag=True, help="Do not wait until it runs.")
@click.option("--dry-run", is_flag=True, help="Only say whether it could be had.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
def create(
    image: str,
    cpus: int,
    memory: str,
    network: str,
    for_: str | None,
    name: str | None,
    group: str | None,
    keys: tuple[Path, ...],
    no_wait: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Have a machine of IMAGE for a time, with ssh; the site server keeps it."""
    wish: dict[str, Any] = {
        "cpus": cpus,
        "memory_mib": parse_size(memory) // MIB,
        "network": network,
        "for_s": None if for_ is None else parse_duration(for_),
        "name": name,
        "group": group,
        "ssh_keys": [line for file in keys for line in _read_keys(file)],
        "dry_run": dry_run,
    }
    with required_server() as client:
        lease = client.create(image, **wish)
        if not (no_wait or dry_run):
            lease = _wait(client, lease.id, "running")
    if as_json:
        print_json(_item(lease))
    elif dry_run:
        click.echo(f"such a machine could be had now, until {_local(lease.expires_at)}")
    else:
        click.echo(f"{lease.name} is {lease.state}, until {_local(lease.expires_at)}")
        click.echo(f"mayfly machine ssh {lease.name}")


def _read_keys(file: Path) -> list[str]:
    try:
        lines = file.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(f"cannot read {file}: {error}") from error
    found = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not found or any("PRIVATE KEY" in line for line in found):
        raise Invalid(f"{file} has no public key", hint="it is the file that ends in .pub")
    return found


def _local(moment: datetime) -> str:
    return moment.astimezone().strftime("%a %d %b %H:%M")


def _wait(client: Client, word: str, wanted: str) -> Lease:
    """Wait until a lease is as it is wanted; raises ``Failed`` when it never will be."""
    progress = Progress()
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        lease = client.lease(word)
        if lease.state == wanted:
            progress.clear()
            return lease
        if lease.state in ("failed", "gone"):
            progress.clear()
            hint = f"'mayfly machine delete {lease.name}' removes it"
            raise Failed(f"machine '{lease.name}' {lease.state}: {lease.reason}", hint=hint)
        progress(f"{lease.name} is {lease.state}" + (f" ({lease.reason})" if lease.reason else ""))
        time.sleep(POLL_S)
    raise Unavailable(f"machine '{word}' is not {wanted} after {WAIT_S:g} s")


@click.command(
    epilog="""\b
Examples:
  mayfly machine extend build1 --for 2d        # two days from now on
"""
)
@click.argument("name", metavar="NAME")
@click.option("--for", "for_", required=True, help="For how long from now on, as 8h or 2d.")
def extend(name: str, for_: str) -> None:
    """Keep a leased machine for longer; an expired one goes on where it stopped."""
    end = datetime.now(UTC) + timedelta(seconds=parse_duration(for_))
    with required_server() as client:
        lease = client.extend(name, end)
    click.echo(f"{lease.name} is yours until {_local(lease.expires_at)}")


# --- ssh -----------------------------------------------------------------------------------------


@click.command()
@click.argument("name", metavar="NAME")
def connect(name: str) -> None:
    """Make standard input and output a connection to a leased machine's ssh server.

    For ssh's ProxyCommand: 'mayfly machine ssh-config NAME' writes it down.
    """
    with required_server() as client:
        pump(client, name)


@click.command(
    "ssh-config",
    epilog="""\b
Example:
  mayfly machine ssh-config build1 >> ~/.ssh/config; ssh build1
""",
)
@click.argument("name", metavar="NAME")
def ssh_config(name: str) -> None:
    """Print what ~/.ssh/config needs so that ssh, scp and rsync reach a leased machine."""
    lease = find(name)
    if lease is None:
        raise Missing(f"no machine '{name}'", hint="'mayfly machine list' shows what there is")
    click.echo(f"Host {lease.name}")
    for option, value in _options(lease).items():
        click.echo(f"    {option} {value}")


def enter(lease: Lease, command: tuple[str, ...], *, root: bool, terminal: bool | None) -> NoReturn:
    """Become ssh, with the user's own keys, to a leased machine."""
    words = ["ssh", *(f"-o{name}={value}" for name, value in _options(lease).items())]
    if terminal is not None:
        words.append("-t" if terminal else "-T")
    if root:
        words += ["-l", "root"]
    argv = [*words, lease.name, *([shlex.join(command)] if command else [])]
    sys.stdout.flush()
    try:
        os.execvp("ssh", argv)
    except OSError as error:
        raise Failed(
            f"cannot run ssh: {error.strerror}", hint="apt-get install openssh-client"
        ) from error


def _options(lease: Lease) -> dict[str, str]:
    proxy = [sys.argv[0] if os.access(sys.argv[0], os.X_OK) else "mayfly", "machine", "connect"]
    begin = f"env MAYFLY_SERVER={shlex.quote(server_url())} "
    return {
        "User": lease.owner,
        "HostKeyAlias": f"mayfly-{lease.id}",
        "UserKnownHostsFile": str(_known_hosts(lease)),
        "StrictHostKeyChecking": "yes",
        "ProxyCommand": begin + shlex.join([*proxy, lease.id]).replace("%", "%%"),
    }


def _known_hosts(lease: Lease) -> Path:
    """Write the machine's ssh keys down, as the server proved them."""
    file = Paths.for_user().state / "ssh" / lease.id
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        fresh = file.with_name(f".{file.name}.{os.getpid()}")
        fresh.write_text("".join(f"mayfly-{lease.id} {key}\n" for key in lease.host_keys))
        fresh.replace(file)
    except OSError as error:
        raise Failed(f"cannot write {file}: {error.strerror}") from error
    return file


COMMANDS = (create, extend, connect, ssh_config)

__all__ = [
    "COMMANDS",
    "MayflyError",
    "delete",
    "enter",
    "find",
    "listed",
    "show_one",
    "show_table",
    "want",
]
