"""What building images needs of the host besides programs, each with the command that mends it."""

from __future__ import annotations

import os
import pwd
import shutil
from pathlib import Path

from mayfly.images.build import grub
from mayfly.model import Finding

SUBORDINATE_UIDS, SUBORDINATE_GIDS = Path("/etc/subuid"), Path("/etc/subgid")
_FIRST, _COUNT = 100_000, 65_536
"""As adduser(8) gives them: the first one, and how many each user gets."""


def boot_loader() -> Finding:
    """Look for GRUB's files for BIOS machines; grub-mkimage alone comes without them."""
    there = grub.is_installed()
    boot = grub.GRUB_DIRECTORY / "boot.img"
    return Finding(
        name="boot.img",
        ok=there,
        detail=str(boot) if there else f"{boot} is missing; needed for image build",
        mend=f"apt-get install {grub.PACKAGE}",
        needed=False,
    )


def subordinate_ids(path: str | None = None) -> list[Finding]:
    """Look for what gives an ordinary user the ids of a whole guest; root needs none of it.

    ``path`` is where programs are looked for.
    """
    if os.geteuid() == 0:
        return []
    program = shutil.which("newuidmap", path=path)
    tool = Finding(
        name="newuidmap",
        ok=program is not None,
        detail=program or "newuidmap is missing; needed for image build",
        mend="apt-get install uidmap",
        needed=False,
    )
    return [tool, *_ranges()]


def _ranges() -> list[Finding]:
    try:
        name = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        name = ""
    first = _first_free()
    found = []
    for file, option in ((SUBORDINATE_UIDS, "--add-subuids"), (SUBORDINATE_GIDS, "--add-subgids")):
        own = [entry for entry in _entries(file) if entry[0] in (name, str(os.geteuid()))]
        good = f"{own[0][2]} ids from {own[0][1]} on" if own else ""
        bad = f"{name} has no range in {file}; needed for image build"
        if not name:
            bad = f"user id {os.geteuid()} has no account; needed for image build"
        finding = Finding(
            name=str(file),
            ok=bool(own and name),
            detail=good if name and own else bad,
            mend=f"usermod {option} {first}-{first + _COUNT - 1} {name or 'USER'}",
            needed=False,
        )
        found.append(finding)
    return found


def _first_free() -> int:
    """Give where a range may begin that nobody has, in either file."""
    entries = [*_entries(SUBORDINATE_UIDS), *_entries(SUBORDINATE_GIDS)]
    return max((start + count for _, start, count in entries), default=_FIRST)


def _entries(file: Path) -> list[tuple[str, int, int]]:
    """Read who has which range; a line that is none is passed over, as newuidmap(1) does."""
    try:
        lines = file.read_text("utf-8", "replace").splitlines()
    except OSError:
        return []
    fields = [line.split(":") for line in lines]
    return [
        (words[0], int(words[1]), int(words[2]))
        for words in fields
        if len(words) == 3 and words[1].isdecimal() and words[2].isdecimal()
    ]
