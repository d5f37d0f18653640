"""A TOML file that is read key by key, so that every error names the file and the line."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from mayfly.errors import Invalid, MayflyError, Missing
from mayfly.tomllines import Path as KeyPath
from mayfly.tomllines import find_lines, line_of

TEXT_MOST = 1 << 20

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One table of the file; what nobody asked for at the end is unknown."""

    file: Path
    values: dict[str, Any]
    lines: Mapping[KeyPath, int]
    path: KeyPath = ()
    known: list[str] = field(default_factory=list)

    def error(self, key: str, text: str, hint: str = "") -> Invalid:
        """Give the error about a key of this table."""
        where = f"{self.file}:{line_of(self.lines, (*self.path, key))}"
        return Invalid(f"{where}: '{key}': {text}", hint=hint)

    def text(self, key: str, default: str | None = None, *, longest: int = 4096) -> str:
        """Read a text; without a default it must be there."""
        value = self._take(key, str, "a text", default)
        if len(value) > longest or "\0" in value:
            raise self.error(key, f"must have at most {longest} characters, and no zero byte")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """Read a list of texts; none where the key is missing."""
        value: list[object] = self._take(key, list, "a list of texts", [])
        if not all(isinstance(item, str) and item and "\0" not in item for item in value):
            raise self.error(key, "must be a list of texts")
        return tuple(str(item) for item in value)

    def flag(self, key: str, *, default: bool) -> bool:
        """Read true or false."""
        return self._take(key, bool, "true or false", default)

    def number(self, key: str, default: int | None, least: int, most: int) -> int | None:
        """Read a whole number within bounds."""
        if key not in self.values:
            self.known.append(key)
            return default
        value = self._take(key, int, "a whole number", None)
        if not least <= value <= most:
            raise self.error(key, f"must be from {least} to {most}, not {value}")
        return value

    def parsed(self, key: str, parse: Callable[[str], T], default: T) -> T:
        """Read a text that ``parse`` understands; what that raises is told with the line."""
        if key not in self.values:
            self.known.append(key)
            return default
        return self.tried(key, parse, self.text(key))

    def tried(self, key: str, parse: Callable[[str], T], text: str) -> T:
        """Have ``parse`` understand a text that stands at a key."""
        try:
            return parse(text)
        except MayflyError as error:
            raise self.error(key, error.message, error.hint) from error

    def tables(self, key: str, most: int = 1000) -> list[Table]:
        """Read ``[[key]]``."""
        value: list[object] = self._take(key, list, f"written as [[{key}]]", [])
        if not all(isinstance(item, dict) for item in value) or len(value) > most:
            raise self.error(key, f"must be written as [[{key}]], at most {most} times")
        return [
            Table(file=self.file, values=dict(item), lines=self.lines, path=(*self.path, key, at))
            for at, item in enumerate(value)
            if isinstance(item, dict)
        ]

    def finish(self) -> None:
        """Refuse keys that nobody asked for."""
        for key in self.values:
            if key not in self.known:
                raise self.error(
                    key, "there is no such key", f"known here: {', '.join(sorted(self.known))}"
                )

    def _take(self, key: str, kind: type[T], words: str, default: T | None) -> T:
        self.known.append(key)
        if key not in self.values:
            if default is None:
                raise self.error(key, "must be given")
            return default
        value = self.values[key]
        if type(value) is not kind:
            raise self.error(key, f"must be {words}, not {_shown(value)}")
        return value


def read_table(file: Path) -> Table:
    """Read a TOML file; raises ``Missing`` or ``Invalid``."""
    try:
        with file.open("rb") as opened:
            data = opened.read(TEXT_MOST + 1)
    except FileNotFoundError as error:
        raise Missing(f"there is no file {file}") from error
    except OSError as error:
        raise Invalid(f"cannot read {file}: {error.strerror}") from error
    if len(data) > TEXT_MOST:
        raise Invalid(f"{file} is longer than {TEXT_MOST} bytes: that is no recipe")
    try:
        text = data.decode("utf-8").replace("\r\n", "\n")
        values = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid(f"{file} is not TOML: {error}") from error
    return Table(file=file, values=values, lines=find_lines(text))


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
