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
from mayfly.errors import Failed, Missing

log = logging.getLogger("mayfly.images")

_PREFIX = "mayfly-build-"


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
    if not parent.is_dir():
        raise Missing(f"there is no directory {parent} to build in", hint="TMPDIR names it")
    sweep(parent)
    top, descriptor = _new(parent)
    try:
        top.chmod(0o711)
        place = Scratch(top=top, lock=descriptor)
        for directory, mode in ((place.tree, 0o755), (place.private, 0o700)):
            directory.mkdir()
            directory.chmod(mode)  # whatever the umask is: the tree becomes the guest's root
        yield place
    finally:
        _try_to_delete(top, "a build that has ended")
        os.close(descriptor)


def sweep(parent: Path) -> None:
    """Delete what killed builds of this user left: the directories that nobody holds a lock of."""
    for top in parent.glob(f"{_PREFIX}*"):
        descriptor = _lock(top)
        if descriptor is None:
            continue
        _try_to_delete(top, "a build that was killed")
        os.close(descriptor)


def _new(parent: Path) -> tuple[Path, int]:
    """Make a directory and lock it; another build's sweep may be faster, and then deletes it."""
    while True:
        top = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        descriptor = _lock(top)
        if descriptor is not None:
            return top, descriptor


def _lock(top: Path) -> int | None:
    """Lock a directory; None when another holds it, or it is gone, or no directory of ours."""
    try:
        descriptor = os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None
    found = os.fstat(descriptor)
    try:
        if found.st_uid == os.geteuid():
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Who had the lock before may have deleted the directory meanwhile.
            if os.path.samestat(found, os.lstat(top)):
                return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    except OSError:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def _try_to_delete(top: Path, whose: str) -> None:
    """Delete; what stays is no reason to lose a finished build, and the next build tries again."""
    try:
        _delete(top)
    except FileNotFoundError:
        pass  # It is gone, as was wanted.
    except (OSError, Failed) as error:
        log.warning("cannot delete %s, left by %s: %s", top, whose, error)


def _delete(top: Path) -> None:
    tree = top / "tree"
    if os.geteuid() != 0 and tree.exists() and tree.stat().st_uid != os.geteuid():
        # Deletes everything beneath; the last step fails, as the parent is ours, and is done here.
        argv = ["find", str(tree), "-xdev", "-mindepth", "1", "-delete"]
        run(in_namespace(argv), timeout_s=300, cwd="/", check=False)
        tree.rmdir()
    shutil.rmtree(top)
