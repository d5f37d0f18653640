"""Which of the host's directories may stand in a machine, and which are not copied there."""

from __future__ import annotations

from pathlib import Path

from mayfly.errors import Invalid
from mayfly.model import Account, ShareDir

NOT_COPIED = ("bin", "boot", "dev", "etc", "lib", "lib64", "proc", "run", "sbin", "sys", "usr")
"""Top directories of which nothing is copied over a guest's own unless it is asked for."""


def parse_share(text: str) -> ShareDir:
    """Read ``DIR`` or ``DIR:ro``; raises ``Invalid`` when it is no directory."""
    name, read_only = (text[:-3], True) if text.endswith(":ro") else (text, False)
    path = find_directory("--share", name)
    if path == Path("/"):
        raise Invalid("--share /: the whole file system cannot be shared", hint="name a directory")
    return ShareDir(path=path, read_only=read_only)


def find_directory(option: str, text: str) -> Path:
    """Give the directory that an option names; raises ``Invalid`` when there is none."""
    try:
        path = Path(text).expanduser().resolve()
        if text and path.is_dir():
            return path
    except (OSError, RuntimeError):
        pass  # A name that is too long, links in a circle, a user that there is not.
    raise Invalid(f"{option} {text}: there is no such directory")


def not_copied(path: Path, account: Account) -> str:
    """Say why a directory is not copied without being asked for; "" when it is."""
    if path == Path("/"):
        return "the whole file system"
    if path in (Path(account.home), Path(account.home).resolve()):
        return "the whole home directory"
    if path.parts[1] in NOT_COPIED:
        return "a system directory"
    if path in (Path("/tmp"), Path("/var/tmp"), Path("/var"), Path("/home")):  # noqa: S108
        return "a directory of many users"
    return ""
