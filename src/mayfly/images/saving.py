"""An image made of a prepared machine: its disk, flattened, with its identity stripped before."""

from __future__ import annotations

from collections.abc import Sequence

from mayfly.images.catalogue import Draft
from mayfly.images.catalogue.record import Facts
from mayfly.images.flatten import flatten
from mayfly.images.follow import Report
from mayfly.images.hostile import converter
from mayfly.model import Image


def admit_machine(
    draft: Draft,
    layers: Sequence[int],
    image: Image,
    *,
    machine: str,
    marks: tuple[str, tuple[str, ...]],
    report: Report,
) -> Image:
    """Make the draft's disk of a machine that stands still, and admit it.

    ``layers`` are descriptors of its files above ``image``, top first; ``marks`` is the version,
    or "", and the tags that it gets.
    """
    flatten(layers, image, draft, report)
    report("hash", None)
    version, tags = marks
    steps = (
        f"made of {image.pin}",
        f"prepared in machine {machine}, and stripped of its identity by the agent there",
        f"{len(layers)} layers flattened by {converter()}",
    )
    facts = Facts(
        os=image.os,
        source=f"machine {machine} of {image.name}",
        disk_bytes=image.disk_bytes,
        arch=image.arch,
        version=version,
        tags=tags,
        derived=steps,
    )
    return draft.admit(facts)
