"""How a list is shown to people and to scripts; the words in it are somebody else's."""

from __future__ import annotations

from typing import Any

import click

from mayfly.cli.output import plain
from mayfly.images.lists.model import ImageList, ListedImage, show_time
from mayfly.units import show_size


def list_as_json(images: ImageList) -> dict[str, Any]:
    """Give a list for scripts."""
    return {
        "identifier": images.identifier,
        "version": images.version,
        "title": images.title,
        "description": images.description,
        "source": images.source,
        "uri": images.uri,
        "created_at": show_time(images.created_at),
        "expires_at": show_time(images.expires_at),
        "endorser": {"dn": images.endorser.dn, "ca": images.endorser.ca},
        "images": [image_as_json(each) for each in images.images],
        "faults": [
            {"place": each.place, "title": each.title, "refusal": str(each.refusal)}
            for each in images.faults
        ],
        "revoked": [
            {
                "identifier": each.identifier,
                "version": each.version,
                "sha512": each.sha512,
                "reason": each.reason,
                "revoked_at": show_time(each.revoked_at),
            }
            for each in images.revoked
        ],
    }


def image_as_json(image: ListedImage) -> dict[str, Any]:
    """Give an image of a list for scripts."""
    return {
        "identifier": image.identifier,
        "title": image.title,
        "version": image.version,
        "sha512": image.sha512,
        "size_bytes": image.size_bytes,
        "uri": image.uri,
        "format": image.format,
        "arch": image.arch,
        "os": f"{image.os} {image.os_version}".strip(),
        "expires_at": show_time(image.expires_at) if image.expires_at else None,
        "endorsed": bool(image.endorsement),
    }


def show_list(images: ImageList) -> None:
    """Print a list."""
    for key, value in {
        "title": images.title,
        "identifier": images.identifier,
        "version": images.version,
        "made": show_time(images.created_at),
        "expires": show_time(images.expires_at),
        "endorser": images.endorser.dn,
        "issued by": images.endorser.ca,
        "published": images.uri,
    }.items():
        click.echo(f"{key:<11} {plain(value)}")
    for image in images.images:
        word = ", with its endorser's word" if image.endorsement else ""
        click.echo(f"\n{plain(image.title)} {image.version}{word}")
        click.echo(f"  {image.identifier}, {show_size(image.size_bytes)}, {plain(image.arch)}")
        click.echo(f"  {plain(image.uri)}\n  sha512 {image.sha512}")
    for fault in images.faults:
        click.echo(
            f"\nleft out: {plain(fault.title or fault.identifier)}: {plain(str(fault.refusal))}"
        )
    for revoked in images.revoked:
        click.echo(f"\ntaken back at {show_time(revoked.revoked_at)}: {plain(revoked.reason)}")
        click.echo(f"  {revoked.identifier}, version {revoked.version}\n  sha512 {revoked.sha512}")
