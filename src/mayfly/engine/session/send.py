"""The work directory on its way in: a survey first, then a stream of entries.

Nothing is followed: a link travels as a link. What cannot be read is named and left out.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from mayfly.engine.session.job import Workdir
from mayfly.engine.session.notes import Notes, Remark
from mayfly.engine.session.openat import CONTENT, LISTING, Refused, Tree, find
from mayfly.engine.session.snapshot import Seen, seen, strange, type_of
from mayfly.errors import Denied, Invalid, Missing
from mayfly.guest.tree import Entry, Type, pack_entry
from mayfly.units import show_size

CHUNK = 128 << 10
"""Bytes read from a file at once."""
TIME_LIMIT_NS = (1 << 62) - 1
"""An entry carries no later time, a file system may: the year 2116."""


class Item(NamedTuple):
    """A path of the survey; ``problem`` says why it stays here."""

    path: str
    type: Type | None
    size: int
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What there is to send, parents before what they hold, names in order."""

    items: tuple[Item, ...]
    files: int
    size_bytes: int


def check_workdir(workdir: Workdir) -> Survey:
    """Walk the work directory ahead of a run; raises as ``survey`` does."""
    tree = open_tree(workdir)
    try:
        return survey(workdir, tree)
    finally:
        tree.close()


def open_tree(workdir: Workdir) -> Tree:
    """Open the work directory; raises ``Missing`` or ``Denied``."""
    try:
        return Tree(workdir.path)
    except OSError as error:
        kind = Missing if isinstance(error, FileNotFoundError) else Denied
        raise kind(f"cannot open the work directory {workdir.path}: {error.strerror}") from error


def survey(workdir: Workdir, tree: Tree) -> Survey:
    """Walk the work directory; raises when it cannot be read or exceeds its limits."""
    items: list[Item] = []
    size = 0
    for item in _walk(tree):
        if item.path == "" and item.problem:
            raise Denied(f"cannot read the work directory {workdir.path}: {item.problem}")
        items.append(item)
        size += item.size
        if len(items) - 1 > workdir.limit_files:
            raise _too_large(workdir, f"more than {workdir.limit_files} files")
    if size > workdir.limit_bytes:
        raise _too_large(workdir, f"{show_size(size)} in {len(items) - 1} files")
    return Survey(items=tuple(items), files=len(items) - 1, size_bytes=size)


def _too_large(workdir: Workdir, found: str) -> Invalid:
    limits = f"{show_size(workdir.limit_bytes)} and {workdir.limit_files} files"
    return Invalid(
        f"the work directory {workdir.path} holds {found}; the limit is {limits}",
        hint="mount it live with --share, leave it out with --no-workdir, or raise --workdir-limit",
    )


def _walk(tree: Tree) -> Iterator[Item]:
    ahead = [Item("", Type.DIRECTORY, 0, "")]
    while ahead:
        item = ahead.pop()
        if item.type is not Type.DIRECTORY:
            yield item
            continue
        try:
            below = _list(tree, item.path)
        except (OSError, Refused) as error:
            yield item._replace(type=None, problem=_reason(error))
            continue
        yield item
        ahead += reversed(below)


def _list(tree: Tree, path: str) -> list[Item]:
    descriptor = tree.open(path, LISTING)
    try:
        with os.scandir(descriptor) as entries:
            names = sorted(entry.name for entry in entries)
        looks = ((name, find(descriptor, name)) for name in names)
        return [_item(path, name, look) for name, look in looks if look is not None]
    finally:
        os.close(descriptor)


def _item(directory: str, name: str, status: os.stat_result) -> Item:
    path = f"{directory}/{name}" if directory else name
    kind = type_of(status.st_mode)
    size = status.st_size if kind is Type.FILE else 0
    return Item(path, kind, size, "" if kind else strange(status.st_mode))


def _reason(error: OSError | Refused) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)


class Source:
    """The stream of entries, made as it is asked for; ``sent`` fills with what went."""

    def __init__(self, tree: Tree, plan: Survey, notes: Notes) -> None:
        self._tree = tree
        self._plan = plan
        self._notes = notes
        self._chunks = self._produce()
        self._ready = bytearray()
        self.sent: dict[str, Seen] = {}
        self.size_bytes = 0
        """Of the contents that went so far."""
        self.exhausted = False

    def read(self, limit: int) -> bytes:
        """Give up to ``limit`` more bytes; fewer only at the end."""
        while len(self._ready) < limit and not self.exhausted:
            chunk = next(self._chunks, None)
            if chunk is None:
                self.exhausted = True
            else:
                self._ready += chunk
        data = bytes(self._ready[:limit])
        del self._ready[:limit]
        return data

    @property
    def finished(self) -> bool:
        """Whether everything was given out."""
        return self.exhausted and not self._ready

    def _produce(self) -> Iterator[bytes]:
        for item in self._plan.items:
            if item.problem:
                self._notes.add(Remark.NOT_SENT, item.path, item.problem)
                continue
            try:
                yield from self._entry(item)
            except (OSError, Refused) as error:
                self._notes.add(Remark.NOT_SENT, item.path, _reason(error))
        yield pack_entry(Entry(type=Type.END))

    def _entry(self, item: Item) -> Iterator[bytes]:
        if item.path and item.type is not Type.FILE:
            yield self._simple(item.path)
            return
        descriptor = self._tree.open(item.path, CONTENT if item.path else LISTING)
        try:
            status = os.fstat(descriptor)
            if type_of(status.st_mode) is Type.FILE:
                yield from self._file(item.path, descriptor, status)
            elif item.path == "":
                yield self._header("", Type.DIRECTORY, status)
            else:
                self._notes.add(Remark.NOT_SENT, item.path, "it became something else")
        finally:
            os.close(descriptor)

    def _simple(self, path: str) -> bytes:
        with self._tree.parent(path) as (parent, name):
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
            kind = type_of(status.st_mode)
            if kind is None or kind is Type.FILE:
                raise Refused("it became something else")
            target = os.readlink(name, dir_fd=parent) if kind is Type.LINK else ""
            return self._header(path, kind, status, target)

    def _header(self, path: str, kind: Type, status: os.stat_result, target: str = "") -> bytes:
        self.sent[path] = seen(status, target)
        return pack_entry(
            Entry(
                type=kind,
                path=path,
                mode=status.st_mode & 0o7777,
                size=status.st_size if kind is Type.FILE else 0,
                mtime_ns=max(-TIME_LIMIT_NS, min(status.st_mtime_ns, TIME_LIMIT_NS)),
                target=target,
            )
        )

    def _file(self, path: str, descriptor: int, status: os.stat_result) -> Iterator[bytes]:
        yield self._header(path, Type.FILE, status)
        problem = ""
        remaining = status.st_size
        while remaining:
            # The size is announced: whatever happens, so many bytes must follow.
            data, problem = (b"", problem) if problem else _read(descriptor, remaining)
            data = data or bytes(min(CHUNK, remaining))
            remaining -= len(data)
            self.size_bytes += len(data)
            yield data
        problem = problem or _change(status, os.fstat(descriptor))
        if problem:
            self._notes.add(Remark.CHANGED_WHILE_SENT, path, problem)
            yield pack_entry(Entry(type=Type.NOTE, path=path, target=problem))


def _read(descriptor: int, remaining: int) -> tuple[bytes, str]:
    try:
        data = os.read(descriptor, min(CHUNK, remaining))
    except OSError as error:
        return b"", error.strerror or "read error"
    return data, "" if data else "it became shorter"


def _change(before: os.stat_result, after: os.stat_result) -> str:
    if after.st_size != before.st_size:
        return f"from {before.st_size} to {after.st_size} bytes"
    return "" if after.st_mtime_ns == before.st_mtime_ns else "its content"
