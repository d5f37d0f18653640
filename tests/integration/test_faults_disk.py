"""Images and templates that were spoiled, and hosts without room."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
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
    machines_dir,
    machines_of,
    making_template,
    run_job,
)
from tests.integration.waiting import gone, wait_until

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
            target.write(bytes(min(300 << 20, before.st_size - at)))
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
    ended.assert_failed(f"the disk of image '{IMAGE}'", words, "again with --force")
    assert ended.status["phase"] == "template"
    assert_nothing_left(own_cli.home)


@pytest.mark.parametrize("text", ["", "{}", "[1", '{"format": 99}', "null"])
def test_an_image_whose_record_is_nonsense(own_cli: Cli, text: str) -> None:
    record = own_cli.home / f"state/images/{IMAGE}/image.json"
    record.unlink()
    record.write_text(text)
    run_job(own_cli, "--", "true").assert_failed(IMAGE)


# --- templates -----------------------------------------------------------------------------------


def assert_made_anew(cli: Cli) -> None:
    """A run begins to make the template; it is stopped, and leaves nothing half made."""
    with making_template(cli) as process:
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert_sentence(said.decode(), "interrupted")
    assert [path for path in (cli.home / "cache/templates").iterdir() if path.is_dir()] == []
    assert_nothing_left(cli.home)


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("state", "cut"),
        ("disk.qcow2", "removed"),
        ("memory", "cut"),
        ("empty.qcow2", "cut"),
        ("agent.iso", "removed"),
    ],
)
def test_a_spoiled_template_is_made_anew(own_cli: Cli, name: str, how: str) -> None:
    file = template_of(own_cli) / name
    if how == "cut":
        spoil(file, at=file.stat().st_size // 2, cut=True)
    else:
        file.unlink()
    assert_made_anew(own_cli)


@pytest.mark.parametrize("name", ["state", "disk.qcow2", "empty.qcow2", "memory"])
def test_a_template_spoiled_without_a_trace(own_cli: Cli, name: str) -> None:
    template = template_of(own_cli)
    spoil(template / name, hidden=True)
    ended = run_job(own_cli, "--", "true")
    ended.assert_failed(
        f"'mayfly template remove {template.name[:12]}' has the template made again"
    )
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


def test_what_a_killed_maker_of_a_template_left_is_cleared(own_cli: Cli) -> None:
    (template_of(own_cli) / "template.json").unlink()
    with making_template(own_cli) as process:
        process.kill()
    (place,) = machines_of(own_cli.home)
    record = json.loads((place / "record.json").read_text())
    wait_until(lambda: gone(record["pid"]), "its machine ended")
    assert_made_anew(own_cli)


def test_memory_that_is_cut_while_it_is_held(own_cli: Cli) -> None:
    assert run_job(own_cli, "--", "true").code == 0
    template = template_of(own_cli)
    spoil(template / "memory", at=300 << 20, cut=True, hidden=True)
    end_holder(template)
    assert_made_anew(own_cli)


# --- no room -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", ["nr_inodes=1", "nr_inodes=2", "nr_inodes=4", "size=4k", "size=128k"]
)
def test_no_room_for_a_clone(own_cli: Cli, small_disk: Mount, options: str) -> None:
    small_disk(machines_dir(own_cli.home), options)
    ended = run_job(own_cli, "--", "true")
    place = str(machines_dir(own_cli.home))
    ended.assert_failed("No space left on device", place, "free some space", who="site")
    assert ended.status["phase"] == "start"
    assert_nothing_left(own_cli.home)


def test_no_room_for_the_first_that_a_clone_writes(own_cli: Cli, small_disk: Mount) -> None:
    small_disk(machines_dir(own_cli.home), "size=208k")
    ended = run_job(own_cli, "--", "true")
    ended.assert_failed("the host has no room left for its disk", who="site")
    assert_nothing_left(own_cli.home)


@pytest.mark.parametrize("more", [(), ("--keep-on-failure",)])
def test_no_room_for_what_the_guest_writes(
    own_cli: Cli, small_disk: Mount, more: tuple[str, ...]
) -> None:
    small_disk(machines_dir(own_cli.home), "size=8m")
    command = "dd if=/dev/urandom of=/var/tmp/big bs=1M count=64; sync; echo done"
    ended = run_job(own_cli, "--root", *more, "--", "sh", "-c", command)
    ended.assert_failed("the host has no room left for its disk", who="site")
    if more:
        # Its record may just fit, or not: it is kept and said to be, or gone and said to be.
        kept = f"machine {ended.status['machine']} is kept" in ended.said
        assert kept != ("the machine could not be kept" in ended.said)
        if kept:
            own_cli("machine", "delete", ended.status["machine"], check=True)
    assert_nothing_left(own_cli.home)


def test_no_room_to_write_down_who_holds_the_memory(own_cli: Cli, small_disk: Mount) -> None:
    template = template_of(own_cli)
    aside = template.with_name("aside")
    template.rename(aside)
    blocks = sum(file.stat().st_blocks for file in aside.iterdir())
    small_disk(template, f"size={blocks * 512}")
    for file in aside.iterdir():
        subprocess.run(["cp", "-a", "--sparse=always", str(file), str(template)], check=True)
    with contextlib.suppress(OSError), (template / "rest").open("wb", buffering=0) as rest:
        while rest.write(bytes(4096)):
            pass
    ended = run_job(own_cli, "--", "true")
    ended.assert_failed(f"cannot write to {template}", "No space left on device", who="site")
    assert_nothing_left(own_cli.home)


def test_no_room_for_a_template(own_cli: Cli, small_disk: Mount) -> None:
    small_disk(own_cli.home / "cache/templates", "size=600m")
    ended = run_job(own_cli, "--", "true")
    ended.assert_failed("a template needs up to", "has 600 MiB free", "roomier disk", who="site")
    assert ended.status["phase"] == "template"
    assert [path for path in (own_cli.home / "cache/templates").iterdir() if path.is_dir()] == []
    assert_nothing_left(own_cli.home)


@pytest.mark.slow
def test_the_disk_fills_while_a_template_is_made(own_cli: Cli, small_disk: Mount) -> None:
    cache = own_cli.home / "cache"
    small_disk(cache, "size=960m")
    with making_template(own_cli) as process:
        with (cache / "other").open("wb") as other:
            room = shutil.disk_usage(cache).free
            os.posix_fallocate(other.fileno(), 0, room - (1 << 20))
        _, said = process.communicate(timeout=120)
    assert process.returncode == 125
    assert_sentence(said.decode(), "did not become a template", "the host has no room left")
    assert [path for path in (cache / "templates").iterdir() if path.is_dir()] == []
    assert_nothing_left(own_cli.home)


def test_a_home_that_cannot_be_written(own_cli: Cli, small_disk: Mount) -> None:
    small_disk(machines_dir(own_cli.home), "ro")
    ended = run_job(own_cli, "--", "true")
    ended.assert_failed("Read-only file system", str(machines_dir(own_cli.home)), who="site")


@pytest.mark.parametrize("size", ["16m", "80m"])
def test_no_room_to_import_an_image(
    make_cli: Callable[..., Cli], tmp_path: Path, small_disk: Mount, size: str
) -> None:
    home = tmp_path / "home"
    small_disk(home, f"size={size}")
    raw = tmp_path / "disk.raw"
    part = b"\x80\0\0\0\x83\0\0\0\x01\0\0\0\xff\xff\x01\0".ljust(64, b"\0") + b"\x55\xaa"
    raw.write_bytes(b"\xeb\xfe".ljust(446, b"\x90") + part + os.urandom(64 << 20))
    raw.chmod(0o666)
    done = make_cli(home)("image", "import", str(raw), "--name", "new")
    assert done.returncode == 7
    assert_sentence(done.stderr.decode(), "cannot import", "free", "needed")
    assert [path.name for path in (home / "state/images").iterdir() if path.name[0] != "."] == []


def test_no_room_to_build_an_image(
    make_cli: Callable[..., Cli], tmp_path: Path, small_disk: Mount
) -> None:
    home = tmp_path / "home"
    small_disk(home, "size=64m")
    done = make_cli(home)("image", "build", "debian-12")
    assert done.returncode == 7
    assert_sentence(done.stderr.decode(), "free", "are needed")
