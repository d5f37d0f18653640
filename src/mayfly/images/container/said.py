"""What a container image said about running it, kept beside the disk that was made of it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from mayfly.errors import Untrusted
from mayfly.images.container.oci import Config

CONFIG = "container.json"


def write_said(directory: Path, config: Config) -> None:
    """Keep it; Mayfly applies the variables, and nothing else of it."""
    (directory / CONFIG).write_text(json.dumps(asdict(config), indent=2) + "\n")


def read_said(directory: Path) -> Config | None:
    """Give it; None when the image was made of no container image."""
    try:
        table = json.loads((directory / CONFIG).read_bytes())
        said = Config(
            diff_ids=tuple(table["diff_ids"]),
            env=tuple(table["env"]),
            working_dir=table["working_dir"],
            user=table["user"],
            entrypoint=tuple(table["entrypoint"]),
            cmd=tuple(table["cmd"]),
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError, LookupError, TypeError) as error:
        raise _damaged(directory) from error
    words = (*said.diff_ids, *said.env, *said.entrypoint, *said.cmd, said.working_dir, said.user)
    if not all(isinstance(word, str) for word in words):
        raise _damaged(directory)
    return said


def _damaged(directory: Path) -> Untrusted:
    return Untrusted(f"{directory / CONFIG} is damaged", hint="import the image again with --force")
