"""Open a container image in the archive that ``docker save`` writes: a tar with layers in it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from mayfly.errors import Invalid
from mayfly.images.confine import Bounds, Tell, confined
from mayfly.images.container import tar
from mayfly.images.container.contents import Contents, with_diff_ids
from mayfly.images.container.oci import JSON_BYTES, parse_config
from mayfly.images.container.packed import Part, packing, unpacked
from mayfly.images.container.tar import Member, Tar
from mayfly.images.follow import Report
from mayfly.images.outside import opened_file, sha512_of, unchanging
from mayfly.images.room import check_room
from mayfly.units import GIB

_MOST_MEMBERS = 20_000
_LINKS = 8
_UNPACKED_BYTES = 256 * GIB
_HINT = "'docker save IMAGE -o FILE' writes such an archive; an OCI layout is read as oci:DIR"


@contextmanager
def opened_archive(file: Path, tag: str, work: Path, *, report: Report) -> Iterator[Contents]:
    """Open the image that a tag means, or the only one; ``work`` is a private directory."""
    with opened_file(file) as given, unchanging(given, work) as still:
        report("check", None)
        sha512 = sha512_of(still)
        with _plain(still, work, report) as plain:
            size = os.fstat(plain.fileno()).st_size
            part = Part(fd=plain.fileno(), offset=0, size=size)
            found = confined(
                partial(_survey, part, tag), what=file.name, keep=(part.fd,), bounds=Bounds()
            )
            layers = [(int(offset), int(length)) for offset, length in found["layers"]]
            config = parse_config(str(found["config"]).encode(), len(layers))
            parts = [Part(fd=part.fd, offset=at, size=length) for at, length in layers]
            yield Contents(
                layers=with_diff_ids(parts, config),
                config=config,
                source=f"docker-archive:{file.name}",
                endorsed_sha512=sha512,
            )


@contextmanager
def _plain(file: BinaryIO, work: Path, report: Report) -> Iterator[BinaryIO]:
    """Give the archive unpacked: its layers are read where they lie in it."""
    if not packing(os.pread(file.fileno(), 8, 0)):
        yield file
        return
    size = os.fstat(file.fileno()).st_size
    check_room(work, size)
    path = work / "plain.tar"
    with path.open("x+b") as plain:
        part = Part(fd=file.fileno(), offset=0, size=size)
        free = os.statvfs(work).f_bavail * os.statvfs(work).f_frsize
        room = min(_UNPACKED_BYTES, free // 2)
        confined(
            partial(_unpack, part, plain.fileno(), room),
            what="the archive",
            keep=(part.fd, plain.fileno()),
            bounds=Bounds(file_bytes=room),
            report=report,
        )
        yield plain
    path.unlink()


def _unpack(part: Part, target: int, limit: int, tell: Tell) -> None:
    tell("layers", None)
    with unpacked(part, limit=limit, what="the archive") as stream:
        while data := stream.read(1 << 20):
            while data:
                data = data[os.write(target, data) :]


def _survey(part: Part, tag: str, _: Tell) -> dict[str, Any]:
    """Find the image in the archive: where its layers lie, and its configuration."""
    members: dict[bytes, Member] = {}
    with unpacked(part, limit=part.size, what="the archive") as stream:
        for member in Tar(stream):
            members[member.name.removeprefix(b"./")] = member
            if len(members) > _MOST_MEMBERS:
                raise Invalid(f"the archive has more than {_MOST_MEMBERS} members", hint=_HINT)
    image = _choose(_manifest(_content(part, members, b"manifest.json")), tag)
    layers = [_find(members, str(name).encode("utf-8", "replace")) for name in image["Layers"]]
    config = _content(part, members, str(image["Config"]).encode("utf-8", "replace"))
    return {
        "config": config.decode("utf-8", "replace"),
        "layers": [(layer.offset, layer.size) for layer in layers],
    }


def _manifest(data: bytes) -> list[dict[str, Any]]:
    try:
        found = json.loads(data)
    except ValueError as error:
        raise Invalid(f"manifest.json is not JSON: {error}") from error
    if not isinstance(found, list) or not all(map(_is_image, found)) or not found:
        raise Invalid("manifest.json lists no images", hint=_HINT)
    return found


def _is_image(entry: object) -> bool:
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("Config"), str)
        and isinstance(entry.get("Layers"), list)
        and isinstance(entry.get("RepoTags") or [], list)
    )


def _choose(images: list[dict[str, Any]], tag: str) -> dict[str, Any]:
    wanted = [image for image in images if not tag or tag in (image.get("RepoTags") or [])]
    if len(wanted) == 1:
        return wanted[0]
    tags = sorted({str(name)[:100] for image in images for name in image.get("RepoTags") or []})
    said = f"no image '{tag}'" if tag else f"{len(images)} images"
    raise Invalid(
        f"the archive has {said}", hint=f"name one as :TAG; there are: {', '.join(tags[:20])}"
    )


def _find(members: dict[bytes, Member], name: bytes) -> Member:
    """Give a file of the archive. Older Docker writes a layer once, and links for the others."""
    name = os.path.normpath(name)
    for _ in range(_LINKS):
        member = members.get(name)
        if member is None or member.kind not in (tar.FILE, tar.SYMLINK, tar.LINK):
            break
        if member.kind == tar.FILE:
            return member
        above = os.path.dirname(name) if member.kind == tar.SYMLINK else b""
        name = os.path.normpath(os.path.join(above, member.target))
    raise Invalid(f"the archive lacks {name[:100].decode('utf-8', 'replace')!r}", hint=_HINT)


def _content(part: Part, members: dict[bytes, Member], name: bytes) -> bytes:
    member = _find(members, name)
    if member.size > JSON_BYTES:
        raise Invalid(f"the archive's {name[:100].decode('utf-8', 'replace')!r} is too large")
    return os.pread(part.fd, member.size, member.offset)
