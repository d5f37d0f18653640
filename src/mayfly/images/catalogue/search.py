"""Which images somebody looks for: by what is in their records."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable
from dataclasses import dataclass

from mayfly.model import Image

_WILD = frozenset("*?[")


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What an image must have; what is empty does not matter. ``*`` and ``?`` stand for letters."""

    text: str = ""
    """Part of its name, operating system, source or of a tag."""
    os: str = ""
    version: str = ""
    arch: str = ""
    tags: tuple[str, ...] = ()
    """All of these."""


def search(images: Iterable[Image], query: Query) -> list[Image]:
    """Give the images that fit, in their order."""
    return [image for image in images if fits(image, query)]


def fits(image: Image, query: Query) -> bool:
    """Tell whether an image has all that is asked for."""
    texts = (image.name, image.os, image.source, *image.tags)
    return (
        (not query.text or any(_has(text, query.text) for text in texts))
        and _is(image.os, query.os)
        and _is(image.version, query.version)
        and _is(image.arch, query.arch)
        and all(any(_is(tag, wanted) for tag in image.tags) for wanted in query.tags)
    )


def _has(text: str, part: str) -> bool:
    return _is(text, part if _WILD & set(part) else f"*{part}*")


def _is(text: str, pattern: str) -> bool:
    return not pattern or fnmatch.fnmatchcase(text.lower(), pattern.lower())
