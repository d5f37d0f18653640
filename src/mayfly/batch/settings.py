"""What the site says about jobs in machines: ``batch.toml``."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mayfly.errors import Invalid
from mayfly.host.client import SOCKET
from mayfly.model import ShareDir

BATCH_CONFIG = Path("/etc/mayfly/batch.toml")
TRIES_MOST = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchSettings:
    """All settings; ``docs/reference/batch.md`` has a line for each."""

    enabled: bool = True
    """The one switch: without it no job gets a machine."""
    live: tuple[ShareDir, ...] = ()
    """Directories of the site that are live in every machine."""
    socket: Path = SOCKET
    """Where the host service listens."""
    tries: int = 3
    """How often a job is begun again when Mayfly failed, before it fails."""


def load_batch_settings(file: Path | None = None) -> BatchSettings:
    """Read the file, or the site's if there is one; raises ``Invalid`` naming file and key."""
    if file is None:
        file = BATCH_CONFIG
        if not os.path.exists(file):
            return BatchSettings()
    try:
        values = tomllib.loads(file.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Invalid(f"{file} is not TOML: {error}") from error
    except OSError as error:
        raise Invalid(f"cannot read {file}: {error.strerror}") from error
    for key in values:
        if key not in _READERS:
            raise Invalid(f"{file}: no such setting '{key}'", hint=f"known: {', '.join(_READERS)}")
    read: dict[str, Any] = {key: _READERS[key](file, key, values[key]) for key in values}
    return BatchSettings(**read)


def _flag(file: Path, key: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise Invalid(f"{file}: '{key}' must be true or false, not {value!r}")
    return value


def _tries(file: Path, key: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= TRIES_MOST:
        raise Invalid(f"{file}: '{key}' must be from 0 to {TRIES_MOST}, not {value!r}")
    return value


def _path(file: Path, key: str, value: object) -> Path:
    if not isinstance(value, str) or not value.startswith("/") or "\0" in value:
        raise Invalid(f"{file}: '{key}' must be a path from / on, not {value!r}")
    return Path(value)


def _live(file: Path, key: str, value: object) -> tuple[ShareDir, ...]:
    if not isinstance(value, list):
        raise Invalid(f"{file}: '{key}' must be a list such as [\"/home\"], not {value!r}")
    return tuple(parse_live(_path(file, key, item)) for item in value)


def parse_live(path: Path) -> ShareDir:
    """Read ``DIR`` or ``DIR:ro``; whether it is there is seen where a job runs."""
    text = str(path)
    read_only = text.endswith(":ro")
    return ShareDir(path=Path(text[:-3] if read_only else text), read_only=read_only)


_READERS: Mapping[str, Any] = {
    "enabled": _flag,
    "live": _live,
    "socket": _path,
    "tries": _tries,
}
