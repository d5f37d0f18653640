"""The work directory on its way back, from a machine that may be hostile.

Entries are written as the user, beneath the directory only (``openat``), under the conflict rule
(``place``), within limits. What is not taken is named; the rest goes on.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

from mayfly.engine.session.job import Workdir
from mayfly.engine.session.notes import Notes, Remark
from mayfly.engine.session.openat import DIRECTORY, Refused, Tree, parts
from mayfly.engine.session.place import Arrival, check_link, put_directory, put_link, remove
from mayfly.engine.session.snapshot import Seen
from mayfly.guest.tree import Entry, EntryParser, TreeError, Type

SKIP_LIMIT = 64 << 20
"""Bytes over the limit that are read past, to name the files they belong to."""
SPARE_ENTRIES = 10_000
"""Entries over the limit on files that are read past; notes and deletions count too."""
FREE_HEADER = 512
"""Bytes of each entry's header that are not charged: a usual path costs nothing."""


class Receiver:
    """Takes the stream of entries; ``sent`` is what went in, and follows what is put in place."""

    def __init__(self, tree: Tree, workdir: Workdir, sent: dict[str, Seen], notes: Notes) -> None:
        self._tree = tree
        self._workdir = workdir
        self._sent = sent
        self._notes = notes
        self._parser = EntryParser()
        self._arrival: Arrival | None = None
        self._entry = Entry(type=Type.END)
        self._remaining = 0
        self._skipped = 0
        self._moved: dict[str, str] = {}
        self._directories: dict[str, tuple[int, int]] = {}
        """Mode and time that each gets at the end: only these, a machine may name very many."""
        self._header_bytes = 0
        self._handlers: dict[Type, Callable[[Entry], None]] = {
            Type.FILE: self._file,
            Type.DIRECTORY: self._directory,
            Type.LINK: self._link,
            Type.FIFO: self._fifo,
            Type.DELETED: self._deleted,
            Type.NOTE: self._note,
        }
        self.entries = 0
        self.files = 0
        self.size_bytes = 0
        """Announced for the files that were taken."""
        self.last = ""
        """The path that came last."""

    @property
    def ended(self) -> bool:
        """Whether the last entry came."""
        return self._parser.ended

    @property
    def overrun(self) -> bool:
        """Whether so much is over the limits that the rest is not even looked at."""
        return (
            self._skipped > SKIP_LIMIT or self.entries > self._workdir.limit_files + SPARE_ENTRIES
        )

    def feed(self, data: bytes) -> None:
        """Take more of the stream; raises ``TreeError`` when it is none."""
        if self.ended:
            raise TreeError("there are bytes after the last entry")
        for piece in self._parser.feed(data):
            if isinstance(piece, bytes):
                self._content(piece)
            elif piece.type is not Type.END:
                self._take(piece)
            if self.overrun:
                return

    @property
    def unfinished(self) -> str:
        """The file whose content is still coming, or ""."""
        return "" if self._arrival is None else self._entry.path

    def close(self) -> None:
        """Remove what is unfinished, and give the directories their modes and times."""
        self._drop()
        for path, (mode, mtime_ns) in reversed(self._directories.items()):
            with suppress(OSError, Refused):
                self._settle(path, mode, mtime_ns)
        self._directories.clear()

    def _take(self, entry: Entry) -> None:
        self.entries += 1
        self.last = entry.path
        # What the last file announced has come: the parser gives its content before this.
        self._drop()
        if not self._fits(entry):
            self._notes.add(Remark.OVER_LIMIT, entry.path)
            return
        try:
            parts(entry.path)
            self._handlers[entry.type](entry)
        except Refused as error:
            self._notes.add(Remark.REFUSED, entry.path, str(error))
        except OSError as error:
            self._complain(entry.path, error)

    def _fits(self, entry: Entry) -> bool:
        size = entry.size if entry.type is Type.FILE else 0
        header = self._cost(entry)
        counts = entry.type in {Type.FILE, Type.DIRECTORY, Type.LINK}
        room = self._workdir.limit_bytes - self.size_bytes - self._header_bytes
        if size + header > room or (counts and self.files >= self._workdir.limit_files):
            self._skipped += size + header
            return False
        self.files += counts
        self.size_bytes += size
        self._header_bytes += header
        return True

    def _cost(self, entry: Entry) -> int:
        # In memory one wide character makes a whole path four times as long as its bytes.
        length = max(self._parser.header_bytes, sys.getsizeof(entry.path))
        return max(0, length - FREE_HEADER)

    def _complain(self, path: str, error: OSError) -> None:
        self._notes.add(Remark.NOT_WRITTEN, path, error.strerror or str(error))

    # --- one kind of entry each ------------------------------------------------------------------

    def _file(self, entry: Entry) -> None:
        with self._parent(self._where(entry.path)) as (parent, _):
            self._arrival = Arrival(parent)
        self._entry = entry
        self._remaining = entry.size
        if not entry.size:
            self._finish()

    def _content(self, data: bytes) -> None:
        if self._arrival is None:
            return
        try:
            self._arrival.write(data)
            self._remaining -= len(data)
            if not self._remaining:
                self._finish()
        except OSError as error:
            self._drop()
            self._complain(self._entry.path, error)

    def _finish(self) -> None:
        arrival, entry = self._arrival, self._entry
        if arrival is None:
            return
        path = self._where(entry.path)
        name = path.rpartition("/")[2]
        placed, now = arrival.finish(
            name, self._sent.get(path), mode=entry.mode, mtime_ns=entry.mtime_ns
        )
        self._drop()
        if placed == name:
            self._sent[path] = now
        else:
            self._notes.add(Remark.CONFLICT, entry.path, placed)

    def _drop(self) -> None:
        if self._arrival is not None:
            self._arrival.close()
            self._arrival = None

    def _directory(self, entry: Entry) -> None:
        if entry.path == "":
            self._directories[""] = (entry.mode, entry.mtime_ns)
            return
        path = self._where(entry.path)
        with self._parent(path) as (parent, name):
            placed = put_directory(parent, name, self._sent.get(path))
        if placed == name:
            self._sent[path] = Seen(type=Type.DIRECTORY)
        else:
            self._notes.add(Remark.CONFLICT, entry.path, placed)
            # What the job put into it follows it to its new name.
            path = f"{path[: -len(name)]}{placed}"
            self._moved[entry.path] = path
        self._directories[path] = (entry.mode, entry.mtime_ns)

    def _link(self, entry: Entry) -> None:
        path = self._where(entry.path)
        check_link(path, entry.target, self._sent)
        with self._parent(path) as (parent, name):
            placed, now = put_link(
                parent, name, self._sent.get(path), target=entry.target, mtime_ns=entry.mtime_ns
            )
        if placed == name:
            self._sent[path] = now
        else:
            self._notes.add(Remark.CONFLICT, entry.path, placed)

    def _fifo(self, entry: Entry) -> None:
        raise Refused("a FIFO")

    def _note(self, entry: Entry) -> None:
        self._notes.add(Remark.FROM_MACHINE, entry.path, entry.target)

    def _deleted(self, entry: Entry) -> None:
        sent = self._sent.get(entry.path)
        if not self._workdir.sync_delete or sent is None:
            raise Refused("to delete what was not sent")
        with suppress(FileNotFoundError), self._tree.parent(entry.path) as (parent, name):
            if not remove(parent, name, sent):
                self._notes.add(Remark.KEPT, entry.path)
                return
        del self._sent[entry.path]

    # --- where it goes ---------------------------------------------------------------------------

    @contextmanager
    def _parent(self, path: str) -> Iterator[tuple[int, str]]:
        with ExitStack() as stack:
            try:
                place = stack.enter_context(self._tree.parent(path))
            except FileNotFoundError:
                directory = path.rpartition("/")[0]
                if self._sent.get(directory) != Seen(type=Type.DIRECTORY):
                    # Made on no word but this, directories would cost the machine nothing.
                    raise
                # The user removed it meanwhile; what the job made must not be lost.
                self._tree.make_directories(directory)
                place = stack.enter_context(self._tree.parent(path))
            yield place

    def _where(self, path: str) -> str:
        if not self._moved:
            return path
        names = parts(path)
        for depth in range(len(names), 0, -1):
            place = self._moved.get("/".join(names[:depth]))
            if place is not None:
                return "/".join([place, *names[depth:]])
        return path

    def _settle(self, path: str, mode: int, mtime_ns: int) -> None:
        descriptor = self._tree.open(path, DIRECTORY)
        try:
            # A descriptor without read access can be changed only through this path.
            itself = f"/proc/self/fd/{descriptor}"
            special = os.fstat(descriptor).st_mode & 0o7000
            os.chmod(itself, special | mode & 0o777)
            os.utime(itself, ns=(mtime_ns, mtime_ns))
        finally:
            os.close(descriptor)
