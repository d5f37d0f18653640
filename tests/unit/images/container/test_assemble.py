"""Layers become an ext4, which e2fsck and debugfs look at."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from mayfly.errors import Invalid, Quota, Untrusted
from mayfly.images.build.disk import PARTITION_START
from mayfly.images.confine import Bounds, confined
from mayfly.images.container.assemble import Plan, assemble
from mayfly.images.container.packed import Part
from mayfly.units import MIB
from tests.unit.images.container.making import (
    Entry,
    digest,
    empty_disk,
    file_system,
    hard_link,
    layer,
    look,
    squashfs,
    symlink,
)

CAPABILITY = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0).decode()
"""cap_net_raw+ep, as the kernel stores it."""


@contextmanager
def planned(tmp_path: Path, *layers: bytes) -> Iterator[Plan]:
    disk, shape = empty_disk(tmp_path / "disk.raw")
    with ExitStack() as stack:
        parts = []
        for number, data in enumerate(layers):
            path = tmp_path / f"layer{number}"
            path.write_bytes(data)
            opened = stack.enter_context(path.open("rb"))
            part = Part(fd=opened.fileno(), offset=0, size=len(data), digest=digest(data))
            parts.append(part)
        target = stack.enter_context(disk.open("r+b"))
        yield Plan(
            layers=tuple(parts),
            own=0,
            disk=f"/proc/self/fd/{target.fileno()}",
            offset=PARTITION_START,
            room_bytes=shape.partition_bytes // 2,
        )


def made(plan: Plan) -> dict[str, object]:
    """Do it as a conversion does: confined."""
    keep = [int(plan.disk.rpartition("/")[2]), *(part.fd for part in plan.layers)]
    bounds = Bounds(file_bytes=1 << 40)
    found: dict[str, object] = confined(
        partial(assemble, plan), what="the image", keep=keep, bounds=bounds
    )
    return found


def test_layers_become_a_file_system(tmp_path: Path) -> None:
    big = os.urandom(3 * MIB + 77)
    lower = layer(
        Entry(name="./", mode=0o711),
        Entry(name="bin/", mode=0o755),
        Entry(name="bin/su", data=b"program", mode=0o4755, owner=(0, 42)),
        Entry(name="bin/gone", data=b"gone"),
        Entry(name="data/big", data=big, owner=(70000, 80000)),
        Entry(name="bin/ping", data=b"ping", pax={"SCHILY.xattr.security.capability": CAPABILITY}),
        hard_link("bin/also", "bin/su"),
        symlink("short", "bin"),
        symlink("long", "x" * 200),
        Entry(name='odd "name"\n<5>', data=b"odd"),
    )
    upper = layer(
        Entry(name="bin/.wh.gone"),
        Entry(name="short/new", data=b"through a link"),
        Entry(name="usr/lib/os-release", data=b'ID=tiny\nVERSION_ID="3"\n'),
        symlink("etc/os-release", "../usr/lib/os-release"),
        Entry(name="bin/sh", data=b"#!"),
    )
    with planned(tmp_path, lower, upper) as plan:
        found = made(plan)
    assert found["os_release"] == 'ID=tiny\nVERSION_ID="3"\n'
    assert (found["left_out"], found["shell"]) == (0, True)
    alone = file_system(tmp_path / "disk.raw")
    names = look(alone, "ls -p /bin")
    assert "/104755/0/42/su/7/" in names
    assert "/gone/" not in names
    assert "/new/" in names
    assert "Links: 2" in look(alone, "stat /bin/also")
    assert "Mode:  0711" in look(alone, "stat /")
    assert 'Fast link dest: "bin"' in look(alone, "stat /short")
    assert look(alone, "cat /long") == "x" * 200
    look(alone, f"dump /data/big {tmp_path / 'back'}")
    assert (tmp_path / "back").read_bytes() == big
    assert "User: 70000   Group: 80000" in look(alone, "stat /data/big")
    assert "security.capability" in look(alone, "ea_list /bin/ping")
    assert "<5>" in look(alone, "ls -p /")


def test_a_directory_of_many_files_grows(tmp_path: Path) -> None:
    many = layer(*(Entry(name=f"many/{number:060}") for number in range(900)))
    with planned(tmp_path, many) as plan:
        assert made(plan)["files"] == 901
    assert look(file_system(tmp_path / "disk.raw"), "ls -p /many").count("\n/") >= 900


def test_a_squashfs_is_read_like_a_layer(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "bin").mkdir(parents=True)
    (tree / "bin/tool").write_bytes(b"tool" * 100_000)
    (tree / "bin/tool").chmod(0o4755)
    (tree / "link").symlink_to("/bin/tool")
    with planned(tmp_path, squashfs(tmp_path / "fs", tree).read_bytes()) as plan:
        part = replace(plan.layers[0], squashfs=True)
        assert made(replace(plan, layers=(part,)))["files"] == 3
    alone = file_system(tmp_path / "disk.raw")
    assert "Mode:  04755" in look(alone, "stat /bin/tool")
    assert look(alone, "cat /bin/tool") == "tool" * 100_000


def test_a_damaged_squashfs_is_refused(tmp_path: Path) -> None:
    with planned(tmp_path, b"hsqs" + os.urandom(9000)) as plan:
        part = replace(plan.layers[0], squashfs=True)
        with pytest.raises(Invalid, match="sqfs2tar"):
            made(replace(plan, layers=(part,)))


def test_what_does_not_fit_is_refused_before_it_is_written(tmp_path: Path) -> None:
    content = layer(*(Entry(name=str(n), data=bytes(35 * MIB)) for n in range(2)))
    with (
        planned(tmp_path, content) as plan,
        pytest.raises(Quota, match="disk has room for") as caught,
    ):
        made(plan)
    assert "--size" in caught.value.hint


def test_a_bomb_is_refused_by_its_header(tmp_path: Path) -> None:
    bomb = layer(Entry(name="bomb"))[:512]
    bomb = bomb[:124] + b"\x80" + (1 << 40).to_bytes(11, "big") + bomb[136:]
    total = sum(bomb[:148]) + 8 * 32 + sum(bomb[156:])
    with (
        planned(tmp_path, bomb[:148] + b"%06o\0 " % total + bomb[156:]) as plan,
        pytest.raises(Quota, match="a file in it has 1"),
    ):
        made(plan)


def test_a_disk_that_is_full_all_the_same_is_said(tmp_path: Path) -> None:
    content = layer(Entry(name="big", data=bytes(120 * MIB)))
    with planned(tmp_path, content) as plan, pytest.raises(Quota, match="too small"):
        made(replace(plan, room_bytes=1 << 40))


def test_a_layer_that_is_not_what_its_digest_says_is_refused(tmp_path: Path) -> None:
    with planned(tmp_path, layer(Entry(name="a"))) as plan:
        wrong = replace(plan.layers[0], digest=digest(b"other"))
        with pytest.raises(Untrusted, match="layer 1 of 1 is not what its digest says"):
            made(replace(plan, layers=(wrong,)))


def test_a_layer_that_changes_while_it_is_read_is_found_out(tmp_path: Path) -> None:
    one = layer(Entry(name="a", data=b"one"))
    other = layer(Entry(name="a", data=b"two"))
    with planned(tmp_path, one) as plan:
        part = replace(plan.layers[0], digest="")
        told: list[str] = []

        def tell(phase: str, _: float | None) -> None:
            told.append(phase)
            if phase == "files":
                (tmp_path / "layer0").write_bytes(other)

        with pytest.raises(Untrusted, match="changed while it was read"):
            assemble(replace(plan, layers=(part,)), tell)
    assert told[:2] == ["layers", "files"]
