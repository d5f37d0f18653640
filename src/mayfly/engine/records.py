"""What is written down about each machine, and how what a dead process left is found.

A machine is a directory with a ``record.json``. Whoever looks after the machine holds a lock
(flock(2)) on that directory for as long as it lives; the kernel lets go when it dies, however it
dies. So a directory that can be locked belongs to nobody: either it is a machine kept on purpose,
or it is debris.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from mayfly.engine.linux import start_time
from mayfly.errors import Conflict, Denied, Failed, Missing, Quota
from mayfly.model import State, pin_of

RECORD_FORMAT = 1
RECORD = "record.json"
RECORD_BYTES = 1 << 20
"""A record is never as long."""
ID_ALPHABET = "23456789abcdefghjkmnpqrstuvwxyz"
SLOTS = 65_536
FRESH_S = 5.0
"""Age after which an unnamed directory cannot be one that is just being made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One machine as it was last written down."""

    id: str
    image: str
    template: str
    cpus: int
    memory_mib: int
    network: str
    state: State
    command: str
    """What was asked to run, for people."""
    created_at: float
    """Seconds since the epoch."""
    expires_at: float | None = None
    uid: int | None = None
    """Uid that QEMU runs as, when it is not the caller's."""
    pid: int = 0
    started: int = 0
    """Start time of ``pid``, in clock ticks since boot."""
    reason: str = ""
    owner: int | None = None
    """Uid of whom the host service gave it to."""
    client: int = 0
    """Process that has it, unless ``outlive``: when that ends, so does the machine."""
    client_started: int = 0
    outlive: bool = False
    disk_mib: int = 0
    """How much its disk may grow; 0: as the host has it."""
    allow: tuple[str, ...] = ()
    """host:port pairs of a restricted network."""
    job: str = ""
    """Key of the batch job's right."""
    lease: str = ""
    """Of the site server, for which the host service made it; empty: of none."""
    image_sha512: str = ""
    """Of the image's disk; empty: the machine was made by an earlier version."""
    endorsed_sha512: str = ""
    """Of what that disk was made of."""

    @property
    def image_pin(self) -> str:
        """Name that disk, whatever the name means by now; the name alone if it is not known."""
        return pin_of(self.image, self.image_sha512) if self.image_sha512 else self.image


_NOTHING = type(None)
_KINDS: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "bool": (bool,),
    "float": (int, float),
    "int | None": (int, _NOTHING),
    "float | None": (int, float, _NOTHING),
    "tuple[str, ...]": (list,),
    "State": (str,),
}
"""What stands in the file for each type of a record's fields."""


class Place:
    """A machine's directory, locked by this process."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock

    def fileno(self) -> int:
        """Give the descriptor that holds the lock: a forked child that has it holds it too."""
        return self._lock

    def write(self, record: Record) -> None:
        """Write the record, whole or not at all; raises ``Quota`` when there is no room."""
        text = json.dumps({"format": RECORD_FORMAT, **asdict(record)})
        fresh = self.path / f"{RECORD}.new"
        try:
            fresh.write_text(text)
            fresh.replace(self.path / RECORD)
        except OSError as error:
            raise no_room(self.path, error) from error

    def kill_qemu(self) -> None:
        """End the QEMU that is written down here: a process that was killed may have left one."""
        with contextlib.suppress(Failed):
            kill_qemu(read_record(self.path))

    def release(self) -> None:
        """Leave the machine as it is: it looks after itself now."""
        os.close(self._lock)

    def remove(self) -> None:
        """Remove everything of this machine and let go."""
        gone = self.path.with_name(f".gone-{self.path.name}-{os.getpid()}")
        with contextlib.suppress(FileNotFoundError):
            self.path.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)
        os.close(self._lock)


def no_room(place: Path, error: OSError) -> Quota:
    """Say that a machine's files cannot be made."""
    return Quota(
        f"cannot make the files of a machine in {place}: {error.strerror}",
        hint="free some space there, or set MAYFLY_HOME to a roomier disk of yours",
    )


def new_place(machines: Path) -> tuple[str, Place]:
    """Make and lock a directory for a new machine; gives its id.

    Raises ``Quota`` when there is no room.
    """
    try:
        machines.mkdir(parents=True, exist_ok=True, mode=0o700)
        return _new_place(machines)
    except OSError as error:
        raise no_room(machines, error) from error


def _new_place(machines: Path) -> tuple[str, Place]:
    while True:
        name = "".join(secrets.choice(ID_ALPHABET) for _ in range(8))
        unnamed = machines / f".new-{name}"
        unnamed.mkdir(mode=0o700)
        lock = _lock(unnamed)
        if lock is None or (machines / name).exists():
            shutil.rmtree(unnamed, ignore_errors=True)
            continue
        # It gets its name with the lock already held: nobody sees it without an owner.
        unnamed.rename(machines / name)
        place = Place(machines / name, lock)
        if any(slot(path.name) == slot(name) for path in _named(machines) if path.name != name):
            place.remove()
            continue
        return name, place


def slot(name: str) -> int:
    """Give the number below 65,536 that a machine's id stands for; no two machines share one."""
    value = 0
    for letter in name:
        value = value * len(ID_ALPHABET) + ID_ALPHABET.index(letter)
    return value % SLOTS


def open_place(machines: Path, name: str) -> Place:
    """Lock the directory of a machine that nobody looks after.

    Raises ``Missing``, or ``Conflict`` when a living process holds it.
    """
    path = machines / name
    if path not in _named(machines):
        raise Missing(f"no machine '{name}'", hint="'mayfly machine list' shows what there is")
    lock = _lock(path)
    if lock is None:
        raise Conflict(
            f"machine '{name}' is in use by a running command",
            hint="end that command (its 'mayfly run') first",
        )
    return Place(path, lock)


def read_record(path: Path) -> Record:
    """Read one record; raises ``Failed`` when it is not one."""
    try:
        if (path / RECORD).stat().st_size > RECORD_BYTES:
            raise Failed(f"{path / RECORD} is too long for a record")
        stored: Any = json.loads((path / RECORD).read_text())
        if not isinstance(stored, dict) or not _is_typed(stored):
            raise Failed(f"{path / RECORD} is no record")
        # A later version may have added to it: what is known must be there, the rest is left out.
        known = {name: stored[name] for name in Record.__slots__ if name in stored}
        allow = tuple(str(each) for each in stored.get("allow", ()))
        return Record(**{**known, "state": State(stored["state"]), "allow": allow})
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise Failed(f"cannot read {path / RECORD}: {error}") from error


def _is_typed(stored: dict[str, Any]) -> bool:
    """Tell whether the values are of the types that a record has, as far as they are there."""
    return all(
        type(stored[item.name]) in _KINDS[str(item.type)]
        for item in fields(Record)
        if item.name in stored
    )


def list_records(machines: Path) -> list[Record]:
    """Give the machines that are written down, oldest first; unreadable ones are left out."""
    found = []
    for path in _named(machines):
        with contextlib.suppress(Failed):
            found.append(read_record(path))
    return sorted(found, key=lambda record: record.created_at)


def is_alive(record: Record) -> bool:
    """Tell whether the machine's QEMU, and no later process of the same pid, is there."""
    return record.pid > 0 and start_time(record.pid) == record.started


def kill_qemu(record: Record) -> None:
    """End the machine's QEMU for sure, also when it is stopped; nothing else of that pid."""
    if not is_alive(record):
        return
    try:
        handle = os.pidfd_open(record.pid)
    except ProcessLookupError:
        return
    try:
        # Between the look and the handle the pid may have changed hands: look again.
        if is_alive(record):
            signal.pidfd_send_signal(handle, signal.SIGKILL)
    except ProcessLookupError:
        return
    finally:
        os.close(handle)
    deadline = time.monotonic() + 10
    while is_alive(record) and time.monotonic() < deadline:
        time.sleep(0.005)


def reap(machines: Path, now: float) -> list[str]:
    """Remove what dead processes left and what has expired; gives the ids, for a message."""
    removed = []
    for path in _named(machines):
        # A kept machine is not even locked: somebody may be about to enter it.
        lock = None if _stays(path, now) else _lock(path)
        if lock is None:
            continue
        place = Place(path, lock)
        if _stays(path, now) or not _end(path):
            place.release()
            continue
        place.remove()
        removed.append(path.name)
    _remove_unnamed(machines, now)
    return removed


def left_places(machines: Path) -> list[Place]:
    """Lock all that nobody looks after, whatever it is; what has no name yet is removed."""
    _remove_unnamed(machines, time.time() + 2 * FRESH_S)
    locks = [(path, _lock(path)) for path in list(_named(machines))]
    return [Place(path, lock) for path, lock in locks if lock is not None]


def _stays(path: Path, now: float) -> bool:
    record = _record_or_none(path)
    if record is None or record.state is not State.KEPT or not is_alive(record):
        return False
    return record.expires_at is None or now < record.expires_at


def _end(path: Path) -> bool:
    """End what runs there; false when it does not end."""
    record = _record_or_none(path)
    if record is None:
        return True
    kill_qemu(record)
    return not is_alive(record)


def _record_or_none(path: Path) -> Record | None:
    try:
        return read_record(path)
    except Failed:
        return None


def _remove_unnamed(machines: Path, now: float) -> None:
    for path in _entries(machines):
        # Only a new one is without its lock for a moment.
        young = path.name.startswith(".new-") and now - _mtime(path, now) <= FRESH_S
        if path.name.startswith(".") and not young:
            lock = _lock(path)
            if lock is not None:
                shutil.rmtree(path, ignore_errors=True)
                os.close(lock)


def _mtime(path: Path, default: float) -> float:
    """Give a path's time; the default when its owner has renamed or removed it meanwhile."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return default


def _named(machines: Path) -> Iterator[Path]:
    return (path for path in _entries(machines) if _is_id(path.name))


def _entries(machines: Path) -> list[Path]:
    try:
        return list(machines.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise Denied(
            f"cannot read {machines}: {error.strerror}", hint="MAYFLY_HOME must be a place of yours"
        ) from error


def _is_id(name: str) -> bool:
    return len(name) == 8 and all(letter in ID_ALPHABET for letter in name)


def _lock(path: Path) -> int | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        return None
    if os.fstat(fd).st_nlink == 0:
        # Its owner removed it between our two calls.
        os.close(fd)
        return None
    return fd


def keep(record: Record, *, reason: str, expires_at: float) -> Record:
    """Give the record of a machine that stays after its command has ended."""
    return replace(record, state=State.KEPT, reason=reason, expires_at=expires_at)
