"""Files that are on their way here: they survive a kill, and go on where they stopped.

Each has a directory, named for what is wanted: ``part`` (the bytes so far), ``state.json`` (where
they came from), ``lock`` (held by the one that fetches) and ``users`` (held by all who want it).
The last who wants a finished file removes it. What nobody wanted for a week is removed by whoever
fetches something else.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from mayfly.errors import Invalid, Untrusted
from mayfly.images.lists.files import write_whole

STALE_S = 7 * 86400.0
_POLL_S = 0.1
_BUFFER = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What is known of the bytes so far."""

    source: str = ""
    validator: str = ""
    total_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A file on its way here; only the holder of its lock has one."""

    directory: Path
    waited: bool
    """Whether another process was at it when we came."""

    @property
    def file(self) -> Path:
        """Give where the bytes are."""
        return self.directory / "part"

    @property
    def size(self) -> int:
        """Give how many there are."""
        try:
            return self.file.stat().st_size
        except FileNotFoundError:
            return 0

    def state(self) -> State:
        """Read what is known of them; what cannot be read is not known."""
        try:
            table = json.loads((self.directory / "state.json").read_bytes())
        except (OSError, ValueError, RecursionError):
            return State()
        return _state(table)

    def note(self, state: State) -> None:
        """Write down what the bytes are part of."""
        table = {
            "source": state.source,
            "validator": state.validator,
            "total_bytes": state.total_bytes,
        }
        write_whole(self.directory / "state.json", json.dumps(table).encode())

    def clear(self) -> None:
        """Forget the bytes so far."""
        self.file.unlink(missing_ok=True)
        (self.directory / "state.json").unlink(missing_ok=True)

    def hash_into(self, digest: Any) -> int:
        """Hash the bytes so far, and give their number."""
        count = 0
        with contextlib.suppress(FileNotFoundError), self.file.open("rb") as opened:
            while data := opened.read(_BUFFER):
                digest.update(data)
                count += len(data)
        return count

    @contextmanager
    def appending(self) -> Iterator[BinaryIO]:
        """Open it to write on."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        with os.fdopen(os.open(self.file, flags, 0o600), "ab", buffering=0) as opened:
            yield opened

    def finish(self) -> None:
        """Let nobody change what is complete; others may read it whom we hand it to."""
        with self.file.open("rb") as opened:
            os.fsync(opened.fileno())
        self.file.chmod(0o444)


def _state(table: object) -> State:
    if not isinstance(table, dict):
        return State()
    source, validator = table.get("source"), table.get("validator")
    total = table.get("total_bytes")
    if (
        type(source) is not str
        or type(validator) is not str
        or type(total) not in (int, type(None))
    ):
        return State()
    return State(source=source, validator=validator, total_bytes=total)


Waiting = Callable[[int], None]
"""Called now and then with how many bytes the other process has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Downloads:
    """The directory of all that is on its way to one user."""

    directory: Path
    mode: int = 0o700
    """Of the directories: whether others may look on."""

    @contextmanager
    def claim(self, key: str, waiting: Waiting = lambda count: None) -> Iterator[Part]:
        """Be the one who fetches this, when the others are through; the rest may find it done."""
        self._make()
        self.sweep(keep=key)
        place = self.directory / key
        users, lock, waited = _enter(place, self.mode, waiting)
        part = Part(directory=place, waited=waited)
        kept = True
        try:
            yield part
            kept = False
        except (Invalid, Untrusted):
            kept = False  # it would be no better the next time
            raise
        finally:
            if not (kept and part.size):
                _leave(place, users)
            os.close(lock)
            os.close(users)

    def sweep(self, *, keep: str = "", older_s: float = STALE_S) -> None:
        """Remove what nobody has wanted for long, and what nobody can use."""
        for place in self.directory.glob("*/"):
            if place.name != keep and _idle_s(place) >= older_s:
                _remove_free(place)

    def _make(self) -> None:
        self.directory.mkdir(mode=self.mode, parents=True, exist_ok=True)
        found = self.directory.lstat()
        if found.st_uid != os.geteuid():
            raise Untrusted(f"{self.directory} belongs to uid {found.st_uid}", hint="remove it")
        self.directory.chmod(self.mode)


def _enter(place: Path, mode: int, waiting: Waiting) -> tuple[int, int, bool]:
    """Take the locks of a place; one that was removed meanwhile is made anew."""
    while True:
        place.mkdir(mode=mode, exist_ok=True)
        try:
            users = _open(place / "users")
        except FileNotFoundError:
            continue
        fcntl.flock(users, fcntl.LOCK_SH)
        try:
            lock = _open(place / "lock")
        except FileNotFoundError:
            os.close(users)
            continue
        try:
            waited = _wait(lock, place / "part", waiting)
            if _is_same(lock, place / "lock") and _is_same(users, place / "users"):
                return users, lock, waited
        except BaseException:
            os.close(lock)
            os.close(users)
            raise
        os.close(lock)
        os.close(users)


def _wait(lock: int, part: Path, waiting: Waiting) -> bool:
    waited = False
    while not _take(lock, fcntl.LOCK_EX):
        waited = True
        with contextlib.suppress(FileNotFoundError):
            waiting(part.stat().st_size)
        time.sleep(_POLL_S)
    return waited


def _leave(place: Path, users: int) -> None:
    """Remove a place that all are done with."""
    if _take(users, fcntl.LOCK_EX):
        shutil.rmtree(place, ignore_errors=True)


def _remove_free(place: Path) -> None:
    """Remove a place that nobody is at."""
    try:
        lock = _open(place / "lock")
    except OSError:
        return  # it was removed just now, or is none of ours
    try:
        if _take(lock, fcntl.LOCK_EX) and _is_same(lock, place / "lock"):
            shutil.rmtree(place, ignore_errors=True)
    finally:
        os.close(lock)


def _idle_s(place: Path) -> float:
    for name in ("part", "lock"):
        with contextlib.suppress(OSError):
            return time.time() - (place / name).stat().st_mtime
    return 0.0


def _open(file: Path) -> int:
    return os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _take(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_same(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False
