"""Every error that Mayfly raises on purpose, split by what the caller can do about it.

    MayflyError
    |-- Invalid       the input is wrong: mend it
    |-- Denied        not allowed for this caller
    |-- Missing       no such thing
    |-- Conflict      it exists, or is busy, or changed meanwhile
    |-- Unavailable   not now: try again later
    |-- Quota         not here: try elsewhere, or with less
    |-- Untrusted     never: what was offered cannot be trusted
    `-- Failed        a bug or a broken host

A message says what was tried, on what, and what came back; ``hint`` says what to do next.
"""

from __future__ import annotations

import errno


class MayflyError(Exception):
    """The root of the tree; raised only as one of its children."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class Invalid(MayflyError):
    """The input is wrong; the caller can mend it."""


class Denied(MayflyError):
    """The caller may not do this."""


class Missing(MayflyError):
    """The thing that was named does not exist."""


class Conflict(MayflyError):
    """The thing exists already, is busy, or was changed meanwhile."""


class Unavailable(MayflyError):
    """Not now; the same call may succeed later."""


class Quota(MayflyError):
    """It does not fit here; less, or elsewhere, may."""


class Untrusted(MayflyError):
    """What was offered cannot be trusted; trying again will not help."""


class Failed(MayflyError):
    """Mayfly or the host is broken."""


RUN_FAILED = 125
"""Exit status of ``mayfly run`` when Mayfly itself failed, as env(1) and docker-run(1) have it."""

TIME_LIMIT = 124
"""Exit status when the job was ended at its time limit, as timeout(1) has it."""

EXIT_AND_HTTP: dict[type[MayflyError], tuple[int, int]] = {
    Invalid: (2, 400),
    Denied: (3, 403),
    Missing: (4, 404),
    Conflict: (5, 409),
    Unavailable: (6, 503),
    Quota: (7, 429),
    Untrusted: (8, 403),
    Failed: (1, 500),
}
"""The one table from error to exit status and HTTP status."""


def exit_status(error: MayflyError) -> int:
    """Give the exit status of a command that ended with this error."""
    return EXIT_AND_HTTP.get(type(error), (1, 500))[0]


_REFUSALS = {
    errno.ENOSPC: Quota,
    errno.EDQUOT: Quota,
    errno.EROFS: Denied,
    errno.EACCES: Denied,
    errno.EPERM: Denied,
}


def refusal(error: OSError) -> MayflyError:
    """Put into our words what the host refused, where nothing nearer knew what it was for."""
    kind = _REFUSALS.get(error.errno or 0, Failed)
    hint = "run it again with 'mayfly --debug ...' and report it" if kind is Failed else ""
    return kind(f"the host refused: {error}", hint=hint)
