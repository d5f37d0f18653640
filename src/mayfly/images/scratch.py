"""The directory that a build works in, and getting rid of it: also of one left by a killed build.

In a user namespace the tree's files belong to subordinate ids, so the user alone cannot delete
them, and the directory must be one that those ids can reach: not beneath a private home.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mayfly.command import run
from mayfly.errors import Failed

log = logging.getLogger("mayfly.images")

_PREFIX = "mayfly-build-"
_LOCK = "lock"


def in_namespace(argv: list[str]) -> list[str]:
    """Give the command that runs ``argv`` as the owner of the tree's files."""
    return argv if os.geteuid() == 0 else ["mmdebstrap", "--unshare-helper", *argv]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scratch:
    """Room for one build."""

    top: Path
    lock: int
    """Descriptor to hand on to every child: the room is free when the last of them has ended."""

    @property
    def tree(self) -> Path:
        """Give where the root tree is made; it may belong to subordinate ids."""
        return self.top / "tree"

    @property
    def private(self) -> Path:
        """Give a directory that only the calling user can enter."""
        return self.top / "private"


@contextmanager
def scratch(parent: Path | None = None) -> Iterator[Scratch]:
    """Make room for a build, and leave nothing of it behind."""
    # /tmp is often memory; a build takes more than a gigabyte.
    parent = parent or Path(os.environ.get("TMPDIR") or "/var/tmp")  # noqa: S108
    sweep(parent)
    top = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    descriptor = _lock(top)
    assert descriptor is not None, "a new directory is nobody else's"
    try:
        top.chmod(0o711)
        place = Scratch(top=top, lock=descriptor)
        place.tree.mkdir()
        place.private.mkdir(mode=0o700)
        yield place
    finally:
        _delete(top)
        os.close(descriptor)


def sweep(parent: Path) -> None:
    """Delete what killed builds of this user left: the directories that nobody holds a lock of."""
    for top in parent.glob(f"{_PREFIX}*"):
        if top.is_symlink() or top.lstat().st_uid != os.geteuid():
            continue
        descriptor = _lock(top)
        if descriptor is None:
            continue
        try:
            _delete(top)
        except (OSError, Failed) as error:
            log.warning("cannot delete %s, left by a build that was killed: %s", top, error)
        os.close(descriptor)


def _lock(top: Path) -> int | None:
    descriptor = os.open(top / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _delete(top: Path) -> None:
    tree = top / "tree"
    if os.geteuid() != 0 and tree.exists() and tree.stat().st_uid != os.geteuid():
        # Deletes everything beneath; the last step fails, as the parent is ours, and is done here.
        argv = ["find", str(tree), "-xdev", "-mindepth", "1", "-delete"]
        run(in_namespace(argv), timeout_s=300, cwd="/", check=False)
        tree.rmdir()
    shutil.rmtree(top)
