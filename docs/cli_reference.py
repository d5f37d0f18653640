"""Write ``reference/cli.md`` from the commands themselves.

usage: scripts/docs-cli     a test fails when the page and the commands differ
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

import click

from mayfly.cli.main import mayfly

PAGE = Path(__file__).parent / "reference" / "cli.md"

START = """# Commands

This page is written by `scripts/docs-cli` from the commands themselves; `mayfly COMMAND --help`
says the same.
"""


def page(command: click.Command) -> str:
    """Give the whole page."""
    return "\n".join([START, *_sections(command, _context(command, "mayfly", None))])


def _context(command: click.Command, name: str, parent: click.Context | None) -> click.Context:
    return click.Context(command, info_name=name, parent=parent, **command.context_settings)


def _sections(command: click.Command, context: click.Context) -> Iterator[str]:
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    yield f"## {context.command_path}\n\n```\n{usage}\n```\n"
    yield from _paragraphs(command.help)
    options = [item for item in command.get_params(context) if isinstance(item, click.Option)]
    rows = [_row(option, context) for option in options]
    yield "\n".join(["| option | meaning |", "|---|---|", *rows, ""])
    yield from _paragraphs(command.epilog)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            if inner := command.get_command(context, name):
                yield from _sections(inner, _context(inner, name, context))


def _paragraphs(text: str | None) -> Iterator[str]:
    """Give help text as Markdown; click keeps a paragraph's lines after a line with BS only."""
    for paragraph in inspect.cleandoc((text or "").partition("\f")[0]).split("\n\n"):
        mark, _, lines = paragraph.partition("\n")
        if mark == "\b":
            yield f"```text\n{lines}\n```\n"
        elif paragraph:
            yield f"{paragraph}\n"


def _row(option: click.Option, context: click.Context) -> str:
    names = ", ".join([*option.opts, *option.secondary_opts])
    plain = option.is_flag or option.count
    value = "" if plain else f" {option.make_metavar(context)}"
    meaning = " ".join((option.help or "").split())
    if not plain and isinstance(option.default, str | int | float):
        meaning += f" Default: `{option.default}`."
    cells = (f"`{names}{value}`", meaning)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


if __name__ == "__main__":
    PAGE.write_text(page(mayfly), encoding="utf-8")
