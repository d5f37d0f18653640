"""Whether a disk has room for what is about to be written."""

from __future__ import annotations

import shutil
from pathlib import Path

from mayfly.errors import Quota
from mayfly.units import show_size

MORE_ROOM = "free some; TMPDIR moves the work of a build, MAYFLY_HOME the images"


def check_room(directory: Path, wanted: int) -> None:
    """Refuse to begin where there is not enough room."""
    free = shutil.disk_usage(directory).free
    if free < wanted:
        raise Quota(
            f"{directory} has {show_size(free)} free, and about {show_size(wanted)} are needed",
            hint=MORE_ROOM,
        )
