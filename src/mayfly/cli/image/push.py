"""``mayfly image push``: put an image into a registry, for other hosts to pull."""

from __future__ import annotations

import click

from mayfly.cli.image.group import Steps, explaining, image, own_catalogue
from mayfly.cli.image.pull import access_of
from mayfly.images.registry import Registry, parse_reference
from mayfly.images.registry.machine import push_machine
from mayfly.wiring import load


@image.command(
    "push",
    epilog="""\b
Examples:
  mayfly image push el9 docker://registry.example.org/site/el9:2026

\b
It becomes an OCI artifact: the disk is one blob. Log in with 'skopeo login' or
'docker login'. The digest that is printed is what the image can be pulled by for ever:
  mayfly image pull docker://registry.example.org/site/el9@sha256:…
""",
)
@click.argument("name")
@click.argument("reference", metavar="docker://HOST[:PORT]/NAME[:TAG]")
@explaining
def push_image(name: str, reference: str) -> None:
    """Put an image into a registry."""
    _, settings = load()
    wanted = parse_reference(reference)
    if wanted.digest is not None:
        raise click.UsageError("a tag is pushed to, not a digest")
    steps = Steps(name)
    found = own_catalogue().find(name)
    registry = Registry(wanted, access_of(settings), push=True)
    digest = push_machine(found, registry, steps.watch)
    steps.note(f"pushed {name} as docker://{wanted.pinned(digest)}")
    click.echo(str(digest))
