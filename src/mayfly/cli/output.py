"""What commands print for people: progress lines, tables, JSON."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import click


class Progress:
    """One live line on a terminal; elsewhere a line per step. Always on standard error."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._live = sys.stderr.isatty()
        self._shown = ""
        self._step = ""

    def __call__(self, text: str) -> None:
        """Show what is being done now; what stands in brackets is detail of the same step."""
        if self._quiet:
            return
        if self._live:
            line = f"mayfly: {text}"[: max(20, _columns() - 1)]
            sys.stderr.write("\r\033[K" + line)
            sys.stderr.flush()
            self._shown = line
        elif text.partition(" (")[0] != self._step:
            self._step = text.partition(" (")[0]
            sys.stderr.write(f"mayfly: {self._step}\n")

    def clear(self) -> None:
        """Take the live line away."""
        if self._live and self._shown:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()
        self._shown = ""

    def note(self, text: str) -> None:
        """Print a line that stays."""
        if not self._quiet:
            self.warn(text)

    def warn(self, text: str) -> None:
        """Print a line that stays, and that is not to be missed: also when quiet."""
        self.clear()
        click.echo(f"mayfly: {plain(text)}", err=True)


def _columns() -> int:
    try:
        return click.get_current_context().terminal_width or _terminal_columns()
    except RuntimeError:
        return _terminal_columns()


def _terminal_columns() -> int:
    import shutil  # noqa: PLC0415 - every run imports this module, and few need that one

    return shutil.get_terminal_size().columns


def plain(text: str) -> str:
    """Give text without control characters: a guest's words could play tricks with a terminal."""
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)


def print_json(value: Any) -> None:
    """Print a value for scripts."""
    import json  # noqa: PLC0415 - as above

    click.echo(json.dumps(value, indent=2, sort_keys=True))


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print columns, left-aligned; nothing but the head when there are no rows."""
    widths = [max(len(row[index]) for row in (head, *rows)) for index in range(len(head))]
    for row in (head, *rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(cells).rstrip())
