"""The files of a container image, put together from its layers: in memory, not on this host.

A layer adds, replaces and removes. Nothing that a layer says is ever a path of the host: names are
looked up among our own values, and links are followed as the machine would follow them, where
nothing is above its root.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from mayfly.errors import Invalid, Quota
from mayfly.images.container import tar
from mayfly.images.container.tar import Member

_WHITEOUT = b".wh."
_OPAQUE = b".wh..wh..opq"
_WHITEOUT_META = b".wh..wh."
_LINKS = 40
"""As many as Linux follows in one path."""
_NAME_BYTES = 255
_PATH_BYTES = 4096
KEPT_XATTRS = (b"security.capability",)


class Kind(Enum):
    """What a node is."""

    DIRECTORY = "directory"
    FILE = "file"
    SYMLINK = "symlink"
    FIFO = "fifo"


_KINDS = {tar.FILE: Kind.FILE, tar.SYMLINK: Kind.SYMLINK, tar.FIFO: Kind.FIFO}


@dataclass(slots=True, eq=False)
class Node:
    """A file, with all its names; the only value here that changes."""

    kind: Kind
    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    size: int = 0
    target: bytes = b""
    layer: int = 0
    """The last that named it."""
    place: tuple[int, int] = (-1, -1)
    """Layer and number of the member that has its content."""
    xattrs: dict[bytes, bytes] | None = None
    children: dict[bytes, Node] | None = None
    inode: int = 0
    """In the file system that is made of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much a container image may hold."""

    members: int = 1_000_000
    """In all layers."""
    name_bytes: int = 256 << 20


class Tree:
    """What the layers make together."""

    def __init__(self, limits: Limits) -> None:
        self.root = Node(Kind.DIRECTORY, children={})
        self.left_out = 0
        """Device files: the machine's kernel makes those that it has."""
        self._limits = limits
        self._members = 0
        self._name_bytes = 0

    def apply(self, member: Member, *, layer: int, number: int) -> None:
        """Take one member of a layer; the layers come from the lowest on."""
        self._count(len(member.name) + len(member.target))
        parts = split(member.name)
        if not parts:
            _describe(self.root, member, layer)
            return
        *above, name = parts
        if any(part.startswith(_WHITEOUT_META) for part in above):
            return
        if name.startswith(_WHITEOUT):
            self._white_out(above, name, layer)
            return
        children = self._directory(above, layer)
        if member.kind == tar.DIRECTORY:
            found = children.get(name)
            if found is None or found.kind is not Kind.DIRECTORY:
                found = children[name] = Node(Kind.DIRECTORY, children={})
            _describe(found, member, layer)
        elif member.kind == tar.LINK:
            self._link(children, name, member, layer)
        elif member.kind in _KINDS:
            node = Node(_KINDS[member.kind], size=member.size, target=member.target)
            node.place = (layer, number)
            if node.kind is Kind.SYMLINK and not _is_target(node.target):
                raise Invalid(f"the symbolic link {shown(member.name)} leads nowhere")
            _describe(node, member, layer)
            children[name] = node
        else:
            children.pop(name, None)
            self.left_out += 1

    def find(self, path: bytes) -> Node | None:
        """Give what is at a path, links followed, or None."""
        *above, name = split_any(path)
        for _ in range(_LINKS):
            children = self._walk(above, None)
            node = None if children is None else children.get(name)
            if node is None or node.kind is not Kind.SYMLINK:
                return node
            target = split_any(node.target)
            if not target or b".." in target[-1:]:
                return None
            above = [*([] if node.target.startswith(b"/") else above), *target[:-1]]
            name = target[-1]
        return None

    def forget(self, name: bytes) -> None:
        """Leave out what is in the root directory under a name."""
        _children(self.root).pop(name, None)

    def nodes(self) -> Iterator[tuple[Node, bytes, Node]]:
        """Give each name: the directory that it is in, itself, what it means; directories first."""
        waiting = [self.root]
        while waiting:
            directory = waiting.pop()
            for name, node in (directory.children or {}).items():
                yield directory, name, node
                if node.kind is Kind.DIRECTORY:
                    waiting.append(node)

    def _count(self, name_bytes: int) -> None:
        self._members += 1
        self._name_bytes += name_bytes
        if self._members > self._limits.members:
            raise Quota(f"there are more than {self._limits.members} files in the layers")
        if self._name_bytes > self._limits.name_bytes:
            raise Quota("the names of the files in the layers are too long in all")

    def _directory(self, parts: list[bytes], layer: int) -> dict[bytes, Node]:
        """Give the content of a directory, which is made if it is missing."""
        found = self._walk(parts, layer)
        assert found is not None
        return found

    def _walk(self, parts: list[bytes], layer: int | None) -> dict[bytes, Node] | None:
        """Go down, links followed; without a layer nothing is made, and None may come back."""
        stack = [self.root]
        waiting, links = parts[::-1], 0
        while waiting:
            part = waiting.pop()
            child = self._step(stack, part) or self._made(stack[-1], part, layer)
            if child is None:
                return None
            if child.kind is Kind.SYMLINK:
                links += 1
                if links > _LINKS:
                    raise Invalid(f"{shown(b'/'.join(parts))} goes through too many links")
                if child.target.startswith(b"/"):
                    stack = stack[:1]
                waiting += split_any(child.target)[::-1]
            elif child.kind is not Kind.DIRECTORY:
                if layer is None:
                    return None
                raise Invalid(f"{shown(b'/'.join(parts))} is beneath what is no directory")
            elif part != b"..":
                child.layer = child.layer if layer is None else layer
                stack.append(child)
        return _children(stack[-1])

    def _made(self, above: Node, part: bytes, layer: int | None) -> Node | None:
        """Make a directory that no layer has described; without a layer, nothing."""
        if layer is None:
            return None
        self._count(len(part))
        child = Node(Kind.DIRECTORY, children={})
        _children(above)[check_part(part)] = child
        return child

    def _step(self, stack: list[Node], part: bytes) -> Node | None:
        if part == b"..":
            if len(stack) > 1:
                stack.pop()
            return stack[-1]
        return _children(stack[-1]).get(part)

    def _white_out(self, above: list[bytes], name: bytes, layer: int) -> None:
        victim = name[len(_WHITEOUT) :]
        if name != _OPAQUE and victim in (b"", b".", b".."):
            raise Invalid(f"{shown(name)} would remove what is not in its directory")
        children = self._walk(above, None)
        if children is None:
            return
        if name == _OPAQUE:
            for other in list(children):
                _drop_lower(children, other, layer)
        elif not name.startswith(_WHITEOUT_META):
            _drop_lower(children, victim, layer)

    def _link(self, children: dict[bytes, Node], name: bytes, member: Member, layer: int) -> None:
        *above, last = split(member.target) or [b""]
        where = self._walk(above, None)
        node = where.get(last) if where is not None else None
        if node is None or node.kind is Kind.DIRECTORY:
            raise Invalid(
                f"{shown(member.name)} is a hard link to {shown(member.target)}, which is no file"
            )
        node.layer = layer
        children[name] = node


def _describe(node: Node, member: Member, layer: int) -> None:
    node.mode, node.uid, node.gid = member.mode, member.uid, member.gid
    if max(member.uid, member.gid) >= 1 << 32:
        raise Invalid(f"{shown(member.name)} belongs to a user or group beyond all numbers")
    node.mtime, node.layer = min(member.mtime, (1 << 31) - 1), layer
    kept = {key: member.xattrs[key] for key in KEPT_XATTRS if key in member.xattrs}
    node.xattrs = kept or None


def _drop_lower(children: dict[bytes, Node], name: bytes, layer: int) -> None:
    """Remove what lower layers have at a name; what this layer has put there stays."""
    waiting = [(children, name)]
    while waiting:
        where, one = waiting.pop()
        node = where.get(one)
        if node is None:
            continue
        if node.layer < layer:
            del where[one]
        elif node.children is not None:
            waiting += [(node.children, other) for other in node.children]


def _children(node: Node) -> dict[bytes, Node]:
    assert node.children is not None
    return node.children


def split(path: bytes) -> list[bytes]:
    """Give the parts of a member's name; refuse one that could mean a place outside."""
    parts = split_any(path)
    if b".." in parts:
        raise Invalid(f"the layer has a file with '..' in its name: {shown(path)}")
    if len(path) > _PATH_BYTES:
        raise Invalid(f"the layer has a file whose name is too long: {shown(path)}")
    return [check_part(part) for part in parts]


def check_part(part: bytes) -> bytes:
    """Give a name back, or refuse one that no file can have."""
    if b"\0" in part or len(part) > _NAME_BYTES:
        raise Invalid(f"the layer has a file whose name is too long or none: {shown(part)}")
    return part


def _is_target(target: bytes) -> bool:
    return 0 < len(target) < _PATH_BYTES and b"\0" not in target


def split_any(path: bytes) -> list[bytes]:
    """Give the parts of a path, without those that mean nothing."""
    return [part for part in path.split(b"/") if part not in (b"", b".")]


def shown(path: bytes) -> str:
    """Give a name for a message: short, and without control characters."""
    text = path[:200].decode("utf-8", "backslashreplace")
    return "'" + "".join(letter if letter.isprintable() else "?" for letter in text) + "'"
