"""Make the disk of the catalogue, a self-contained qcow2, from a disk of any known format."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from mayfly.images.follow import Report, follow

_TIMEOUT_S = 4 * 3600.0


def convert_argv(source: str, source_format: str, target: Path) -> list[str]:
    """Give the command; the format is always said, never guessed from the content."""
    return [
        "qemu-img",
        "convert",
        *("-p", "-f", source_format, "-O", "qcow2"),
        *("-o", "compat=1.1,lazy_refcounts=off"),
        source,
        str(target),
    ]


def convert(
    source: str,
    source_format: str,
    target: Path,
    *,
    report: Report,
    guard: tuple[str, ...] = (),
    pass_fds: tuple[int, ...] = (),
) -> None:
    """Convert a disk."""
    report("convert", None)
    follow(
        convert_argv(source, source_format, target),
        timeout_s=_TIMEOUT_S,
        on_line=partial(tell, report, "convert"),
        pass_fds=pass_fds,
        guard=guard,
    )


def tell(report: Report, phase: str, line: str) -> None:
    """Report how far qemu-img is, when this line of its output says so."""
    match = re.fullmatch(r"\((\d+(?:\.\d+)?)/100%\)", line)
    if match:
        report(phase, float(match[1]) / 100)
