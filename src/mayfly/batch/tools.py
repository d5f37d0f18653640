"""How root's programs find a batch system's own commands."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

ROOT_PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")


def tools_of(command: str, *variables: str) -> dict[str, str]:
    """Give how root's programs find a command, as the admin who installs them does."""
    found = shutil.which(command)
    own = [str(Path(found).absolute().parent)] if found else []
    named = {name: os.environ[name] for name in variables if os.environ.get(name)}
    return {**named, "PATH": ":".join([*own, *ROOT_PATH])}
