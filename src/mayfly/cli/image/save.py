"""``mayfly image save``: make an image of a machine that was prepared by hand."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress

import click

from mayfly.cli.image.group import Steps, explaining, image, own_catalogue, tidy_on_signals
from mayfly.engine import kept
from mayfly.engine.records import Record, list_records
from mayfly.engine.strip import stripped_machine
from mayfly.engine.template import open_file
from mayfly.errors import Invalid, MayflyError, Missing
from mayfly.host import client
from mayfly.images.catalogue import Catalogue, check
from mayfly.images.catalogue.reference import is_version
from mayfly.images.saving import admit_machine
from mayfly.model import Image
from mayfly.wiring import load


@image.command(
    "save",
    epilog="""\b
Examples:
  mayfly run debian-12 --detach --network open     # prints the machine's id
  mayfly machine ssh 7c2kq9xv --root -- apt-get install -y make
  mayfly image save 7c2kq9xv tools
  mayfly image save 7c2kq9xv tools --version 2026.1 --new-version --yes

\b
What makes the machine itself is taken out of it first: its name and id, ssh host
keys, random seeds, cloud-init's state, logs, your account with its home
directory, /tmp, /root/.ssh. The machine is used up by that, and deleted.
""",
)
@click.argument("machine", metavar="MACHINE")
@click.argument("name")
@click.option("--version", default="", help="Version of the image [default: the time].")
@click.option("--tag", "tags", multiple=True, help="A tag for it. Repeatable.")
@click.option("--force", is_flag=True, help="Replace an image of the same name.")
@click.option("--new-version", is_flag=True, help="Keep the one of the same name beside this one.")
@click.option("--yes", is_flag=True, help="Do not ask: the machine is deleted afterwards.")
@explaining
def save(
    machine: str,
    name: str,
    version: str,
    tags: tuple[str, ...],
    force: bool,
    new_version: bool,
    yes: bool,
) -> None:
    """Make an image of a running or kept machine, without the machine's identity."""
    if force and new_version:
        raise click.UsageError("--force and --new-version exclude each other")
    if version and not is_version(version):
        raise Invalid(f"'{version}' is not a version", hint="letters, digits and . _ + ~ -")
    catalogue = own_catalogue()
    if not yes and not click.confirm(f"Make image {name} of machine {machine}, and delete it?"):
        click.get_current_context().exit(1)
    tidy_on_signals()
    steps = Steps(name)
    work = f"save {machine}"
    with catalogue.draft(name, work=work, force=force, keep=new_version) as draft:
        # Before anything is done to the machine: without its image nothing can come of it.
        found = _image_of(catalogue, machine)
        steps("strip", None)
        with _still(machine) as layers:
            made = admit_machine(
                draft, layers, found, machine=machine, marks=(version, tags), report=steps
            )
    _delete(machine)
    steps.done(made, "saved")


def _image_of(catalogue: Catalogue, machine: str) -> Image:
    """Give the very image that a machine was made of."""
    own = _own(machine)
    if own is not None:
        pin = own.image_pin
    else:
        with closing(_service(machine)) as connection:
            answer, _ = client.call(connection, "show", {"machine": machine})
        pin = str(answer["machine"]["image_pin"])
    found = catalogue.find(pin)
    check(found)
    return found


def _own(machine: str) -> Record | None:
    paths, _ = load()
    return next((each for each in list_records(paths.machines) if each.id == machine), None)


def _service(machine: str) -> client.Connection:
    connection = client.connect(client.socket_path())
    if connection is None:
        raise Missing(f"no machine '{machine}'", hint="'mayfly machine list' shows what there is")
    return connection


@contextmanager
def _still(machine: str) -> Iterator[list[int]]:
    """Strip a machine and hold it still; gives the files of its disk, the top one first."""
    with ExitStack() as stack:
        if _own(machine) is not None:
            paths, _ = load()
            held = stack.enter_context(stripped_machine(paths.machines, paths.templates, machine))
            layers = [open_file(path) for path in held.layers]
        else:
            connection = stack.enter_context(closing(_service(machine)))
            connection.ask("strip", {"machine": machine})
            _, layers = connection.answer(limit_s=None)
        for layer in layers:
            stack.callback(os.close, layer)
        yield layers


def _delete(machine: str) -> None:
    """Delete what is of no more use; the image is there, whatever becomes of this."""
    paths, _ = load()
    with suppress(MayflyError):
        if _own(machine) is not None:
            kept.delete(paths.machines, machine)
        else:
            with closing(client.require(client.socket_path())) as connection:
                client.call(connection, "delete", {"machine": machine})
