"""The disk in an OVA: a tar with a description (.ovf), a manifest of digests (.mf), and one disk.

The description is not read: what it says about memory or networks is the site's to say. No name in
the archive is ever used as a path.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from mayfly.errors import Invalid, Untrusted
from mayfly.images.confine import Tell, confined
from mayfly.images.container import tar
from mayfly.images.container.packed import Part, Source
from mayfly.images.container.tar import Member, Tar
from mayfly.images.hostile import readable
from mayfly.images.room import check_room

_MOST_MEMBERS = 64
_MANIFEST_BYTES = 1 << 20
_ASIDE = (".ovf", ".mf", ".cert", ".iso", ".nvram", ".xml", ".pem", ".sig", ".txt")
_LINE = re.compile(r"(SHA1|SHA256|SHA512)\s?\((.+)\)\s?=\s?([0-9a-fA-F]{40,128})")
_PIECE = 1 << 22


def is_ova(file: BinaryIO) -> bool:
    """Tell whether a file is a tar, which is all that an OVA is on the outside."""
    return os.pread(file.fileno(), 5, 257) == b"ustar"


@contextmanager
def disk_in(file: BinaryIO, directory: Path) -> Iterator[BinaryIO]:
    """Give the disk in an OVA, copied into a private directory; any other file as it is."""
    if not is_ova(file):
        yield file
        return
    part = Part(fd=file.fileno(), offset=0, size=os.fstat(file.fileno()).st_size)
    found = confined(partial(survey, part), what="the OVA", keep=(part.fd,))
    inner = Part(fd=part.fd, offset=int(found["offset"]), size=int(found["size"]))
    check_room(directory, inner.size)
    path = directory / "inner"
    with path.open("xb") as target:
        source = Source(inner)
        while piece := source.read(_PIECE):
            target.write(piece)
        source.check("the disk in the OVA")
    with readable(path) as disk:
        yield disk
    path.unlink()


def survey(part: Part, _: Tell) -> dict[str, Any]:
    """Find the one disk, and check the digests; runs confined."""
    members: dict[str, Member] = {}
    for member in Tar(Source(part)):
        name = _plain(member)
        if name in members:
            raise Invalid(f"the OVA has two files of the name '{name}'")
        members[name] = member
        if len(members) > _MOST_MEMBERS:
            raise Invalid(f"the OVA has more than {_MOST_MEMBERS} files")
    if not any(name.lower().endswith(".ovf") for name in members):
        raise Invalid("it is a tar archive and no OVA: there is no .ovf in it")
    disks = [name for name in members if not name.lower().endswith(_ASIDE)]
    if len(disks) != 1:
        raise Invalid(
            f"the OVA has {len(disks)} disks: {', '.join(disks) or 'none'}",
            hint="machines have one: unpack it with tar, and import the disk that boots",
        )
    for name in members:
        if name.lower().endswith(".mf"):
            _check_manifest(part, members, name, disks[0])
    disk = members[disks[0]]
    return {"offset": disk.offset, "size": disk.size}


def _plain(member: Member) -> str:
    name = member.name.removeprefix(b"./").decode("utf-8", "replace")
    if member.kind != tar.FILE or "/" in name or name.startswith(".") or not name.isprintable():
        raise Invalid(f"the OVA has something else than plain files: {name[:100]!r}")
    return name


def _check_manifest(part: Part, members: Mapping[str, Member], name: str, disk: str) -> None:
    wanted = _parse_manifest(part, members[name], name)
    if disk not in wanted:
        raise Untrusted(f"the OVA's {name} does not speak of its disk {disk}")
    for file, (kind, digest) in wanted.items():
        if file not in members:
            raise Untrusted(f"the OVA lacks {file[:100]!r}, of which its {name} speaks")
        source = Source(_inside(part, members[file]))
        found = hashlib.new(kind)
        while piece := source.read(_PIECE):
            found.update(piece)
        if found.hexdigest() != digest.lower():
            raise Untrusted(
                f"{file} in the OVA is not what its {name} says: its {kind} is"
                f" {found.hexdigest()[:16]}…",
                hint="fetch or copy it again; if that does not help, it was tampered with",
            )


def _parse_manifest(part: Part, member: Member, name: str) -> dict[str, tuple[str, str]]:
    if member.size > _MANIFEST_BYTES:
        raise Invalid(f"the OVA's {name} is too large")
    text = Source(_inside(part, member)).read(_MANIFEST_BYTES).decode("utf-8", "replace")
    found = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        match = _LINE.fullmatch(line)
        if match is None:
            raise Invalid(f"the OVA's {name} has a line that is no digest: {line[:100]!r}")
        found[match[2]] = (match[1].lower(), match[3])
    return found


def _inside(part: Part, member: Member) -> Part:
    return Part(fd=part.fd, offset=member.offset, size=member.size)
