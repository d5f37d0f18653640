"""What is installed: built the same each time, and in step with the program."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path

import pytest

from mayfly import __version__
from mayfly.cli.main import COMMANDS
from mayfly.engine.findings import TOOLS
from mayfly.host.settings import HostSettings, load_host_settings

REPOSITORY = Path(__file__).parents[2]
PACKAGING = REPOSITORY / "packaging"
UNIT = PACKAGING / "mayfly-host.service"
# Of scripts/packages.txt, what an installed Mayfly never runs.
ONLY_HERE = {
    "awscli",
    "btrfs-progs",
    "bubblewrap",
    "busybox-static",
    "ca-certificates",
    "chromium",
    "chromium-driver",
    "cpio",
    "createrepo-c",
    "docker-registry",
    "fdisk",
    "fio",
    "fonts-dejavu-core",
    "gcc",
    "gnupg",
    "iperf3",
    "iproute2",
    "libc6-dev",
    "gridengine-client",
    "gridengine-exec",
    "gridengine-master",
    "libslurm-dev",
    "munge",
    "postgresql-15",
    "procps",
    "python3-venv",
    "shellcheck",
    "skopeo",
    "slurm-client",
    "slurm-wlm-basic-plugins",
    "slurmctld",
    "slurmd",
    "squashfs-tools",
    "xfsprogs",
    "tcsh",
    "zsh-static",
}
needs_dpkg = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="makes a Debian package")


def needs() -> list[tuple[str, str]]:
    """Give level and Debian package of each line of the table."""
    lines = (PACKAGING / "needs.txt").read_text().splitlines()
    rows = [line.split() for line in lines if line and not line.startswith("#")]
    return [(row[0], row[1].partition(">=")[0]) for row in rows]


def package(
    *words: str, cwd: Path = REPOSITORY, umask: int = -1, **env: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(REPOSITORY / "scripts/package"), *words],
        check=False,
        capture_output=True,
        text=True,
        cwd=cwd,
        umask=umask,
        env={**os.environ, **env},
    )


# --- building ------------------------------------------------------------------------------------


@needs_dpkg
@pytest.mark.parametrize("kind", ["deb", "archive"])
def test_the_same_source_gives_the_same_bytes(kind: str, tmp_path: Path) -> None:
    made = []
    for zone, umask in (("UTC", 0o022), ("Asia/Tokyo", 0o077)):
        output = f"for-{umask}"
        done = package(kind, "--output", output, cwd=tmp_path, umask=umask, TZ=zone, LC_ALL="C")
        assert done.returncode == 0, done.stderr
        made.append(Path(done.stdout.strip()))
    first, second = made
    assert first.name == second.name
    assert __version__ in first.name
    assert first.read_bytes() == second.read_bytes()


@needs_dpkg
def test_a_build_of_ones_own_says_so(tmp_path: Path) -> None:
    done = package("archive", "--version", "9.1+site2", "--output", str(tmp_path))
    assert done.stdout == f"{tmp_path}/mayfly-9.1+site2.tar.gz\n", done.stderr
    member = "mayfly-9.1+site2/lib/mayfly/__init__.py"
    argv = ["tar", "-xOf", done.stdout.strip(), member]
    inside = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    assert '\n__version__ = "9.1+site2"\n' in inside


@pytest.mark.parametrize(
    "words",
    [(), ("rpm",), ("deb", "--version"), ("deb", "--colour", "red"), ("archive", "extra")],
)
def test_what_it_does_not_know_is_refused(words: tuple[str, ...]) -> None:
    done = package(*words)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: scripts/package")


@pytest.mark.parametrize("version", ["", "latest", "1.0 2", "1.0/../x", "1.0-1"])
def test_what_is_no_version_is_refused(version: str, tmp_path: Path) -> None:
    done = package("deb", "--version", version, "--output", str(tmp_path))
    assert done.returncode == 1
    assert "is not a version" in done.stderr
    assert not list(tmp_path.iterdir())


def test_only_wheels_with_a_locked_hash_are_taken(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    for name in ("src/mayfly/__init__.py", "requirements/runtime.lock", "scripts/package"):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, copy / name)
    wheels = copy / ".build/wheels"
    wheels.mkdir(parents=True)
    (wheels / "click-8.5.1-py3-none-any.whl").write_bytes(b"not what was locked")
    # Nothing better can be had either.
    for name in ("scripts/setup", ".venv/bin/python"):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_text("#!/bin/sh\n")
        (copy / name).chmod(0o755)
    argv = [str(copy / "scripts/package"), "archive"]
    env = {**os.environ, "SOURCE_DATE_EPOCH": "0"}
    done = subprocess.run(argv, check=False, capture_output=True, text=True, env=env)
    assert done.returncode == 1
    assert "has not the 1 packages of requirements/runtime.lock" in done.stderr


def test_its_shell_scripts_are_checked() -> None:
    scripts = [
        path
        for path in (*PACKAGING.iterdir(), *(PACKAGING / "debian").iterdir())
        if path.is_file() and path.read_text().startswith(("#!/bin/sh", "# shellcheck shell=sh"))
    ]
    assert len(scripts) == 7
    argv = ["shellcheck", *map(str, scripts)]
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


# --- in step with the program --------------------------------------------------------------------


def test_every_program_that_mayfly_runs_comes_with_it() -> None:
    lines = (REPOSITORY / "scripts/packages.txt").read_text().splitlines()
    here = {line.split()[0] for line in lines if line and not line.startswith("#")}
    assert here - ONLY_HERE == {name for _, name in needs()}


def test_what_the_doctor_calls_needed_is_a_dependency() -> None:
    levels = {name: level for level, name in needs()}
    for tool in TOOLS:
        assert tool.package in levels
        if tool.needed:
            assert levels[tool.package] == "depends"


def test_python_is_as_new_as_the_project_asks_for() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    wanted = project["requires-python"].removeprefix(">=")
    assert f"python3>={wanted} " in (PACKAGING / "needs.txt").read_text()
    minor = wanted.partition(".")[2]
    assert f"sys.version_info < (3, {minor})" in (PACKAGING / "install").read_text()


def test_the_shipped_settings_show_the_defaults(tmp_path: Path) -> None:
    shipped = (PACKAGING / "host.toml").read_text()
    assert load_host_settings(PACKAGING / "host.toml") == HostSettings()
    shown = re.sub(r"^#(?=[a-z\[])", "", shipped, flags=re.MULTILINE)
    # These have no default that could be written down, or none without another.
    shown = re.sub(r"^(users|groups|collect|metrics_file) = .*\n", "", shown, flags=re.MULTILINE)
    file = tmp_path / "host.toml"
    file.write_text(shown)
    settings = load_host_settings(file)
    (standby,) = settings.standby
    for item in fields(standby):
        if item.default is not MISSING:
            assert getattr(standby, item.name) == item.default
    for item in fields(HostSettings):
        if item.name != "standby":
            assert getattr(settings, item.name) == getattr(HostSettings(), item.name), item.name


def keys_of(settings: object) -> set[str]:
    """Give every key as the file has it: without the unit at its end."""
    assert is_dataclass(settings)
    found = set()
    for item in fields(settings):
        value = getattr(settings, item.name)
        inner = value[0] if isinstance(value, tuple) and value else value
        found |= keys_of(inner) if is_dataclass(inner) else set()
        found.add(re.sub(r"_(mib|bytes|s)$", "", item.name))
    return found


def test_the_shipped_settings_show_every_key() -> None:
    shipped = (PACKAGING / "host.toml").read_text()
    shown = set(re.findall(r"^#([a-z_]+) = ", shipped, re.MULTILINE))
    shown |= set(re.findall(r"^#\[+(?:[a-z]+\.)?([a-z]+)\]+$", shipped, re.MULTILINE))
    from mayfly.host.settings import Standby

    assert shown == keys_of(HostSettings()) | keys_of(Standby(image="x"))


def test_the_manual_page_names_every_command() -> None:
    page = (PACKAGING / "mayfly.1").read_text()
    commands = page.partition(".SH COMMANDS")[2].partition(".SH EXIT STATUS")[0]
    assert set(re.findall(r"^\.TP\n\.B ([a-z0-9]+)$", commands, re.MULTILINE)) == set(COMMANDS)


def test_the_unit_runs_the_command_that_there_is() -> None:
    unit = UNIT.read_text()
    (line,) = re.findall(r"^ExecStart=/usr/bin/mayfly (.*)$", unit, re.MULTILINE)
    assert line == "host serve --config /etc/mayfly/host.toml"
    assert str(HostSettings().socket.parent) == "/run/mayfly"
    assert "\nRuntimeDirectory=mayfly\n" in unit


def test_no_stop_of_the_unit_reaches_a_machine() -> None:
    unit = UNIT.read_text()
    for line in ("KillMode=process", "OOMPolicy=continue", "RuntimeDirectoryPreserve=yes"):
        assert f"\n{line}\n" in unit
    scripts = [(PACKAGING / "debian" / name).read_text() for name in ("postinst", "prerm")]
    assert "try-restart" in scripts[0]
    stopping = [line for line in scripts[1].splitlines() if re.search(r"invoke stop", line)]
    assert len(stopping) == 1, "and that one only when the package goes"


def test_profile_and_unit_allow_the_same_capabilities() -> None:
    lines = re.findall(r"^CapabilityBoundingSet=(.*)$", UNIT.read_text(), re.MULTILINE)
    unit = {word.removeprefix("CAP_").lower() for word in " ".join(lines).split()}
    profile = (PACKAGING / "apparmor").read_text()
    here, _, inside = profile.partition("  # Not in the unit:")
    assert set(re.findall(r"^  capability ([a-z_]+),$", here, re.MULTILINE)) == unit
    assert not unit & set(re.findall(r"^  capability ([a-z_]+),$", inside, re.MULTILINE))
    qemu = profile.partition("profile qemu ")[2]
    assert "capability" not in re.sub(r"#.*", "", qemu)
