"""When an image was last used: a small file beside the images, whose time says it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from mayfly.model import Image


def mark_used(image: Image) -> None:
    """Note that an image is used now; costs microseconds, and nothing if it may not be."""
    file = mark_of(image.disk.parent, ".use")
    with contextlib.suppress(OSError):
        try:
            os.utime(file)
        except FileNotFoundError:
            file.parent.mkdir(mode=0o755, exist_ok=True)
            file.touch()


def last_used(image: Image) -> float:
    """Give when an image was last used, as far as that is known; at least when it was made."""
    times = [image.disk.parent.stat().st_mtime]
    with contextlib.suppress(OSError):
        times.append(mark_of(image.disk.parent, ".use").lstat().st_mtime)
    with contextlib.suppress(OSError):
        times.append(image.disk.lstat().st_atime)
    return max(times)


def mark_of(place: Path, kind: str) -> Path:
    """Give the file that notes something of the image in this directory."""
    return place.parent / kind / place.name


def forget(place: Path) -> None:
    """Remove what was noted of an image that is gone."""
    for kind in (".use", ".pin"):
        mark_of(place, kind).unlink(missing_ok=True)
