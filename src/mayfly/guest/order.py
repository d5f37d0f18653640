"""What a session is asked to do: the ``start`` message, read into values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mayfly.guest import fields
from mayfly.guest.fields import Refused
from mayfly.guest.files import read_text
from mayfly.guest.job import LIMITS, PATH, Credentials, Spec

IMAGE_VARIABLES = "/usr/lib/mayfly/environ"
_OF_THE_USER = (b"HOME", b"USER", b"LOGNAME", b"SHELL", b"HOSTNAME")
SIDE_LIMIT = (1 << 16) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Workdir:
    """Files that travel with the job."""

    path: bytes
    bring: bool
    """Unpack what the host sends before the job starts."""
    fetch: bool
    """Send back what the job changed."""
    deletions: bool
    """Tell what the job deleted, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One job, with its files."""

    spec: Spec
    workdir: Workdir | None


def parse_order(message: dict[str, Any], user: Callable[[bool], Credentials]) -> Order:
    """Read a start message; ``user(as_root)`` gives whom the job runs as, or refuses."""
    credentials = user(fields.flag(message, "root"))
    argv = tuple(fields.raw(argument, "argv") for argument in fields.items(message, "argv"))
    if not argv or not argv[0]:
        raise Refused("'argv' is empty")
    window = fields.record(message, "tty")
    spec = Spec(
        argv=argv,
        env=_environment(message, credentials),
        cwd=fields.path(message, "cwd"),
        umask=fields.number(message, "umask", high=0o777),
        limits=_limits(fields.record(message, "limits") or {}),
        window=None if window is None else parse_window(window),
        stdin=fields.flag(message, "stdin"),
        credentials=credentials,
    )
    workdir = fields.record(message, "workdir")
    return Order(spec=spec, workdir=None if workdir is None else _workdir(workdir))


def parse_window(message: dict[str, Any]) -> tuple[int, int]:
    """Read rows and columns."""
    rows = fields.number(message, "rows", high=SIDE_LIMIT)
    return rows, fields.number(message, "cols", high=SIDE_LIMIT)


def _environment(message: dict[str, Any], credentials: Credentials) -> dict[bytes, bytes]:
    env = {
        b"HOME": credentials.home,
        b"USER": credentials.name,
        b"LOGNAME": credentials.name,
        b"SHELL": credentials.login_shell,
        b"PATH": PATH,
        **image_variables(),
        **credentials.variables,
    }
    for name, value in (fields.record(message, "env") or {}).items():
        key = fields.raw(name, "env")
        if not key or b"=" in key:
            raise Refused(f"'{name}' cannot be the name of a variable")
        env[key] = fields.raw(value, "env")
    return env


def image_variables(path: str = IMAGE_VARIABLES) -> dict[bytes, bytes]:
    """Give what an image that was a container has for its programs, as /proc/PID/environ has it.

    Who the user is, is not for the image to say.
    """
    entries = read_text(path).encode("utf-8", "surrogateescape").split(b"\0")
    pairs = [entry.partition(b"=") for entry in entries]
    return {key: value for key, _, value in pairs if key and key not in _OF_THE_USER}


def _limits(record: dict[str, Any]) -> tuple[tuple[int, tuple[int, int]], ...]:
    found = []
    for name, pair in record.items():
        if not isinstance(pair, list) or len(pair) != 2:
            raise Refused(f"the limit '{name}' must be a pair")
        soft, hard = (_limit(name, value) for value in pair)
        # A limit that this kernel does not have cannot be exceeded either.
        if name in LIMITS:
            found.append((LIMITS[name], (soft, hard)))
    return tuple(found)


def _limit(name: str, value: object) -> int:
    if type(value) is not int or not -1 <= value < 1 << 63:
        raise Refused(f"the limit '{name}' must be whole numbers; -1 is none")
    return value


def _workdir(record: dict[str, Any]) -> Workdir:
    return Workdir(
        path=fields.path(record, "path"),
        bring=fields.flag(record, "in"),
        fetch=fields.flag(record, "out"),
        deletions=fields.flag(record, "sync_delete"),
    )
