"""The work directory on its way out: what the job changed, found and sent by its own user.

Paths go parents first; deletions, when they are wanted, before all else and deepest first.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator

from mayfly.guest.fields import shown
from mayfly.guest.tree import Entry, Type, pack_entry
from mayfly.guest.workdir import Index, noted, read_index

TOP = b"."
_OTHERS = {
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
ZEROS = bytes(64 << 10)


def send(target: int, path: bytes, index: int, *, deletions: bool) -> bytes:
    """Write the changes beneath ``path`` to ``target`` as a stream of entries: an assistant."""
    sender = Sender(target, read_index(index))
    try:
        os.chdir(path)
    except OSError as error:
        sender.give_up(f"cannot be entered: {error.strerror}")
    else:
        sender.run(deletions=deletions)
    return b""


class Sender:
    """Compares the current directory with an index and writes what differs."""

    def __init__(self, target: int, index: Index) -> None:
        self._target = target
        self._index = index
        self._seen: set[bytes] = set()
        self._hidden: list[bytes] = []
        self._notes: list[tuple[bytes, str]] = []

    def run(self, *, deletions: bool) -> None:
        """Write all entries, up to END."""
        changed = list(self._changed())
        if deletions:
            for path in sorted(self._deleted(), reverse=True):
                self._write(Entry(type=Type.DELETED, path=shown(path)))
        for path, status in changed:
            self._send(path, status)
        for path, why in self._notes:
            self._note(path, why)
        self._write(Entry(type=Type.END))

    def give_up(self, why: str) -> None:
        """Write that nothing could be read."""
        self._note(TOP, why)
        self._write(Entry(type=Type.END))

    def _changed(self) -> Iterator[tuple[bytes, os.stat_result]]:
        top = os.lstat(TOP)
        folders = [(TOP, top)]
        while folders:
            path, status = folders.pop()
            if self._differs(path, status):
                yield path, status
            if not stat.S_ISDIR(status.st_mode):
                continue
            if status.st_dev != top.st_dev:
                # A shared directory, say; the host has it already.
                self._hidden.append(path)
            else:
                # The last in is the first out: so they leave in the order of their names.
                folders += reversed(self._inside(path))

    def _inside(self, folder: bytes) -> list[tuple[bytes, os.stat_result]]:
        prefix = b"" if folder == TOP else folder + b"/"
        try:
            paths = [prefix + name for name in sorted(os.listdir(folder))]
        except OSError as error:
            self._hide(folder, error)
            return []
        return [(path, status) for path in paths if (status := self._status(path)) is not None]

    def _status(self, path: bytes) -> os.stat_result | None:
        try:
            return os.lstat(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._hide(path, error)
            return None

    def _hide(self, path: bytes, error: OSError) -> None:
        # What cannot be seen must not be taken for deleted.
        self._hidden.append(path)
        self._notes.append((path, f"cannot be read: {error.strerror}"))

    def _differs(self, path: bytes, status: os.stat_result) -> bool:
        self._seen.add(path)
        return self._index.get(path) != noted(status)

    def _deleted(self) -> Collection[bytes]:
        gone = self._index.keys() - self._seen - set(self._hidden)
        beneath = tuple(b"" if path == TOP else path + b"/" for path in self._hidden)
        return [path for path in gone if not path.startswith(beneath)]

    def _send(self, path: bytes, status: os.stat_result) -> None:
        sort = stat.S_IFMT(status.st_mode)
        if sort == stat.S_IFREG:
            self._send_file(path)
        elif sort == stat.S_IFLNK:
            self._send_link(path, status)
        elif sort == stat.S_IFDIR:
            self._write(_entry(Type.DIRECTORY, path, status))
        elif sort == stat.S_IFIFO:
            self._write(_entry(Type.FIFO, path, status))
        else:
            self._note(path, f"{_OTHERS.get(sort, 'of an unknown kind')}: not copied")

    def _send_link(self, path: bytes, status: os.stat_result) -> None:
        try:
            target = os.readlink(path)
        except OSError as error:
            self._note(path, f"cannot be read: {error.strerror}")
            return
        self._write(_entry(Type.LINK, path, status, target=shown(target)))

    def _send_file(self, path: bytes) -> None:
        try:
            # Not to wait for ever if it was made a FIFO meanwhile.
            file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            self._note(path, f"cannot be read: {error.strerror}")
            return
        try:
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode):
                self._note(path, "changed while it was read")
                return
            self._write(_entry(Type.FILE, path, status, size=status.st_size))
            self._copy(path, file, status.st_size)
            after = os.fstat(file)
        finally:
            os.close(file)
        if (after.st_size, after.st_mtime_ns) != (status.st_size, status.st_mtime_ns):
            self._note(path, "changed while it was read")

    def _copy(self, path: bytes, file: int, size: int) -> None:
        sent = 0
        try:
            while sent < size:
                count = os.sendfile(self._target, file, sent, size - sent)
                if not count:
                    break
                sent += count
        except OSError as error:
            self._notes.append((path, f"cannot be read: {error.strerror}"))
        # What was announced must come, or the rest of the stream would be read as content.
        while sent < size:
            sent += os.write(self._target, ZEROS[: size - sent])

    def _note(self, path: bytes, why: str) -> None:
        self._write(Entry(type=Type.NOTE, path=_name(path), target=why))

    def _write(self, entry: Entry) -> None:
        view = memoryview(pack_entry(entry))
        while view:
            view = view[os.write(self._target, view) :]


def _entry(
    sort: Type, path: bytes, status: os.stat_result, *, size: int = 0, target: str = ""
) -> Entry:
    return Entry(
        type=sort,
        path=_name(path),
        mode=stat.S_IMODE(status.st_mode),
        size=size,
        mtime_ns=status.st_mtime_ns,
        target=target,
    )


def _name(path: bytes) -> str:
    return "" if path == TOP else shown(path)
