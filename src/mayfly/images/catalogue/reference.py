"""How an image is named: ``NAME``, ``NAME@VERSION``, ``NAME@sha512:DIGEST``; and aliases.

A name without more means the version that was put in last. An alias is a small file that holds one
of these names; it never stands for another alias.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from mayfly.errors import Invalid, Untrusted

ALIASES = ".aliases"
DIGEST = "sha512:"
DIGEST_LEAST = 32
"""Hex digits that a pin must have: fewer could be met by an image that was made for it."""
LONGEST = 64 + 1 + len(DIGEST) + 128
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~-]{0,63}")
_HEX = re.compile(rf"[0-9a-f]{{{DIGEST_LEAST},128}}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """An image as somebody names it."""

    name: str
    version: str = ""
    sha512: str = ""
    """The beginning of the digest, or all of it."""

    @property
    def is_pinned(self) -> bool:
        """Tell whether more than a name was given."""
        return bool(self.version or self.sha512)

    def __str__(self) -> str:
        """Give it as it is typed."""
        after = f"{DIGEST}{self.sha512}" if self.sha512 else self.version
        return f"{self.name}@{after}" if after else self.name


def check_name(name: str) -> str:
    """Give the name back, or refuse it."""
    if not _NAME.fullmatch(name):
        raise Invalid(
            f"'{name}' is not a name for an image",
            hint="at most 64 of a-z 0-9 . _ -, the first a letter or digit",
        )
    return name


def is_name(text: str) -> bool:
    """Tell whether an image could have this name."""
    return _NAME.fullmatch(text) is not None


def is_version(text: str) -> bool:
    """Tell whether this version can be typed after a name."""
    return _VERSION.fullmatch(text) is not None


def parse_reference(text: str) -> Reference:
    """Read how an image was named; raises ``Invalid``."""
    name, at, after = text.partition("@")
    check_name(name)
    if not at:
        return Reference(name=name)
    if after.startswith(DIGEST):
        digest = after[len(DIGEST) :].lower()
        if not _HEX.fullmatch(digest):
            raise Invalid(
                f"'{text[:300]}' does not pin an image",
                hint=f"after {DIGEST} stand {DIGEST_LEAST} to 128 hexadecimal digits",
            )
        return Reference(name=name, sha512=digest)
    if not is_version(after):
        raise Invalid(
            f"'{text[:300]}' does not name a version",
            hint="write NAME, NAME@VERSION or NAME@sha512:DIGEST; 'mayfly image list --all' "
            "shows the versions that are here",
        )
    return Reference(name=name, version=after)


def title_of(name: str, version: str, sha512: str) -> str:
    """Name a version that is not the newest, so that the same is found when it is typed."""
    after = version if is_version(version) else f"{DIGEST}{sha512[:DIGEST_LEAST]}"
    return f"{name}@{after}"


def read_alias(directory: Path, name: str) -> Reference | None:
    """Give what a name stands for among the aliases of one directory of images."""
    try:
        with open(directory / ALIASES / name, encoding="utf-8") as file:
            text = file.read(LONGEST + 2).strip()
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise Untrusted(f"the alias '{name}' cannot be read: {error}") from error
    try:
        return parse_reference(text)
    except Invalid as error:
        raise Untrusted(
            f"the alias '{name}' is damaged: {error.message}",
            hint=f"'mayfly image alias {name} IMAGE --force' writes it anew",
        ) from error
