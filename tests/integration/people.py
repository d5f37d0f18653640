"""Users and groups of a test's own, with names: batch systems look their users up.

A test that is killed leaves them behind; the next call takes them over.
"""

from __future__ import annotations

import contextlib
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Someone:
    """A user with a name."""

    name: str
    uid: int
    home: Path


@contextlib.contextmanager
def somebody(name: str, *, home: bool = True) -> Iterator[Someone]:
    """Give a user of this name, and one who has no home directory if need be."""
    place = Path(tempfile.mkdtemp(prefix=f"{name}-", dir="/var/tmp"))
    with contextlib.suppress(KeyError):
        pwd.getpwnam(name)
        subprocess.run(["userdel", name], check=True, capture_output=True)
    options = ["--home-dir", str(place), "--no-create-home", "--shell", "/bin/bash"]
    subprocess.run(
        ["useradd", *options, "--user-group", "--key", "UID_MIN=40000", name],
        check=True,
        capture_output=True,
    )
    try:
        entry = pwd.getpwnam(name)
        place.chmod(0o755)
        shutil.chown(place, entry.pw_uid, entry.pw_gid)
        if not home:
            place.rmdir()
        yield Someone(name=name, uid=entry.pw_uid, home=place)
    finally:
        subprocess.run(["userdel", name], check=False, capture_output=True)
        shutil.rmtree(place, ignore_errors=True)
