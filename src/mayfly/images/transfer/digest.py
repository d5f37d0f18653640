"""Digests as ``sha512:0123…``: which file is meant, whoever has it."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Any

from mayfly.errors import Invalid

_DIGITS = {"sha256": 64, "sha512": 128}


@dataclass(frozen=True, slots=True, kw_only=True)
class Digest:
    """What a file's content must hash to."""

    algorithm: str
    """``sha256`` or ``sha512``."""
    hex: str

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"

    @property
    def short(self) -> str:
        """Give enough of it for people."""
        return f"{self.algorithm}:{self.hex[:12]}…"


def parse_digest(text: str) -> Digest:
    """Read ``sha256:…`` or ``sha512:…``; raises ``Invalid``."""
    algorithm, colon, digits = text.partition(":")
    length = _DIGITS.get(algorithm)
    if not colon or length is None or not re.fullmatch(rf"[0-9a-f]{{{length}}}", digits):
        raise Invalid(
            f"'{text[:160]}' is no digest",
            hint="it is sha256: and 64, or sha512: and 128, of 0-9 a-f",
        )
    return Digest(algorithm=algorithm, hex=digits)


def parse_sha512(text: str) -> Digest:
    """Read a SHA-512 as people copy it: with or without its name, in any case."""
    plain = text.strip().lower()
    return parse_digest(plain if plain.startswith("sha512:") else f"sha512:{plain}")


def hasher(algorithm: str = "sha512") -> Any:
    """Give what a digest is computed with."""
    return hashlib.new(algorithm, usedforsecurity=True)
