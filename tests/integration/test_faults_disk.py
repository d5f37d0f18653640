"""Images and templates that were spoiled, and hosts without room."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mayfly.engine.memory import end_holder, read_holder
from tests.conftest import Cli
from tests.integration.faults import (
    IMAGE,
    assert_nothing_left,
    assert_sentence,
    run_job,
)
from tests.integration.waiting import wait_until

pytestmark = pytest.mark.integration

Mount = Callable[[Path, str], None]


def template_of(cli: Cli) -> Path:
    """Give the directory of the one template."""
    (meta,) = (cli.home / "cache/templates").glob("[!.]*/template.json")
    return meta.parent


def spoil(file: Path, *, at: int = 0, cut: bool = False, hidden: bool = False) -> None:
    """Change a file from ``at`` on; ``hidden`` leaves size and time as they were."""
    before = file.stat()
    own = file.with_name(".own")
    shutil.copy2(file, own)
    own.chmod(0o600)
    with own.open("r+b") as target:
        if cut:
            target.truncate(at)
        else:
            target.seek(at)
            target.write(bytes(min(1 << 20, before.st_size - at)))
    own.chmod(before.st_mode)
    if hidden:
        os.utime(own, ns=(before.st_atime_ns, before.st_mtime_ns))
    own.replace(file)


# --- images --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("truncated", "were admitted"),
        ("changed", "was changed since it was admitted"),
        ("removed", "is gone"),
        ("a directory", "is not a file"),
    ],
)
def test_an_image_spoiled_after_its_template_was_made(own_cli: Cli, how: str, words: str) -> None:
    disk = own_cli.home / f"state/images/{IMAGE}/disk.qcow2"
    if how in ("truncated", "changed"):
        spoil(disk, at=1 << 20, cut=how == "truncated")
    else:
        disk.unlink()
    if how == "a directory":
        disk.mkdir()
    ended = run_job(own_cli, "--", "true")
    ended.failed(f"the disk of image '{IMAGE}'", words, "again with --force")
    assert ended.status["phase"] == "template"
    assert_nothing_left(own_cli.home)


@pytest.mark.parametrize("text", ["", "{}", "[1", '{"format": 99}', "null"])
def test_an_image_whose_record_is_nonsense(own_cli: Cli, text: str) -> None:
    record = own_cli.home / f"state/images/{IMAGE}/image.json"
    record.unlink()
    record.write_text(text)
    run_job(own_cli, "--", "true").failed(IMAGE)


# --- templates -----------------------------------------------------------------------------------


def assert_made_anew(cli: Cli) -> None:
    """A run begins to make the template; it is stopped, and leaves nothing half made."""
    process = cli.start("run", IMAGE, "--no-workdir", "--", "true")
    assert process.stderr is not None
    said = b""
    while b"booting" not in said:
        line = process.stderr.readline()
        assert line, said
        said += line
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130
    assert_sentence(said.decode(), f"booting {IMAGE} once")
    assert [path for path in (cli.home / "cache/templates").iterdir() if path.is_dir()] == []
    assert_nothing_left(cli.home)


@pytest.mark.parametrize("name", ["state", "disk.qcow2", "memory", "empty.qcow2", "agent.iso"])
@pytest.mark.parametrize("how", ["cut", "removed"])
def test_a_spoiled_template_is_made_anew(own_cli: Cli, name: str, how: str) -> None:
    file = template_of(own_cli) / name
    if how == "cut":
        spoil(file, at=file.stat().st_size // 2, cut=True)
    else:
        file.unlink()
    assert_made_anew(own_cli)


def test_device_state_spoiled_without_a_trace(own_cli: Cli) -> None:
    template = template_of(own_cli)
    spoil(template / "state", at=1000, hidden=True)
    ended = run_job(own_cli, "--", "true")
    ended.failed(f"could not restore template {template.name}", f"remove {template}")
    assert ended.status["phase"] == "start"
    assert_nothing_left(own_cli.home)


def test_the_memory_of_a_template_is_read_back(own_cli: Cli) -> None:
    assert run_job(own_cli, "--", "true").code == 0
    holder = read_holder(template_of(own_cli))
    assert holder is not None
    os.kill(holder.pid, signal.SIGKILL)
    wait_until(lambda: read_holder(template_of(own_cli)) is None, "the holder ended")
    began = time.monotonic()
    ended = run_job(own_cli, "--", "echo", "there")
    assert time.monotonic() - began < 2 + 2
    assert (ended.code, ended.output) == (0, b"there\n")
    assert "reading the template's memory back from disk" in ended.said
    assert read_holder(template_of(own_cli)) is not None


def test_memory_that_is_cut_while_it_is_held(own_cli: Cli) -> None:
    assert run_job(own_cli, "--", "true").code == 0
    template = template_of(own_cli)
    spoil(template / "memory", at=300 << 20, cut=True, hidden=True)
    end_holder(template)
    assert_made_anew(own_cli)


# --- no room -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    ["size=128k", "nr_inodes=1", "nr_inodes=2", "nr_inodes=4", "size=4k", "size=208k", "size=220k"],
)
def test_no_room_for_a_clone(own_cli: Cli, small_disk: Mount, options: str) -> None:
    small_disk(own_cli.home / "state/machines", options)
    ended = run_job(own_cli, "--", "true")
    print(ended)
    ended.failed("No space left on device", str(own_cli.home / "state/machines"))
    assert ended.status["phase"] == "start"
    assert_nothing_left(own_cli.home)


def test_no_room_for_what_the_guest_writes(own_cli: Cli, small_disk: Mount) -> None:
    small_disk(own_cli.home / "state/machines", "size=8m")
    command = "dd if=/dev/urandom of=/var/tmp/big bs=1M count=64; sync; echo done"
    ended = run_job(own_cli, "--root", "--", "sh", "-c", command)
    ended.failed("the host has no room left for its disk", who="site")
    assert_nothing_left(own_cli.home)
