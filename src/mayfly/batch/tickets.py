"""Where root's hook leaves a job's ticket for the starter, and the starter leaves word for root.

For batch systems that hand nothing from the one to the other: a directory of root's beside the
socket of the host service. The job's user can read his ticket and write into his own note, and can
put no other file in their place.
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

from mayfly.batch.job import TICKET_LONGEST, Ticket, read_ticket, write_ticket
from mayfly.batch.settings import BatchSettings
from mayfly.errors import Failed, Invalid, Missing

NOTE_LONGEST = 4096
_JOB = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\[\]-]{0,99}")


def directory_of(settings: BatchSettings) -> Path:
    """Give the directory of the tickets."""
    return settings.socket.parent / "tickets"


def _files(settings: BatchSettings, job: str) -> tuple[Path, Path]:
    if not _JOB.fullmatch(job):
        raise Invalid(f"{job[:100]!r} is no name of a job")
    directory = directory_of(settings)
    return directory / f"{job}.ticket", directory / f"{job}.note"


def leave(settings: BatchSettings, job: str, ticket: Ticket, uid: int) -> None:
    """Leave a job's ticket, root only; raises ``Failed``."""
    mine, note = _files(settings, job)
    try:
        mine.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        mine.parent.chmod(0o755)
        _write(mine, write_ticket(ticket), 0o400, uid)
        _write(note, "", 0o600, uid)
    except OSError as error:
        raise Failed(f"cannot write the job's ticket {mine}: {error.strerror}") from error


def _write(path: Path, text: str, mode: int, uid: int) -> None:
    path.unlink(missing_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with open(fd, "w", encoding="utf-8") as file:
        file.write(text)
        os.fchmod(fd, mode)
        os.fchown(fd, uid, -1)


def find(settings: BatchSettings, job: str) -> Ticket:
    """Give the job's ticket; raises ``Missing`` where there is none, ``Invalid``, ``Failed``."""
    mine, _ = _files(settings, job)
    try:
        with open(mine, encoding="utf-8") as file:
            return read_ticket(file.read(TICKET_LONGEST + 1))
    except FileNotFoundError as error:
        raise Missing(f"job {job} has no ticket on this host") from error
    except (OSError, UnicodeDecodeError) as error:
        raise Failed(f"cannot read the job's ticket {mine}: {error}") from error


def note(settings: BatchSettings, job: str, reason: str) -> None:
    """Tell root, as the job's user, why the job is to be begun again; never raises."""
    with contextlib.suppress(OSError, Invalid):
        _, path = _files(settings, job)
        # Not made anew: there is a note only where root has asked for one.
        fd = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW)
        with open(fd, "w", encoding="utf-8") as file:
            file.write(reason[: NOTE_LONGEST // 4])


def take(settings: BatchSettings, job: str) -> str:
    """Give what the starter noted, "" for nothing, and remove what there is of the job.

    Raises ``Invalid`` for a wrong name.
    """
    mine, path = _files(settings, job)
    reason = ""
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            reason = os.read(fd, NOTE_LONGEST).decode("utf-8", "replace")
        finally:
            os.close(fd)
    for file in (mine, path):
        with contextlib.suppress(OSError):
            file.unlink()
    return " ".join(reason.split())
