"""What a session is asked to do, and how it ended."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mayfly.errors import Invalid
from mayfly.guest.framing import FrameError, pack_message
from mayfly.model import Outcome, Who


@dataclass(frozen=True, slots=True, kw_only=True)
class Workdir:
    """The directory that goes into the machine, and whose changes come back."""

    path: Path
    """On the host, absolute."""
    guest_path: str
    sync_delete: bool
    """Files that the job deleted are deleted here too."""
    copy_back: bool
    limit_bytes: int
    """Of what goes in, and again of what comes back."""
    limit_files: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stdio:
    """The descriptors that stand for the job's own."""

    stdin: int = 0
    stdout: int = 1
    stderr: int = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long the machine may take for what does not depend on the job."""

    sync_s: float = 60
    """For the agent to answer at all."""
    setup_s: float = 120
    """For any progress between the request and the job's start."""
    kill_s: float = 10
    """For the job's end after SIGKILL, and after the signals that end a run for sure."""
    copy_s: float = 300
    """For the copy back, besides what its bytes and files take."""
    linger_s: float = 2
    """For output that is already here, when the machine failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRequest:
    """A command, and all that it is to find in the machine."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str
    umask: int
    limits: Mapping[str, tuple[int, int]]
    """Soft and hard resource limits by their name in small letters: ``nofile``."""
    root: bool
    tty: bool | None
    """``None``: only if stdin and stdout are terminals."""
    workdir: Workdir | None
    time_limit_s: float | None
    """Counted from the request, so that a slow copy in cannot prolong it."""
    grace_s: float = 10
    """Between SIGTERM and SIGKILL at the time limit."""
    copy_grace_s: float = 60
    """For the copy back after the time limit."""
    patience: Patience = field(default_factory=Patience)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobResult:
    """How a session ended."""

    code: int
    """Exit status that ``mayfly run`` gives, 0 to 255."""
    phase: str
    """``start``, ``copy-in``, ``job``, ``copy-out``, or ``done`` when nothing was left to do."""
    who: Who
    reason: str
    warnings: tuple[str, ...]


BY_SIGNAL = "the job was ended by signal "
"""What the reason of a job that was ended by a signal begins with."""


def signal_of(result: JobResult | Outcome) -> int:
    """Give the signal that ended a job, 0 when it ended by itself or was ended by us."""
    by_signal = result.phase == "done" and result.reason.startswith(BY_SIGNAL)
    return result.code - 128 if by_signal and result.code > 128 else 0


def pack_start(request: JobRequest, size: tuple[int, int] | None) -> bytes:
    """Make the message that starts the job; ``size`` is that of its terminal, if it gets one."""
    workdir, env = request.workdir, dict(request.env)
    if size is not None and "TERM" in os.environ:
        env.setdefault("TERM", os.environ["TERM"])
    message = {
        "type": "start",
        "argv": list(request.argv),
        "env": env,
        "cwd": request.cwd,
        "umask": request.umask,
        "limits": {name: list(pair) for name, pair in request.limits.items()},
        "tty": size and {"rows": size[0], "cols": size[1]},
        "root": request.root,
        "stdin": True,
        "workdir": workdir
        and {
            "path": workdir.guest_path,
            "in": True,
            "out": workdir.copy_back,
            "sync_delete": workdir.sync_delete,
        },
    }
    try:
        return pack_message(message)
    except FrameError as error:
        raise Invalid(f"the command with its environment is too long: {error}") from error
