"""The repository as a whole: its checks pass, its locks and scripts are in order."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PROGRAMS = sorted(
    path.relative_to(REPOSITORY)
    for folder in ("scripts", ".ci")
    for path in (REPOSITORY / folder).iterdir()
    if path.suffix != ".txt"
)
LOCKS = ("requirements/runtime.lock", "requirements/dev.lock")


def project() -> dict[str, list[str]]:
    text = (REPOSITORY / "pyproject.toml").read_text()
    table: dict[str, list[str]] = tomllib.loads(text)["project"]
    return table


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[^A-Za-z0-9_.-]", requirement)[0] for requirement in requirements}


# The shape is not in this list: it is a test file of its own.
@pytest.mark.parametrize("step", ["lint", "format", "types", "shell", "docs"])
def test_check(step: str) -> None:
    done = subprocess.run(
        [REPOSITORY / "scripts/check", step], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_failed_check_is_told() -> None:
    done = subprocess.run(
        [REPOSITORY / "scripts/check", "nonsense"], check=False, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.startswith("usage: scripts/check")


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_has_hashes_and_says_nothing_of_where_from(name: str) -> None:
    text = (REPOSITORY / name).read_text()
    entries = re.findall(
        r"^([a-z][^ ]*==[^ ]+) \\\n    --hash=sha256:[0-9a-f]{64}", text, re.MULTILINE
    )
    assert len(entries) == text.count("==")
    assert not re.search(r"://|^--|index", text, re.MULTILINE)


def test_the_locks_hold_what_the_project_asks_for() -> None:
    runtime, dev = ((REPOSITORY / name).read_text() for name in LOCKS)
    for name in names(project()["dependencies"]):
        assert f"\n{name}==" in runtime
    pins = set(re.findall(r"^\S+==\S+", runtime, re.MULTILINE))
    assert pins <= set(re.findall(r"^\S+==\S+", dev, re.MULTILINE))


def test_every_runtime_dependency_has_its_reason() -> None:
    page = (REPOSITORY / "docs/decisions/0002-runtime-dependencies.md").read_text()
    wanted = names(project()["dependencies"])
    assert wanted
    for name in wanted:
        assert f"| {name} |" in page


def test_every_debian_package_has_its_reason() -> None:
    lines = (REPOSITORY / "scripts/packages.txt").read_text().splitlines()
    entries = [line for line in lines if line and not line.startswith("#")]
    assert entries == sorted(set(entries))
    for line in entries:
        assert re.fullmatch(r"[a-z0-9][a-z0-9.+-]+ +# \S.*", line), line


@pytest.mark.parametrize("path", PROGRAMS, ids=str)
def test_a_script_can_be_run_and_says_what_for(path: Path) -> None:
    program = REPOSITORY / path
    first, second, *_ = program.read_text().splitlines()
    assert os.access(program, os.X_OK)
    assert first in {"#!/bin/bash", "#!/bin/sh"}
    assert second.startswith("# ")


def test_setup_is_silent_when_there_is_nothing_to_do() -> None:
    done = subprocess.run([REPOSITORY / "scripts/setup"], check=False, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@pytest.mark.parametrize("name", ["demo", "setup", "test", "bench"])
def test_a_script_refuses_what_it_does_not_know(name: str) -> None:
    done = subprocess.run(
        [REPOSITORY / "scripts" / name, "no such thing"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"usage: scripts/{name}")
