"""What each machine said, kept for a while after it is gone.

One directory per machine: ``owner.json`` (whose it was), ``boot.log`` (how its template came up),
``console.log``, ``events.jsonl`` (what
the service did with it), ``status.json`` (how its job ended) and ``record.json`` (the machine as it
was last). A guest may print without end: of each log the first part is kept, and the last; between
them one line says that something was left out. While the machine lives, the last part is in two
files beside it that are overwritten by turns; ``finish`` joins them.

Losing a log must not lose a job: what the disk refuses is given back as a note, never raised.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mayfly.engine.records import ID_ALPHABET, RECORD, Record
from mayfly.engine.watch import CONSOLE_LOG
from mayfly.errors import Denied, Missing
from mayfly.host.settings import Logs

BOOT_LOG = "boot.log"
EVENTS = "events.jsonl"
STATUS = "status.json"
STATUS_LENGTH = 16_384
OWNER = "owner.json"
LOG_FORMAT = 1
LEFT_OUT = "[... the middle is left out: it was more than a machine's log may hold ...]"
EVENT_LENGTH = 4000
BLOCK_BYTES = 4096
"""What a small file takes of most file systems."""
ROOT = 0
_SHARES = {BOOT_LOG: 1 / 16, CONSOLE_LOG: 3 / 4, EVENTS: 3 / 16}
"""How the quota of a machine is divided."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """The logs of one machine."""

    id: str
    uid: int
    image: str
    began_at: float
    changed_at: float
    """Seconds since the epoch, when something was last written."""
    size_bytes: int


class LogStore:
    """The logs of all machines of this host."""

    def __init__(self, directory: Path, rules: Logs) -> None:
        self._directory = directory
        self._rules = rules

    def begin(self, name: str, uid: int, *, image: str, now: float) -> str:
        """Make room for the logs of a machine, and write down whose they are."""
        owner = {"format": LOG_FORMAT, "id": name, "uid": uid, "image": image, "began_at": now}
        return self._write(name, OWNER, json.dumps(owner))

    def event(self, name: str, text: str, *, now: float) -> str:
        """Add a line about what was done with a machine."""
        # However its letters are written, a line fits into each part of a log.
        length = min(EVENT_LENGTH, int(self._rules.machine_bytes * _SHARES[EVENTS]) // 32)
        line = json.dumps({"ts": round(now, 3), "text": text[:length]})
        return self.append(name, EVENTS, line.encode() + b"\n")

    def console(self, name: str, data: bytes) -> str:
        """Add what a machine printed."""
        return self.append(name, CONSOLE_LOG, data)

    def append(self, name: str, log: str, data: bytes) -> str:
        """Add to one log; gives a note when the disk refuses."""
        limit = int(self._rules.machine_bytes * _SHARES[log])
        try:
            _append(self._place(name) / log, data, limit)
        except OSError as error:
            return f"cannot write the log of machine {name}: {error.strerror}"
        return ""

    def status(self, name: str, values: Mapping[str, Any]) -> str:
        """Write down how the job of a machine ended, as far as its client tells."""
        text = json.dumps(values)
        if len(text) > STATUS_LENGTH:
            text = json.dumps({"reason": "what the client told is too long to be kept"})
        return self._write(name, STATUS, text)

    def finish(self, record: Record, place: Path) -> str:
        """Take over what lies in an ended machine's directory; gives a note when that fails."""
        name = record.id
        uid = ROOT if record.owner is None else record.owner
        limit = int(self._rules.machine_bytes * _SHARES[CONSOLE_LOG])
        notes = []
        if not (self._place(name) / OWNER).exists():
            notes.append(self.begin(name, uid, image=record.image, now=record.created_at))
        try:
            _take(place / CONSOLE_LOG, self._place(name) / CONSOLE_LOG, limit)
            for log in _SHARES:
                _join(self._place(name) / log)
        except OSError as error:
            notes.append(f"cannot keep the logs of machine {name}: {error.strerror}")
        notes.append(self._write(name, RECORD, json.dumps(asdict(record))))
        return next((note for note in notes if note), "")

    def read(self, name: str, uid: int, log: str = CONSOLE_LOG) -> str:
        """Give one log of a machine; empty when there is nothing in it.

        Raises ``Missing``, or ``Denied`` when the machine was another user's.
        """
        entry = self._entry(name) if _is_id(name) else None
        if entry is None:
            raise Missing(
                f"there are no logs of machine '{name[:100]}'",
                hint=f"they are kept for {self._rules.for_s / 86_400:.0f} days, if there is room",
            )
        if uid not in (ROOT, entry.uid):
            raise Denied(f"machine '{name}' is not yours")
        if log in _SHARES:
            return _content(self._place(name) / log).decode("utf-8", "replace")
        if log != STATUS:
            raise Missing(f"machine '{name}' has no log '{log[:100]}'")
        return _bytes_of(self._place(name) / STATUS).decode("utf-8", "replace")

    def directory(self, name: str) -> Path:
        """Give where the logs of a machine are, for a script of the site."""
        return self._place(name)

    def entries(self, uid: int) -> list[Entry]:
        """Give the logs that a user may read, oldest machine first; root may read all."""
        entries = [entry for entry in self._all() if uid in (ROOT, entry.uid)]
        return sorted(entries, key=lambda entry: (entry.began_at, entry.id))

    def sweep(self, now: float, *, living: Collection[str] = ()) -> list[str]:
        """Remove what is too old, and the oldest while all are too much; gives the ids.

        The logs of living machines stay.
        """
        entries = sorted(self._all(), key=lambda entry: (entry.changed_at, entry.id))
        left = sum(entry.size_bytes for entry in entries)
        removed = []
        for entry in entries:
            old = now - entry.changed_at >= self._rules.for_s
            if entry.id in living or not (old or left > self._rules.size_bytes):
                continue
            shutil.rmtree(self._place(entry.id), ignore_errors=True)
            left -= entry.size_bytes
            removed.append(entry.id)
        return removed

    def _place(self, name: str) -> Path:
        assert _is_id(name), name
        return self._directory / name

    def _write(self, name: str, file: str, text: str) -> str:
        place = self._place(name)
        try:
            _make(place)
            fresh = place / f"{file}.new"
            fresh.write_text(text, encoding="utf-8")
            fresh.replace(place / file)
        except OSError as error:
            return f"cannot write {file} of machine {name}: {error.strerror}"
        return ""

    def _all(self) -> list[Entry]:
        try:
            names = [each.name for each in self._directory.iterdir() if _is_id(each.name)]
        except OSError:
            return []
        return [entry for entry in map(self._entry, names) if entry is not None]

    def _entry(self, name: str) -> Entry | None:
        """Give one machine's logs; whose nobody knows they are root's, so that they are swept."""
        place = self._place(name)
        try:
            stats = [each.stat() for each in place.iterdir()]
            changed_at = max((each.st_mtime for each in stats), default=place.stat().st_mtime)
        except OSError:
            return None
        owner = _owner(place / OWNER)
        return Entry(
            id=name,
            uid=owner.get("uid", ROOT),
            image=owner.get("image", ""),
            began_at=owner.get("began_at", changed_at),
            changed_at=changed_at,
            size_bytes=sum(-(-each.st_size // BLOCK_BYTES) * BLOCK_BYTES for each in stats),
        )


def _owner(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(file.read_text("utf-8"))
        kinds = {"uid": int, "image": str, "began_at": float}
        return {name: kind(values[name]) for name, kind in kinds.items()}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _is_id(name: str) -> bool:
    return 0 < len(name) <= 64 and all(letter in ID_ALPHABET for letter in name)


# --- one log: a head, and a tail in two files that are overwritten by turns ----------------------


def _tails(log: Path) -> tuple[Path, Path]:
    """Give the older and the newer part of the tail."""
    return log.with_name(log.name + ".older"), log.with_name(log.name + ".newer")


def _make(place: Path) -> None:
    # The mode of a call with parents is that of the last one only.
    place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    place.mkdir(exist_ok=True, mode=0o700)


def _append(log: Path, data: bytes, limit: int) -> None:
    """Add to a log of so many bytes: half of them for the head, a quarter for each tail file."""
    _make(log.parent)
    older, newer = _tails(log)
    limit = max(0, limit - len(_mark(log)))
    if not newer.exists():
        room = max(0, limit // 2 - _size(log))
        _add(log, data[:room])
        data = data[room:]
    part = limit // 4
    # What would be overwritten at once need not be written.
    data = data[-2 * part :] if part else b""
    while data:
        room = part - _size(newer)
        if room <= 0:
            newer.replace(older)
            room = part
        _add(newer, data[:room])
        data = data[room:]


def _add(file: Path, data: bytes) -> None:
    if data:
        with open(file, "ab") as out:
            out.write(data)


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def _content(log: Path) -> bytes:
    """Give a whole log; a line tells where something was left out."""
    older, newer = _tails(log)
    head, tail = _bytes_of(log), _bytes_of(older) + _bytes_of(newer)
    if not older.exists():
        return head + tail
    # Only whole lines beside the mark, where there are lines.
    head = head[: head.rfind(b"\n") + 1] or head
    tail = tail[tail.find(b"\n") + 1 :] or tail
    return head + _mark(log) + tail


def _mark(log: Path) -> bytes:
    if log.name == EVENTS:
        return json.dumps({"text": LEFT_OUT}).encode() + b"\n"
    return f"\n{LEFT_OUT}\n".encode()


def _bytes_of(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        return b""


def _join(log: Path) -> None:
    """Make one file of the parts, when the machine is gone."""
    older, newer = _tails(log)
    if not newer.exists():
        return
    joined = log.with_name(f"{log.name}.new")
    joined.write_bytes(_content(log))
    # In this order an interruption never makes a log longer than it may be.
    older.unlink(missing_ok=True)
    newer.unlink()
    joined.replace(log)


def _take(source: Path, log: Path, limit: int) -> None:
    """Add what lies in a machine's directory, head and tail of it when it is too long."""
    try:
        fd = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        # Whoever broke out into QEMU might have put something else in its place.
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return
        with open(fd, "rb", closefd=False) as file:
            size = os.fstat(fd).st_size
            _append(log, file.read(limit), limit)
            if size > limit:
                file.seek(max(limit, size - limit))
                _append(log, file.read(limit), limit)
    finally:
        os.close(fd)
