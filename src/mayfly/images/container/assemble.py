"""Put the layers of a container image together and write them into the file system of a disk.

Runs confined (``confine``). Each layer is read twice: once for what there is, since a higher layer
may take back what a lower one brings, and once for the content of what has remained. Both times it
is hashed, so that a file which changes in between is found out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from mayfly.errors import Quota, Untrusted
from mayfly.images.confine import Tell
from mayfly.images.container import ext4
from mayfly.images.container.ext4 import FileSystem
from mayfly.images.container.packed import Part, unpacked
from mayfly.images.container.tar import FILE, Member, Tar
from mayfly.images.container.tree import Kind, Limits, Node, Tree
from mayfly.units import show_size

_PIECE = 1 << 18
_BLOCK = 4096
_INODE_ROOM = 512
_OS_RELEASE = (b"etc/os-release", b"usr/lib/os-release")
_OS_BYTES = 1 << 16
_SHELL = b"bin/sh"
_TOLD_EVERY = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be made."""

    layers: tuple[Part, ...]
    """From the lowest on; the last ``own`` of them are ours, not the container's."""
    own: int
    disk: str
    """The disk file, with an empty ext4 in it."""
    offset: int
    """Of the file system in the disk."""
    room_bytes: int
    """How much fits into the file system."""
    limits: Limits = field(default_factory=Limits)


def assemble(plan: Plan, tell: Tell) -> dict[str, Any]:
    """Do it; tell what was found."""
    tree = Tree(plan.limits)
    hashes = _gather(plan, tree, tell)
    tree.forget(b"lost+found")  # the file system has its own
    files = _check_room(plan, tree)
    with ext4.opened(plan.disk, offset=plan.offset) as system:
        _make(system, tree)
        release = _fill(plan, tree, system, hashes, tell)
    return {
        "os_release": release,
        "files": files,
        "left_out": tree.left_out,
        "shell": tree.find(_SHELL) is not None,
    }


def _gather(plan: Plan, tree: Tree, tell: Tell) -> list[str]:
    """Read what all layers have; give the digest of each, unpacked."""
    hashes = []
    left = 2 * plan.room_bytes
    for layer, part in enumerate(plan.layers):
        tell("layers", layer / len(plan.layers))
        with unpacked(part, limit=left, what=_what(layer, plan)) as stream:
            for number, member in enumerate(Tar(stream)):
                _check_size(member, plan.room_bytes)
                tree.apply(member, layer=layer, number=number)
            hashes.append(stream.finish())
        left -= stream.bytes
    return hashes


def _check_size(member: Member, room_bytes: int) -> None:
    """Refuse a file before it is unpacked: a bomb says in its header how large it is."""
    if member.size > room_bytes:
        raise Quota(
            f"a file in it has {show_size(member.size)}, and the disk of the image has room for"
            f" {show_size(room_bytes)}",
            hint="give a larger --size",
        )


def _what(layer: int, plan: Plan) -> str:
    count = len(plan.layers) - plan.own
    return f"layer {layer + 1} of {count}" if layer < count else "what Mayfly adds"


def _check_room(plan: Plan, tree: Tree) -> int:
    """Refuse what cannot fit, before it is written; give how many files there are."""
    needed, seen = 0, 0
    counted: set[int] = set()
    for _, _, node in tree.nodes():
        if id(node) not in counted:
            counted.add(id(node))
            needed += -(-node.size // _BLOCK) * _BLOCK + _INODE_ROOM
            needed += _BLOCK if node.kind is Kind.DIRECTORY else 0
            seen += 1
    if needed > plan.room_bytes:
        raise Quota(
            f"the files of the image take {show_size(needed)}, and its disk has room for"
            f" {show_size(plan.room_bytes)}",
            hint="give a larger --size",
        )
    return seen


def _make(system: FileSystem, tree: Tree) -> None:
    """Make everything but the content of files."""
    tree.root.inode = ext4.ROOT
    _finish(system, tree.root)
    for directory, name, node in tree.nodes():
        above = directory.inode
        if node.inode:
            system.add_name(above, name, node.inode)
            continue
        if node.kind is Kind.DIRECTORY:
            node.inode = system.make_directory(above, name)
        elif node.kind is Kind.FILE:
            node.inode = system.make_file(above, name, node.size)
        elif node.kind is Kind.SYMLINK:
            node.inode = system.make_symlink(above, name, node.target)
        else:
            node.inode = system.make_fifo(above, name)
        _finish(system, node)


def _finish(system: FileSystem, node: Node) -> None:
    mode = 0o777 if node.kind is Kind.SYMLINK else node.mode
    system.describe(node.inode, mode, (node.uid, node.gid), node.mtime)
    if node.xattrs:
        system.set_xattrs(node.inode, node.xattrs)


def _fill(plan: Plan, tree: Tree, system: FileSystem, hashes: list[str], tell: Tell) -> str:
    """Write the content of the files; give that of os-release."""
    wanted: dict[tuple[int, int], Node] = {}
    for _, _, node in tree.nodes():
        if node.kind is Kind.FILE and node.size:
            wanted[node.place] = node
    release = next(filter(None, map(tree.find, _OS_RELEASE)), None)
    text, done = b"", 0
    tell("files", 0.0)
    for layer, part in enumerate(plan.layers):
        with unpacked(part, limit=2 * plan.room_bytes, what=_what(layer, plan)) as stream:
            archive = Tar(stream)
            for number, member in enumerate(archive):
                file = wanted.get((layer, number))
                if file is None or member.kind != FILE or member.size != file.size:
                    continue
                pieces = _pieces(archive)
                if file is release and file.size <= _OS_BYTES:
                    text = b"".join(pieces)
                    pieces = iter([text])
                system.write(file.inode, pieces)
                done += 1
                if done % _TOLD_EVERY == 0:
                    tell("files", done / len(wanted))
            if stream.finish() != hashes[layer]:
                raise Untrusted(f"{_what(layer, plan)} was changed while it was read")
    return text.decode("utf-8", "replace")


def _pieces(archive: Tar) -> Iterator[bytes]:
    while piece := archive.read(_PIECE):
        yield piece
