"""ClassAds as text: what the wrapper and root's program read of them, and nothing more.

The long form, ``Name = value`` in lines, as ``condor_status -long`` and the files of a job have it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from mayfly.batch.wish import OPTIONS

_LINE = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_.]*)\s*=\s*(.*?)\s*")
_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"')
_NUMBER = re.compile(r"-?[0-9]{1,15}(?:\.[0-9]*)?")
ATTRIBUTES: Mapping[str, str] = {name: f"VM{name.capitalize()}" for name in OPTIONS}
"""An option's name, and the attribute of a job in which it stands."""


def parse_ad(text: str) -> dict[str, str]:
    """Read an ad: by its names in small letters, strings without their quotes.

    Expressions stay as they are written.
    """
    found = {}
    for line in text.splitlines():
        match = _LINE.fullmatch(line)
        if match:
            found[match[1].lower()] = _plain(match[2])
    return found


def _plain(value: str) -> str:
    match = _STRING.fullmatch(value)
    if match is None:
        return value
    parts = _ESCAPE.split(match[1])
    # Every second one is what stood behind a backslash: a sign, or a byte in octal digits.
    told = [
        _sign(part) if number % 2 else part.encode("utf-8", "surrogateescape")
        for number, part in enumerate(parts)
    ]
    return b"".join(told).decode("utf-8", "replace")


_ESCAPE = re.compile(r"\\([0-7]{1,3}|.)")
_SIGNS = {"n": b"\n", "t": b"\t", "r": b"\r", "b": b"\b", "f": b"\f"}


def _sign(text: str) -> bytes:
    if text[0] in "01234567":
        return bytes([int(text, 8) & 0xFF])
    return _SIGNS.get(text, text.encode("utf-8", "surrogateescape"))


def whole(ad: Mapping[str, str], name: str, otherwise: int = 0) -> int:
    """Give a number of an ad."""
    text = ad.get(name.lower(), "")
    return int(float(text)) if _NUMBER.fullmatch(text) else otherwise


def options_of(ad: Mapping[str, str]) -> dict[str, str]:
    """Give the options that a job's ad names."""
    told = {}
    for name, attribute in ATTRIBUTES.items():
        value = ad.get(attribute.lower())
        if value is not None and value.lower() != "undefined":
            told[name] = value
    return told


def quoted(text: str) -> str:
    """Give a string as ClassAds write it."""
    plain = "".join(sign if sign.isprintable() else " " for sign in text)
    return '"' + plain.replace("\\", "\\\\").replace('"', '\\"') + '"'
