"""Write an image list as vmcaster does: ASCII, keys sorted, nothing that is required left empty."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mayfly.errors import Invalid
from mayfly.images.lists import keys
from mayfly.images.lists.model import Endorser, ImageList, ListedImage, Revocation, show_time


def render_list(images: ImageList) -> bytes:
    """Give the text of a list; what cannot be read back is not looked for here."""
    table: dict[str, Any] = {
        **images.extra,
        **_texts(images, keys.LIST_TEXT),
        keys.IDENTIFIER: images.identifier,
        keys.CREATED: show_time(images.created_at),
        keys.EXPIRES: show_time(images.expires_at),
        keys.ENDORSER: _endorser(images.endorser),
        keys.IMAGES: [{keys.IMAGE: _image(image)} for image in images.images],
    }
    if images.revoked:
        table[keys.REVOKED] = [_revocation(each) for each in images.revoked]
    return _text({keys.WRAPPER: table} if images.wrapped else table)


def render_image(image: ListedImage, endorser: Endorser) -> bytes:
    """Give the text that an image endorser signs."""
    return _text({keys.IMAGE: _image(image), keys.ENDORSER: _endorser(endorser)})


def check_complete(images: ImageList) -> None:
    """Refuse to publish a list that vmcaster or vmcatcher would not take. Raises ``Invalid``."""
    lacking = _empty("the list", images, keys.LIST_TEXT)
    lacking += _empty("its endorser", images.endorser, keys.ENDORSER_TEXT)
    for image in images.images:
        lacking += _empty(f"image {image.title or image.identifier}", image, keys.IMAGE_TEXT)
    if lacking:
        raise Invalid(
            f"the list is not complete: {'; '.join(lacking[:5])}",
            hint="the format wants all of these, and readers of it refuse empty ones",
        )


def _empty(what: str, value: object, fields: Mapping[str, str]) -> list[str]:
    return [f"{what} has no {key}" for key, field in fields.items() if not getattr(value, field)]


def _texts(value: object, fields: Mapping[str, str]) -> dict[str, str]:
    return {key: getattr(value, field) for key, field in fields.items()}


def _endorser(endorser: Endorser) -> dict[str, Any]:
    return {keys.X509: {**endorser.extra, **_texts(endorser, keys.ENDORSER_TEXT)}}


def _image(image: ListedImage) -> dict[str, Any]:
    table: dict[str, Any] = {
        **image.extra,
        **_texts(image, keys.IMAGE_TEXT),
        keys.IDENTIFIER: image.identifier,
        keys.SHA512: image.sha512,
        keys.SIZE: image.size_bytes,
    }
    if image.format:
        table[keys.FORMAT] = image.format
    if image.expires_at:
        table[keys.EXPIRES] = show_time(image.expires_at)
    if image.endorsement:
        table[keys.ENDORSEMENT] = image.endorsement
    return table


def _revocation(revoked: Revocation) -> dict[str, Any]:
    return {
        keys.IDENTIFIER: revoked.identifier,
        "hv:version": revoked.version,
        keys.SHA512: revoked.sha512,
        "reason": revoked.reason,
        "date": show_time(revoked.revoked_at),
    }


def _text(table: dict[str, Any]) -> bytes:
    # ASCII, and no line for S/MIME to change but the ends of lines.
    return (json.dumps(table, indent=4, sort_keys=True) + "\n").encode("ascii")
