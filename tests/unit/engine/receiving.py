"""A work directory on its way back, for tests: a tree, what was sent of it, and a canary beside."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

from mayfly.engine.session.notes import Notes
from mayfly.engine.session.openat import Tree
from mayfly.engine.session.receive import Receiver
from mayfly.engine.session.send import Source, survey
from mayfly.guest.tree import Entry, Type, pack_entry
from tests.unit.engine.sessions import workdir

END = pack_entry(Entry(type=Type.END))
Looks = dict[str, tuple[object, ...]]


def file(path: str, content: bytes = b"new", *, mode: int = 0o644, size: int = -1) -> bytes:
    """Make an entry of a file, with its content."""
    size = len(content) if size < 0 else size
    return pack_entry(Entry(type=Type.FILE, path=path, mode=mode, size=size, mtime_ns=10**18)) + (
        content
    )


def entry(kind: Type, path: str, *, mode: int = 0o755, target: str = "") -> bytes:
    """Make an entry without content."""
    return pack_entry(Entry(type=kind, path=path, mode=mode, mtime_ns=10**18, target=target))


def link(path: str, target: str) -> bytes:
    """Make an entry of a link."""
    return entry(Type.LINK, path, mode=0o777, target=target)


class Receiving:
    """A receiver on ``top/tree``; ``top/canary`` stands beside it."""

    def __init__(self, top: Path, *, walk: bool = False) -> None:
        self.top = top
        self.path = top / "tree"
        self.path.mkdir(exist_ok=True)
        self.canary = top / "canary"
        self.canary.mkdir(exist_ok=True)
        (self.canary / "file").write_bytes(b"canary")
        (self.canary / "link").symlink_to("file")
        self.walk = walk
        self.notes = Notes()
        self.before: Looks = {}

    def receive(self, *pieces: bytes, end: bool = True, **limits: Any) -> tuple[str, ...]:
        """Send what is there, then take the pieces; those that are functions are called."""
        taking = self.begin(**limits)
        self.feed(taking, *pieces, *([END] if end else []))
        taking.close()
        return self.notes.lines()

    def begin(self, **limits: Any) -> Receiver:
        """Send the tree, and get ready for what comes back."""
        tree = Tree(self.path, walk=self.walk)
        given = workdir(self.path, **limits)
        source = Source(tree, survey(given, tree), Notes())
        while not source.finished:
            source.read(1 << 20)
        self.before = looks(self.top)
        return Receiver(tree, given, source.sent, self.notes)

    def feed(self, receiver: Receiver, *pieces: bytes) -> None:
        """Take a stream, in odd cuts."""
        data = b"".join(pieces)
        for at in range(0, len(data), 1013):
            if receiver.overrun or receiver.ended:
                return
            receiver.feed(data[at : at + 1013])

    def assert_contained(self) -> None:
        """Nothing outside the tree was touched, and nothing bad stands inside."""
        now = looks(self.top)
        assert {path for path in now if not path.startswith("tree")} == {
            path for path in self.before if not path.startswith("tree")
        }
        for path, what in self.before.items():
            if not path.startswith("tree"):
                assert now[path] == what, path
        for path, _, names in os.walk(self.path):
            assert not [name for name in names if name.startswith(".mayfly-")], path
            for name in names:
                mode = os.lstat(os.path.join(path, name)).st_mode
                assert stat.S_ISREG(mode) or stat.S_ISLNK(mode) or stat.S_ISFIFO(mode)
                assert stat.S_ISLNK(mode) or not mode & 0o7000


def looks(top: Path) -> Looks:
    """Look at everything beneath a directory; access times apart."""
    found: Looks = {}
    for path, folders, names in os.walk(top):
        for name in (*folders, *names):
            full = os.path.join(path, name)
            status = os.lstat(full)
            content = b""
            if stat.S_ISREG(status.st_mode):
                content = Path(full).read_bytes()
            found[os.path.relpath(full, top)] = (
                status.st_mode,
                status.st_size,
                status.st_mtime_ns,
                status.st_ctime_ns,
                status.st_ino,
                content,
            )
    return found
