"""What an image is to become, as plain values: a recipe of ours, and what is put on top of it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any

from mayfly.images.build.recipe import Mirror, Recipe

SCRIPT_LIMIT_S = 1800.0
"""For one script, unless the recipe says otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedFile:
    """A file that is put into the image."""

    path: str
    content: bytes
    mode: int = 0o644
    owner: str = "root"
    group: str = "root"


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """A script that runs as root in the image while it is built."""

    name: str
    content: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class NewUser:
    """An account that the image has."""

    name: str
    uid: int | None = None
    groups: tuple[str, ...] = ()
    shell: str = "/bin/bash"
    home: str = ""
    """Empty: beneath /home."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What must hold in a machine that is made from the image."""

    name: str
    command: str
    """For ``sh -c``."""
    code: int = 0
    """The exit status that it must have."""
    output: str = ""
    """What must be in its output."""
    user: str = "root"
    """``root``, or ``user`` for an ordinary one."""
    limit_s: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pinned:
    """One package as it was, or must be, in an image."""

    name: str
    version: str
    architecture: str
    sha256: str = ""
    """Of its file; empty where the package lists did not have it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Blueprint:
    """Everything that goes into one image."""

    recipe: Recipe
    name: str = ""
    """Of the image; empty: as the recipe is called."""
    version: str = ""
    """Empty: the time at which it is admitted."""
    tags: tuple[str, ...] = ()
    files: tuple[PlacedFile, ...] = ()
    scripts: tuple[Script, ...] = ()
    users: tuple[NewUser, ...] = ()
    checks: tuple[Check, ...] = ()
    mirror: Mirror | None = None
    """None: that of the host, or of the recipe's own archive."""
    keyring: str = ""
    """File with the keys of another distribution; empty: where that has it."""
    pins: tuple[Pinned, ...] = ()
    """What a manifest demands; empty: whatever the mirror has."""
    script_limit_s: float = SCRIPT_LIMIT_S
    source: str = field(default="", compare=False)
    """The file that it was read from."""

    @property
    def title(self) -> str:
        """Name it for people."""
        return self.name or self.recipe.name

    @property
    def has_setup(self) -> bool:
        """Tell whether anything is done besides installing packages."""
        return bool(self.files or self.scripts or self.users)

    def digest(self) -> str:
        """Name everything that decides what comes out, but for the packages' files (SHA-256)."""
        values = asdict(self)
        # A manifest says which packages there must be, which is no more than that they are there.
        for apart in ("name", "version", "tags", "checks", "source", "mirror", "keyring", "pins"):
            del values[apart]
        del values["script_limit_s"]
        text = json.dumps(values, sort_keys=True, default=_plain)
        return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: object) -> Any:
    if isinstance(value, bytes):
        return hashlib.sha256(value).hexdigest()
    raise TypeError(type(value).__name__)
