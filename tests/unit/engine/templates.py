"""Templates for tests: their files, made without a machine."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from mayfly.config import Paths, Settings
from mayfly.engine.template import (
    FILES,
    MEMORY,
    Engine,
    Template,
    stamp,
    template_key,
    write_template,
)
from mayfly.model import Image, Shape
from tests.unit.engine.machines import QEMU

IMAGE = Image(
    name="debian-12",
    version="1",
    arch="amd64",
    os="debian 12",
    sha512="a" * 128,
    size_bytes=1,
    disk_bytes=1 << 30,
    format="qcow2",
    created_at="2026-01-01T00:00:00Z",
    source="a recipe",
    disk=Path("/nowhere/disk.qcow2"),
    mtime_ns=0,
)
SHAPE = Shape(cpus=1, memory_mib=1)


def ignore(_: str) -> None:
    """Report to nobody."""


def engine_in(folder: Path) -> Engine:
    paths = Paths.for_user({"MAYFLY_HOME": str(folder)})
    paths.templates.mkdir(parents=True)
    return Engine(paths=paths, settings=Settings(), qemu=QEMU, accelerator="tcg")


def made(engine: Engine, image: Image = IMAGE, shape: Shape = SHAPE, **fields: Any) -> Template:
    """Make the files of a template without a machine."""
    key = template_key(engine, image, shape)
    path = engine.paths.templates / key
    path.mkdir()
    for name in FILES:
        (path / name).write_text(name)
    (path / MEMORY).write_bytes(bytes(shape.memory_mib << 20))
    written = Template(
        key=key,
        path=path,
        image=image.name,
        image_sha512=image.sha512,
        shape=shape,
        kernel="6.1",
        os="debian 12",
        init="systemd",
        features=("sshd", "fuse"),
        boot_s=12.5,
        settled="running",
        samples=("00ff",),
        files=stamp(path),
        created_at=time.time(),
    )
    written = replace(written, **fields)
    write_template(written, path)
    return written
