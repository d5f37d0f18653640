"""What the pages say is what the program does."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import click
import pytest

from mayfly import errors
from mayfly.config import Settings
from mayfly.model import NetworkMode, State

REPOSITORY = Path(__file__).parents[2]
DOCS = REPOSITORY / "docs"
TOP_PAGES = sorted(path.name for path in REPOSITORY.glob("*.md"))


def test_the_page_of_commands_is_up_to_date() -> None:
    # A process of its own: a command remembers the help option of whichever group it ran in first.
    code = "from docs.cli_reference import mayfly, page; print(page(mayfly), end='')"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY
    )
    written = (DOCS / "reference/cli.md").read_text()
    assert written == done.stdout, "mend it with: scripts/docs-cli"


def test_the_page_of_commands_shows_every_option() -> None:
    reference = importlib.import_module("docs.cli_reference")

    names = {"help_option_names": ["-h", "--help"]}

    @click.group(help="Top.", epilog="\b\nExamples:\n  mayfly inner work", context_settings=names)
    def top() -> None: ...

    @top.group(help="Inner.", hidden=True)
    def inner() -> None: ...

    @inner.command(help="Work.\n\n\b\nkept\n  as it is")
    @click.argument("what")
    @click.option("--size", default=3, help="How | much.")
    @click.option("--fast/--slow", help="Pace.")
    @click.option("--colour", type=click.Choice(["red", "blue"]), hidden=True)
    def work(what: str, size: int, fast: bool, colour: str) -> None: ...

    text = reference.page(top)
    assert "## mayfly inner work\n\n```\nmayfly inner work [OPTIONS] WHAT\n```" in text
    assert "```text\nkept\n  as it is\n```" in text
    assert "```text\nExamples:\n  mayfly inner work\n```" in text
    assert text.count("| `-h, --help` | Show this message and exit. |") == 3
    assert "| `--size INTEGER` | How \\| much. Default: `3`. |" in text
    assert "| `--fast, --slow` | Pace. |" in text
    assert "| `--colour [red\\|blue]` |" in text


def test_every_error_is_on_the_page_of_exit_statuses() -> None:
    text = (DOCS / "reference/exit-status.md").read_text()
    for error, (status, _) in errors.EXIT_AND_HTTP.items():
        assert f"| {status} | {error.__name__} |" in text
    for status in (errors.RUN_FAILED, errors.TIME_LIMIT):
        assert f"| {status} |" in text


def test_every_state_and_network_mode_is_in_the_glossary() -> None:
    text = (DOCS / "reference/glossary.md").read_text()
    for state in State:
        assert f"| `{state.value}` |" in text
    for mode in NetworkMode:
        assert f"`{mode.value}`" in text


def test_every_setting_has_a_line_with_its_default() -> None:
    text = (DOCS / "reference/settings.md").read_text()
    documented = re.findall(r"^\| `([a-z0-9_]+)` \| `([^`]+)` \|", text, re.MULTILINE)
    defaults = {
        field.name: json.dumps(getattr(Settings(), field.name)) for field in fields(Settings)
    }
    assert dict(documented) == defaults


@pytest.mark.parametrize("name", TOP_PAGES)
def test_a_top_page_links_to_what_exists(name: str) -> None:
    links = re.findall(r"\]\(([^)#]+)", (REPOSITORY / name).read_text())
    inside = [link for link in links if "://" not in link]
    missing = [link for link in inside if not (REPOSITORY / link).exists()]
    assert not missing


@pytest.mark.parametrize("name", TOP_PAGES)
def test_a_top_page_names_scripts_that_exist(name: str) -> None:
    scripts = set(re.findall(r"scripts/[a-z.-]*[a-z]", (REPOSITORY / name).read_text()))
    missing = [script for script in sorted(scripts) if not (REPOSITORY / script).is_file()]
    assert not missing


def test_every_decision_has_the_number_of_its_file() -> None:
    for path in (DOCS / "decisions").glob("[0-9]*.md"):
        assert path.read_text().startswith(f"# {int(path.name[:4])}. "), path.name


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_works_as_documented(shell: str) -> None:
    assert (
        f"_MAYFLY_COMPLETE={shell}_source mayfly"
        in (DOCS / "howto/shell-completion.md").read_text()
    )
    done = subprocess.run(
        [REPOSITORY / ".venv/bin/mayfly"],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "_MAYFLY_COMPLETE": f"{shell}_source"},
    )
    assert "_MAYFLY_COMPLETE" in done.stdout, done.stderr
