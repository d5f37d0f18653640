"""``mayfly image chunk|serve``: publish an image in chunks, and give them to neighbours."""

from __future__ import annotations

import os
import re
from pathlib import Path

import click

from mayfly.cli.image.group import Steps, explaining, image, own_catalogue
from mayfly.config import Paths
from mayfly.engine.privileges import become
from mayfly.errors import Conflict, Invalid
from mayfly.images.chunks.assemble import chunk_downloads
from mayfly.images.chunks.holdings import Holdings
from mayfly.images.chunks.publish import CONTENT, INDEX, publish
from mayfly.images.chunks.serve import ChunkServer
from mayfly.images.chunks.shelf import Shelf
from mayfly.images.hostile import NOBODY
from mayfly.images.lists.openssl import Signer
from mayfly.units import show_size

_ADDRESS = re.compile(r"(?:([0-9A-Za-z.-]+)|\[([0-9A-Fa-f:]+)\]):([0-9]{1,5})")


@image.command(
    "chunk",
    epilog=f"""\b
Examples:
  mayfly image chunk el9 /srv/www/images/el9.qcow2 --key key.pem --cert cert.pem

\b
PLACE is where the image file is published; beside it, PLACE{INDEX} (the signed index) and
PLACE{CONTENT} (all chunks) are written. Sign with the certificate that signs the list,
or that endorsed the image.
""",
)
@click.argument("name")
@click.argument("place", type=click.Path(path_type=Path))
@click.option("--key", required=True, type=click.Path(path_type=Path), help="Private key, PEM.")
@click.option("--cert", required=True, type=click.Path(path_type=Path), help="Certificate, PEM.")
@explaining
def chunk_image(name: str, place: Path, key: Path, cert: Path) -> None:
    """Publish an image in chunks, so that a new version is fetched as far as it is new."""
    catalogue = own_catalogue()
    steps = Steps(name)
    found = catalogue.find(name)
    signer = Signer(certificate=cert, key=key)
    index = publish(found, Shelf(catalogue=catalogue), signer, place, steps.watch)
    size = show_size(index.content_bytes)
    steps.note(f"{len(index.chunks)} chunks, {size}: {place}{INDEX}, {place}{CONTENT}")


@image.command(
    "serve",
    epilog="""\b
Examples:
  mayfly image serve --listen 192.0.2.10:7575

\b
Give chunks of the images here, also of those that are being pulled, to whoever can reach
the address: let it be one of the site's own network. The others name this host in their
setting 'neighbours'. Started by root it goes on as nobody.
""",
)
@click.option("--listen", required=True, metavar="ADDRESS:PORT", help="Where neighbours ask.")
@explaining
def serve_images(listen: str) -> None:
    """Give chunks of images to neighbours, until it is ended."""
    found = _ADDRESS.fullmatch(listen)
    if found is None or int(found[3]) > 65535:
        raise Invalid(f"'{listen}' is no ADDRESS:PORT", hint="write it as 192.0.2.10:7575")
    paths = Paths.for_user()
    holdings = Holdings(images=paths.image_dirs, downloads=chunk_downloads(paths.cache).directory)
    try:
        server = ChunkServer((found[1] or found[2], int(found[3])), holdings)
    except OSError as error:
        raise Conflict(
            f"cannot listen at {listen}: {os.strerror(error.errno or 0)}",
            hint="choose an address of this host, and a port that is free",
        ) from error
    if os.geteuid() == 0:
        become(NOBODY, NOBODY)
    with server:
        click.echo(f"serving at {listen}")
        server.serve_forever()
