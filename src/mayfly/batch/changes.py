"""Files of a site that an installation changes, and how they come back byte for byte.

What was there is written down before anything is changed, so that an installation that is killed
half way is taken back, or done again, like a whole one.
"""

from __future__ import annotations

import base64
import contextlib
import difflib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from mayfly.errors import Conflict, Failed, Missing

JOURNAL_FORMAT = 1
BEGIN, END = "# >>> mayfly >>>", "# <<< mayfly <<<"
"""Around what is added to a file of the site's; shell, lua and conf files all take these."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A file as it shall be."""

    path: Path
    content: bytes
    mode: int | None = None
    """None: as it is, or 0644."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A file as it was, and as we wrote it."""

    path: str
    before: str | None
    """Base 64; None: it was not there."""
    mode: int
    uid: int
    gid: int
    made: tuple[str, ...]
    """Directories that had to be made for it, the outermost first."""
    written: str
    """Base 64."""


# --- what is added -------------------------------------------------------------------------------


def with_block(text: str, lines: Sequence[str], *, comment: str = "#") -> str:
    """Give a text with our lines at its end, and none of an earlier installation."""
    begin, end = BEGIN.replace("#", comment, 1), END.replace("#", comment, 1)
    plain = without_block(text)
    gap = "" if not plain or plain.endswith("\n") else "\n"
    return "\n".join([plain + gap + begin, *lines, end, ""])


def without_block(text: str) -> str:
    """Give a text without our lines; what else was changed in it stays."""
    kept: list[str] = []
    inside = False
    for line in text.splitlines(keepends=True):
        bare = line.strip().lstrip("#-").strip()
        if bare == BEGIN.lstrip("# "):
            inside = True
        elif inside and bare == END.lstrip("# "):
            inside = False
        elif not inside:
            kept.append(line)
    return "".join(kept)


def difference(changes: Sequence[Change]) -> Iterator[str]:
    """Give what would change, for people."""
    for change in changes:
        before = _read(change.path)
        if before == change.content:
            continue
        if b"\0" in change.content:
            yield f"+++ {change.path}: {len(change.content)} bytes"
            continue
        old = (before or b"").decode("utf-8", "replace").splitlines()
        new = change.content.decode("utf-8", "replace").splitlines()
        name = str(change.path)
        yield from difflib.unified_diff(
            old, new, name if before is not None else "/dev/null", name, lineterm="", n=1
        )


# --- the journal ---------------------------------------------------------------------------------


def apply(changes: Sequence[Change], journal: Path) -> None:
    """Write the files; raises ``Failed`` when one cannot be."""
    known = {entry.path: entry for entry in read_journal(journal)} if journal.exists() else {}
    entries = [_entry(change, known.get(str(change.path))) for change in changes]
    entries += [known[path] for path in known.keys() - {entry.path for entry in entries}]
    try:
        _make_directory(journal.parent)
        text = json.dumps({"format": JOURNAL_FORMAT, "files": [asdict(each) for each in entries]})
        _write(journal, text.encode(), 0o600, None)
        for change, entry in zip(changes, entries, strict=False):
            _make_directory(change.path.parent)
            mode = entry.mode if change.mode is None else change.mode
            _write(change.path, change.content, mode, (entry.uid, entry.gid))
    except OSError as error:
        raise Failed(
            f"cannot write {error.filename}: {error.strerror}",
            hint="'mayfly batch uninstall' takes back what was done so far",
        ) from error


def _make_directory(directory: Path) -> None:
    """Make a directory that users can enter, whatever the umask."""
    if not directory.exists():
        _make_directory(directory.parent)
        directory.mkdir()
        directory.chmod(0o755)


def _entry(change: Change, known: Entry | None) -> Entry:
    written = base64.b64encode(change.content).decode()
    if known is not None:
        return Entry(**{**asdict(known), "made": known.made, "written": written})
    before = _read(change.path)
    found = os.stat(change.path) if before is not None else None
    return Entry(
        path=str(change.path),
        before=None if before is None else base64.b64encode(before).decode(),
        mode=0o644 if found is None else found.st_mode & 0o7777,
        uid=0 if found is None else found.st_uid,
        gid=0 if found is None else found.st_gid,
        made=tuple(str(each) for each in reversed(change.path.parents) if not each.exists()),
        written=written,
    )


def read_journal(journal: Path) -> list[Entry]:
    """Give what was changed; raises ``Missing`` without a journal, ``Failed`` when it is none."""
    try:
        stored = json.loads(journal.read_text())
        if stored["format"] != JOURNAL_FORMAT:
            raise Conflict(f"{journal} was written by another version of Mayfly")
        return [Entry(**{**each, "made": tuple(each["made"])}) for each in stored["files"]]
    except FileNotFoundError as error:
        raise not_installed(journal) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Failed(f"cannot read what was installed, {journal}: {error}") from error


def not_installed(journal: Path) -> Missing:
    """Give what is said where there is no journal."""
    return Missing(
        f"nothing is installed there, or not by this command: there is no {journal}",
        hint="'--programs DIR' names the directory of the programs, if it is not this one",
    )


def take_back(journal: Path) -> list[str]:
    """Put the files back as they were; gives what could not be, in words.

    A file that was changed since keeps that change, and loses our lines. Raises as reading does.
    """
    entries = read_journal(journal)
    words = [told for entry in entries if (told := _take_back(entry))]
    journal.unlink()
    made = sorted({each for entry in entries for each in entry.made}, key=len, reverse=True)
    for directory in made:
        with contextlib.suppress(OSError):
            os.rmdir(directory)
    return words


def _take_back(entry: Entry) -> str:
    path = Path(entry.path)
    now, written = _read(path), base64.b64decode(entry.written)
    before = None if entry.before is None else base64.b64decode(entry.before)
    if now == before:
        return ""
    if now is None:
        return f"{path} was removed since, and stays so"
    if now == written:
        if before is None:
            path.unlink()
        else:
            _write(path, before, entry.mode, (entry.uid, entry.gid))
        return ""
    mode = os.stat(path).st_mode & 0o7777
    plain = without_block(now.decode("utf-8", "surrogateescape"))
    _write(path, plain.encode("utf-8", "surrogateescape"), mode, (entry.uid, entry.gid))
    return f"{path} was changed since: only our lines were taken out"


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _write(path: Path, content: bytes, mode: int, owner: tuple[int, int] | None) -> None:
    fresh = path.with_name(f".{path.name}.mayfly-new")
    fresh.write_bytes(content)
    if owner is not None:
        os.chown(fresh, *owner)
    fresh.chmod(mode)
    fresh.replace(path)
