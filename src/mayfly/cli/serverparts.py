"""What the commands of the site's servers share: their settings' file, and what only they need."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import click

from mayfly.errors import Missing

CONFIG = Path("/etc/mayfly/server.toml")

config_option = click.option(
    "--config",
    type=click.Path(path_type=Path),
    help=f"Settings of the server [default: {CONFIG}, if there].",
)


def parts_of(module: str, what: str) -> ModuleType:
    """Import what only a server needs; raises ``Missing`` where it is not installed.

    Not at the top of a command's file: hosts without a server have not all of it.
    """
    try:
        return importlib.import_module(f"mayfly.{module}")
    except ModuleNotFoundError as error:
        raise Missing(
            f"{what} needs the Python package '{error.name}'",
            hint="pip install 'mayfly[server]'",
        ) from error


def settings_file(config: Path | None) -> Path | None:
    """Give the file that was named, or the usual one if there is one."""
    return CONFIG if config is None and CONFIG.exists() else config
