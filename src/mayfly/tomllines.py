"""Find the lines on which the keys of a TOML text stand, which Python's own reader does not tell.

The text must have been read by ``tomllib`` before: what is valid is only looked through here, so a
key that is missed costs a less exact line number, and nothing else.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping

Path = tuple[str | int, ...]

_PART = r"""(?:[A-Za-z0-9_-]+|"(?:\\.|[^"\\])*"|'[^']*')"""
_KEY = re.compile(rf"\s*({_PART}(?:\s*\.\s*{_PART})*)\s*")
_LONG = ('"""', "'''")


def find_lines(text: str) -> dict[Path, int]:
    """Give the line, from 1, of each table and key; the first ``[[a]]`` is ``("a", 0)``."""
    lines: dict[Path, int] = {}
    counts: dict[Path, int] = {}
    prefix: Path = ()
    value = _Value()
    for number, line in enumerate(text.split("\n"), start=1):
        if value.is_open:
            value.read(line)
            continue
        found = _header(line)
        if found is not None:
            keys, many = found
            prefix = _beneath(counts, keys)
            if many:
                counts[prefix] = counts.get(prefix, -1) + 1
                prefix = (*prefix, counts[prefix])
            lines.setdefault(prefix, number)
            continue
        key = _KEY.match(line)
        if key is not None and line[key.end() : key.end() + 1] == "=":
            lines.setdefault((*prefix, *_parts(key[1])), number)
            value.read(line[key.end() + 1 :])
    return lines


def line_of(lines: Mapping[Path, int], path: Path) -> int:
    """Give the line of a key, or of the nearest table around it, or of the first thing in that."""
    for length in range(len(path), 0, -1):
        if path[:length] in lines:
            return lines[path[:length]]
    return min((line for key, line in lines.items() if key[:1] == path[:1]), default=1)


def _header(line: str) -> tuple[tuple[str, ...], bool] | None:
    """Read ``[a.b]`` or ``[[a.b]]``, and tell which of them it is."""
    bare = line.lstrip()
    opening = "[[" if bare.startswith("[[") else "[" if bare.startswith("[") else ""
    if not opening:
        return None
    key = _KEY.match(bare, len(opening))
    if key is None or not bare.startswith("]" * len(opening), key.end()):
        return None
    return _parts(key[1]), opening == "[["


def _parts(key: str) -> tuple[str, ...]:
    """Give the parts of a dotted key; tomllib knows about quotes and escapes."""
    try:
        table: object = tomllib.loads(f"{key} = 0")
    except tomllib.TOMLDecodeError:
        return (key,)
    parts: list[str] = []
    while isinstance(table, dict):
        ((part, table),) = table.items()
        parts.append(part)
    return tuple(parts)


def _beneath(counts: Mapping[Path, int], keys: tuple[str, ...]) -> Path:
    """Give where a header leads: within arrays, to the table that came last."""
    path: Path = ()
    for place, key in enumerate(keys):
        path = (*path, key)
        if path in counts and place < len(keys) - 1:
            path = (*path, counts[path])
    return path


class _Value:
    """Whether a value goes on in the next line: an array, or a string in three quotes."""

    def __init__(self) -> None:
        self._depth = 0
        self._quote = ""

    @property
    def is_open(self) -> bool:
        return self._depth > 0 or self._quote in _LONG

    def read(self, line: str) -> None:
        at = 0
        while at < len(line):
            at = self._in_string(line, at) if self._quote else self._outside(line, at)
        if self._quote not in _LONG:
            self._quote = ""

    def _in_string(self, line: str, at: int) -> int:
        if line[at] == "\\" and '"' in self._quote:
            return at + 2
        if not line.startswith(self._quote, at):
            return at + 1
        end = at + len(self._quote)
        while len(self._quote) == 3 and line.startswith(self._quote[0], end):
            end += 1  # up to two quotes may stand before the three that end it
        self._quote = ""
        return end

    def _outside(self, line: str, at: int) -> int:
        letter = line[at]
        if letter == "#":
            return len(line)
        if letter in "\"'":
            long = letter * 3
            self._quote = long if line.startswith(long, at) else letter
            return at + len(self._quote)
        self._depth += (letter in "[{") - (letter in "]}")
        return at + 1
