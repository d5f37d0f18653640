"""Container images made by hand, and looks into what they became."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import subprocess
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mayfly.images.build.disk import Layout, mke2fs_argv
from mayfly.units import MIB

UUID = "7a5c1d6e-9f0b-4c3d-8e2a-1b6f5d4c3b2a"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One member of a layer; a directory's name ends in a slash."""

    name: str
    data: bytes = b""
    mode: int = 0o644
    owner: tuple[int, int] = (0, 0)
    kind: bytes = tarfile.REGTYPE
    target: str = ""
    pax: dict[str, str] = field(default_factory=dict)


def symlink(name: str, target: str) -> Entry:
    return Entry(name=name, kind=tarfile.SYMTYPE, target=target)


def hard_link(name: str, target: str) -> Entry:
    return Entry(name=name, kind=tarfile.LNKTYPE, target=target)


def layer(*entries: Entry) -> bytes:
    """Make a tar, with names exactly as they are given."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for entry in entries:
            info = tarfile.TarInfo(entry.name)
            info.mode, (info.uid, info.gid), info.mtime = entry.mode, entry.owner, 1_000_000
            info.type = tarfile.DIRTYPE if entry.name.endswith("/") else entry.kind
            info.linkname, info.size = entry.target, len(entry.data)
            info.pax_headers = entry.pax
            tar.addfile(info, io.BytesIO(entry.data))
    return buffer.getvalue()


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def config(layers: list[bytes], **changes: Any) -> bytes:
    value = {
        "os": "linux",
        "architecture": "amd64",
        "config": {"Env": ["PATH=/bin:/opt/x", "GREETING=good day"], "Entrypoint": ["/bin/false"]},
        "rootfs": {"type": "layers", "diff_ids": [digest(each) for each in layers]},
    }
    return json.dumps({**value, **changes}).encode()


def docker_archive(path: Path, layers: list[bytes], **changes: Any) -> Path:
    """Write what ``docker save`` writes."""
    names = [f"{number}/layer.tar" for number in range(len(layers))]
    manifest = [{"Config": "c.json", "RepoTags": ["tiny:1"], "Layers": names}]
    members = [Entry(name=name, data=data) for name, data in zip(names, layers, strict=True)]
    path.write_bytes(
        layer(
            Entry(name="c.json", data=config(layers, **changes)),
            *members,
            Entry(name="manifest.json", data=json.dumps(manifest).encode()),
        )
    )
    return path


def blob(top: Path, data: bytes) -> dict[str, Any]:
    """Put a file into a layout; give its descriptor."""
    place = top / "blobs/sha256" / digest(data)[7:]
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(data)
    return {"digest": digest(data), "size": len(data)}


def manifest(top: Path, layers: list[bytes], packed: list[bytes] | None = None) -> dict[str, Any]:
    """Put an image into a layout; give the descriptor of its manifest."""
    kind = "application/vnd.oci.image.layer.v1.tar+gzip"
    value = {
        "schemaVersion": 2,
        "config": {**blob(top, config(layers)), "mediaType": "application/vnd.oci.image.config"},
        "layers": [{**blob(top, each), "mediaType": kind} for each in packed or layers],
    }
    found = blob(top, json.dumps(value).encode())
    return {**found, "mediaType": "application/vnd.oci.image.manifest.v1+json"}


def layout(top: Path, *manifests: dict[str, Any]) -> Path:
    top.mkdir(exist_ok=True)
    (top / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (top / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": manifests}))
    return top


def named(descriptor: dict[str, Any], tag: str) -> dict[str, Any]:
    return {**descriptor, "annotations": {"org.opencontainers.image.ref.name": tag}}


def platform(descriptor: dict[str, Any], arch: str) -> dict[str, Any]:
    return {**descriptor, "platform": {"os": "linux", "architecture": arch}}


def squashfs(path: Path, tree: Path) -> Path:
    words = ["mksquashfs", str(tree), str(path), "-quiet", "-no-progress", "-all-root"]
    subprocess.run(words, check=True, capture_output=True)
    return path


def sif(
    path: Path, content: bytes, *, system: int = 1, arch: bytes = b"02\0", length: int | None = None
) -> Path:
    """Write a SIF with one partition, as the reference implementation lays it out."""
    offset = 32768
    head = struct.pack(
        "<32s10s3s3s16s8q",
        *(b"#!/usr/bin/env run-singularity\n", b"SIF_MAGIC\0", b"01\0", arch, bytes(16)),
        *(0, 0, 47, 48, 128, 48 * 585, offset, len(content)),
    )
    extra = struct.pack("<ii3s", system, 2, arch)
    size = len(content) if length is None else length
    numbers = (offset, size, size, 0, 0, 0, 0)
    other = struct.pack("<i?IIIqqqqqqq128s384s", 0x4001, True, 1, 1, 0, *numbers, b"def", b"")
    root = struct.pack("<i?IIIqqqqqqq128s384s", 0x4004, True, 2, 1, 0, *numbers, b"root", extra)
    path.write_bytes((head + other + root).ljust(offset, b"\0") + content)
    return path


def empty_disk(path: Path, mib: int = 128) -> tuple[Path, Layout]:
    """Make a disk with an empty ext4, as a conversion does first."""
    shape = Layout(disk_bytes=mib * MIB, disk_id=b"abcd", uuid=UUID)
    with path.open("wb") as file:
        file.truncate(shape.disk_bytes)
    path.chmod(0o666)
    tree = path.with_name("empty")
    tree.mkdir(exist_ok=True)
    subprocess.run(mke2fs_argv(shape, tree, str(path)), check=True, capture_output=True)
    return path, shape


def file_system(disk: Path) -> Path:
    """Cut the file system out of a disk, and have e2fsck look at it."""
    alone = disk.with_suffix(".ext4")
    words = ["dd", f"if={disk}", f"of={alone}", "bs=1M", "skip=1", "conv=sparse", "status=none"]
    subprocess.run(words, check=True)
    check = ["e2fsck", "-fn", str(alone)]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    return alone


def look(alone: Path, request: str) -> str:
    """Ask debugfs."""
    words = ["debugfs", "-R", request, str(alone)]
    return subprocess.run(words, check=True, capture_output=True).stdout.decode("utf-8", "replace")
