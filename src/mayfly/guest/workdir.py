"""The work directory on its way in: unpacked by a process of the job's user.

What was unpacked is noted in an index (a file without a name that only the agent holds), against
which ``mayfly.guest.changes`` finds later what the job changed.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import stat

from mayfly.guest.fields import raw, shown
from mayfly.guest.job import Credentials
from mayfly.guest.tree import Entry, EntryParser, TreeError, Type

Index = dict[bytes, tuple[str, int, int, int, int]]
"""Path -> type, size, mtime_ns, mode, ctime_ns."""

READ = 256 << 10


def unpack(source: int, path: bytes, index: int) -> bytes:
    """Unpack the stream that ``source`` gives into ``path`` and write the index: an assistant."""
    os.chdir(path)
    unpacker = Unpacker()
    unpacker.run(source)
    write_index(index, unpacker.index)
    return b""


def make_folder(path: bytes, credentials: Credentials, *, root: bytes = b"/") -> None:
    """Make a directory for the user; its missing parents are the user's only beneath the home."""
    full = os.path.join(root, path.lstrip(b"/"))
    home = os.path.join(root, credentials.home.lstrip(b"/")).rstrip(b"/")
    missing = []
    at = full.rstrip(b"/")
    while at and not os.path.lexists(at):
        missing.append(at)
        at = os.path.dirname(at)
    for folder in reversed(missing):
        os.mkdir(folder, 0o755)
        theirs = folder == full.rstrip(b"/") or (home != b"" and folder.startswith(home + b"/"))
        if theirs and credentials.uid is not None and credentials.gid is not None:
            os.chown(folder, credentials.uid, credentials.gid)


def open_index(folder: str = "/run") -> int:
    """Make an empty index."""
    with contextlib.suppress(OSError):
        return os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    # Kernels before 3.11, and file systems that cannot.
    path = f"{folder}/mayfly-index-{os.getpid()}"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    os.unlink(path)
    return fd


def write_index(fd: int, index: Index) -> None:
    """Write the index, for another process to read."""
    with os.fdopen(os.dup(fd), "wb") as file:
        marshal.dump(index, file)


def read_index(fd: int) -> Index:
    """Read the index that an unpacker wrote; empty when there was none."""
    os.lseek(fd, 0, os.SEEK_SET)
    with os.fdopen(os.dup(fd), "rb") as file:
        text = file.read()
    # It never left the hands of the agent's own processes.
    index: Index = marshal.loads(text) if text else {}  # noqa: S302
    return index


def noted(status: os.stat_result) -> tuple[str, int, int, int, int]:
    """Give what is remembered of a path; a directory's times change with what is in it."""
    mode = stat.S_IMODE(status.st_mode)
    if stat.S_ISDIR(status.st_mode):
        return (Type.DIRECTORY.value, 0, 0, mode, 0)
    sort = _SORTS.get(stat.S_IFMT(status.st_mode), "?")
    return (sort, status.st_size, status.st_mtime_ns, mode, status.st_ctime_ns)


_SORTS = {
    stat.S_IFREG: Type.FILE.value,
    stat.S_IFLNK: Type.LINK.value,
    stat.S_IFIFO: Type.FIFO.value,
}


class Unpacker:
    """Makes the entries of a stream beneath the current directory."""

    def __init__(self) -> None:
        self.index: Index = {}
        self._parser = EntryParser()
        self._folders: list[tuple[bytes, Entry]] = []
        self._file = -1
        self._path = b""
        self._entry: Entry | None = None
        self._remaining = 0

    def run(self, source: int) -> None:
        """Unpack all that ``source`` gives, up to the END entry."""
        os.umask(0)
        while not self._parser.ended:
            data = os.read(source, READ)
            if not data:
                raise TreeError("the stream of files ended too early")
            for item in self._parser.feed(data):
                if isinstance(item, Entry):
                    self._make(item)
                else:
                    self._fill(item)
        self._finish_folders()

    def _make(self, entry: Entry) -> None:
        path = _local(entry.path)
        if entry.type is Type.FILE:
            self._open(path, entry)
        elif entry.type is Type.DIRECTORY:
            with contextlib.suppress(FileExistsError):
                os.mkdir(path, 0o700)
            # Its own mode may forbid what is still to be put in.
            self._folders.append((path, entry))
        elif entry.type is Type.LINK:
            _clear(path)
            os.symlink(raw(entry.target, "target"), path)
            os.utime(path, ns=(entry.mtime_ns, entry.mtime_ns), follow_symlinks=False)
            self.index[path] = noted(os.lstat(path))
        elif entry.type is Type.FIFO:
            _clear(path)
            os.mkfifo(path, entry.mode & 0o777)
            self.index[path] = noted(os.lstat(path))
        elif entry.type is Type.DELETED:
            raise TreeError("the stream of files deletes")

    def _open(self, path: bytes, entry: Entry) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self._file = os.open(path, flags, entry.mode & 0o777)
        except FileExistsError:
            _clear(path)
            self._file = os.open(path, flags, entry.mode & 0o777)
        self._path = path
        self._entry = entry
        self._remaining = entry.size
        if not entry.size:
            self._close(entry)

    def _fill(self, piece: bytes) -> None:
        view = memoryview(piece)
        try:
            while view:
                view = view[os.write(self._file, view) :]
        except OSError as error:
            raise OSError(error.errno, error.strerror, self._path) from error
        self._remaining -= len(piece)
        if not self._remaining and self._entry is not None:
            self._close(self._entry)

    def _close(self, entry: Entry) -> None:
        if entry.mode & 0o7000:
            os.fchmod(self._file, entry.mode & 0o7777)
        os.utime(self._file, ns=(entry.mtime_ns, entry.mtime_ns))
        self.index[self._path] = noted(os.fstat(self._file))
        os.close(self._file)
        self._entry = None

    def _finish_folders(self) -> None:
        for path, entry in reversed(self._folders):
            # One that the image had may be another's, such as /tmp.
            with contextlib.suppress(PermissionError):
                os.chmod(path, entry.mode & 0o7777)
                os.utime(path, ns=(entry.mtime_ns, entry.mtime_ns))
            self.index[path] = noted(os.lstat(path))


def _clear(path: bytes) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _local(path: str) -> bytes:
    """Give the path as a name beneath the top; "." is the top itself."""
    name = raw(path, "path")
    if not name:
        return b"."
    if name.startswith(b"/") or b".." in name.split(b"/"):
        raise TreeError(f"'{shown(name)}' leaves the tree")
    return name
