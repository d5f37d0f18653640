"""The agent disk: what is on it, when it is made, and that it needs nothing of its guest."""

from __future__ import annotations

import json
import marshal
import os
import re
import shlex
import shutil
import subprocess
import time
from dataclasses import dataclass
from importlib.util import MAGIC_NUMBER
from pathlib import Path

import pytest

import mayfly.guest
from mayfly.engine import agentdisk
from mayfly.engine.agentdisk import LABEL, MOUNT, agent_disk, disk_key
from mayfly.errors import Failed, Missing

GUEST = Path(str(mayfly.guest.__file__)).parent
MODULES = sorted(path.stem for path in GUEST.glob("*.py") if path.stem != "__init__")

needs_xorriso = pytest.mark.skipif(
    shutil.which("xorriso") is None, reason="xorriso is not installed"
)


@dataclass(frozen=True)
class Made:
    """A disk, and what was extracted from it."""

    disk: Path
    tree: Path

    def names(self) -> set[str]:
        paths = (path.relative_to(self.tree) for path in self.tree.rglob("*"))
        return {str(path) for path in paths}


def extract(disk: Path, target: Path) -> None:
    words = ["xorriso", "-osirrox", "on", "-indev", str(disk), "-extract", "/", str(target)]
    subprocess.run(words, check=True, capture_output=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("agent")
    disk = agent_disk(folder / "cache")
    # It is extracted to where a guest mounts it, in an otherwise empty root directory.
    tree = folder / "root" / MOUNT.lstrip("/")
    tree.parent.mkdir(parents=True)
    extract(disk, tree)
    return Made(disk, tree)


# --- the disk ------------------------------------------------------------------------------------


@needs_xorriso
def test_it_is_a_disk_that_cloud_init_looks_for(made: Made) -> None:
    volume = made.disk.read_bytes()[16 * 2048 : 17 * 2048]
    assert volume[1:6] == b"CD001"
    assert volume[40:72].decode().strip() == LABEL == "cidata"
    assert {"user-data", "meta-data"} <= made.names()
    assert re.search(r"^instance-id: \S+$", (made.tree / "meta-data").read_text(), re.MULTILINE)


@needs_xorriso
def test_cloud_init_starts_the_agent_and_does_nothing_else(made: Made) -> None:
    first, *lines = (made.tree / "user-data").read_text().splitlines()
    assert first == "#cloud-config"
    assert "users: []" in lines
    (command,) = [line for line in lines if f"LABEL={LABEL}" in line]
    words = json.loads(command.strip().removeprefix("- ").replace("sh, -c,", '"sh", "-c",'))
    assert words[:2] == ["sh", "-c"]
    assert words[2].endswith(f"sh {MOUNT}/start")
    assert "-o ro" in words[2]


@needs_xorriso
def test_no_guest_has_to_compile_a_module(made: Made) -> None:
    sources = list(made.tree.rglob("*.py"))
    assert len(sources) > 50
    for source in sources:
        (compiled,) = (source.parent / "__pycache__").glob(f"{source.stem}.*.pyc")
        head = compiled.read_bytes()[:8]
        assert head[:4] == MAGIC_NUMBER
        assert head[4:] == b"\1\0\0\0"  # by content, which is not looked at
        assert compiled.stat().st_mode & 0o044 == 0o044
        assert marshal.loads(compiled.read_bytes()[16:]).co_filename == (
            f"{MOUNT}/{source.relative_to(made.tree)}"
        )


@needs_xorriso
def test_it_is_made_once_and_nobody_may_write_to_it(made: Made) -> None:
    before = made.disk.stat()
    assert agent_disk(made.disk.parent.parent) == made.disk
    assert made.disk.stat() == before
    assert before.st_mode & 0o777 == 0o444
    assert list(made.disk.parent.iterdir()) == [made.disk]


@needs_xorriso
def test_an_old_disk_goes_when_it_is_long_unused(
    tmp_path: Path, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "agent"
    folder.mkdir()
    for name, days in (("old", 8), ("young", 6)):
        (folder / f"{name}.iso").touch()
        os.utime(folder / f"{name}.iso", (time.time() - days * 86400,) * 2)

    def copy(words: list[str], **_: object) -> None:
        shutil.copy(made.disk, words[words.index("-o") + 1])

    monkeypatch.setattr(agentdisk, "_fill", Path.mkdir)
    monkeypatch.setattr(agentdisk, "run", copy)
    disk = agent_disk(tmp_path)
    assert {path.name for path in folder.iterdir()} == {disk.name, "young.iso"}


def test_without_the_tool_it_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Missing, match="xorriso") as caught:
        agent_disk(tmp_path / "cache")
    assert caught.value.hint == "apt-get install xorriso"


def test_a_tool_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "bin/xorriso"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\necho 'no room' >&2\nexit 1\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tool.parent), prepend=os.pathsep)
    monkeypatch.setattr(agentdisk, "_fill", Path.mkdir)
    with pytest.raises(Failed, match="no room"):
        agent_disk(tmp_path / "cache")
    assert not list((tmp_path / "cache/agent").iterdir())


# --- its name ------------------------------------------------------------------------------------


def test_its_name_changes_with_what_is_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python, source = tmp_path / "python", tmp_path / "agent.py"
    for file in (python, source):
        file.write_text("one")
        os.utime(file, ns=(1, 1))
    monkeypatch.setattr(agentdisk, "interpreter", lambda: str(python))
    monkeypatch.setattr(agentdisk, "_guest_sources", lambda: [source])
    keys = [disk_key()]
    assert disk_key() == keys[0]
    source.write_text("two")
    keys.append(disk_key())
    source = source.rename(tmp_path / "other.py")
    keys.append(disk_key())
    os.utime(python, ns=(2, 2))
    keys.append(disk_key())
    monkeypatch.setattr("sys.version", "4.0")
    keys.append(disk_key())
    assert len(set(keys)) == len(keys)


# --- what is on it -------------------------------------------------------------------------------


@needs_xorriso
def test_it_has_the_agent_and_nothing_of_the_host(made: Made) -> None:
    (stdlib,) = (made.tree / "lib").glob("python3.*")
    package = stdlib / "mayfly"
    assert {path.name for path in package.iterdir()} == {"__init__.py", "__pycache__", "guest"}
    modules = sorted((package / "guest").glob("*.py"))
    assert {path.stem for path in modules} == {"__init__", *MODULES}
    for path in modules:
        assert path.read_bytes() == (GUEST / path.name).read_bytes()


@needs_xorriso
def test_it_is_small(made: Made) -> None:
    assert made.disk.stat().st_size < 40 << 20
    # Compiled are the modules that it has, and nothing else.
    for path in made.tree.rglob("*.pyc"):
        assert (path.parent.parent / f"{path.name.partition('.')[0]}.py").is_file(), path
    assert not [path for path in made.tree.rglob("*") if path.is_symlink()]


@dataclass(frozen=True)
class Start:
    """What the start script does."""

    env: dict[str, str]
    words: list[str]


def read_start(made: Made) -> Start:
    """Read the script: it has only settings, one change of directory and the command."""
    env: dict[str, str] = {}
    for line in (made.tree / "start").read_text().splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == ["export"]:
            pairs = (word.partition("=") for word in words[1:])
            env.update({name: value for name, _, value in pairs})
        elif words[:1] == ["exec"]:
            return Start(env, words[1:])
        else:
            assert words in ([], ["cd", "/"])
    raise AssertionError("it starts nothing")


@needs_xorriso
def test_the_script_starts_the_agent_with_what_is_on_the_disk(made: Made) -> None:
    start = made.tree / "start"
    assert start.stat().st_mode & 0o111
    subprocess.run(["sh", "-n", str(start)], check=True)
    read = read_start(made)
    assert read.env["PYTHONHOME"] == MOUNT
    at = read.words.index("-m")
    assert read.words[at : at + 3] == ["-m", "mayfly.guest.agent", "--daemon"]
    root = made.tree.parents[1]
    for word in read.words[:at]:
        assert not word.startswith("/") or (root / word.lstrip("/")).exists(), word


def in_empty_root(made: Made, words: list[str]) -> subprocess.CompletedProcess[str]:
    """Run what the script runs, in a root directory that has nothing but the disk."""
    root = made.tree.parents[1]
    argv = ["/usr/sbin/chroot", str(root), *words]
    return subprocess.run(
        argv, env=read_start(made).env, capture_output=True, text=True, check=False
    )


IMPORT_ALL = """
import importlib, sys
for name in {modules!r}:
    importlib.import_module(f"mayfly.guest.{{name}}")
paths = [getattr(module, "__file__", None) or "" for module in sys.modules.values()]
print(sorted(path for path in paths if path and not path.startswith({mount!r})))
"""


@needs_xorriso
@pytest.mark.integration
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_its_python_needs_nothing_of_the_guest(made: Made) -> None:
    start = read_start(made)
    python = start.words[: start.words.index("-m")]
    code = IMPORT_ALL.format(modules=MODULES, mount=MOUNT)
    done = in_empty_root(made, [*python, "-c", code])
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")


@needs_xorriso
@pytest.mark.integration
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_its_python_runs_a_module_that_fails_with_a_traceback(made: Made) -> None:
    start = read_start(made)
    python = start.words[: start.words.index("-m")]
    done = in_empty_root(made, [*python, "-c", "b'\\xe9'.decode('idna')"])
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback")
    assert "Unicode" in done.stderr
    done = in_empty_root(made, [*python, "-m", "mayfly.guest.no_such_module"])
    assert "No module named mayfly.guest.no_such_module" in done.stderr


@needs_xorriso
@pytest.mark.integration
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.skipif(not os.path.exists(agentdisk.SSHFS), reason="sshfs is not installed")
def test_its_sshfs_needs_nothing_of_the_guest(made: Made) -> None:
    words = json.loads(read_start(made).env["MAYFLY_SSHFS"])
    done = in_empty_root(made, [*words, "--version"])
    assert (done.returncode, done.stderr) == (0, "")
    assert "SSHFS version" in done.stdout
