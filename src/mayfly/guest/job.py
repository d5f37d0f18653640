"""Starts the job: a process of its own session, as its user, on pipes or a terminal.

What runs between fork and exec is short on purpose: in a fresh clone under emulation every
piece of code that was not run before must be translated first.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import signal
import struct
import termios
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, NoReturn

MAYFLY_FAILED = 125
NOT_EXECUTABLE = 126
NOT_FOUND = 127

PIPE_BYTES = 1 << 20
PATH = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

LIMITS: Mapping[str, int] = {
    name.removeprefix("RLIMIT_").lower(): getattr(resource, name)
    for name in dir(resource)
    if name.startswith("RLIMIT_")
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Whom a process runs as; None for a number means that it stays as it is."""

    uid: int | None
    gid: int | None
    groups: tuple[int, ...]
    name: bytes
    home: bytes
    login_shell: bytes
    variables: Mapping[bytes, bytes] = field(default_factory=dict)
    """What its environment has besides the usual."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """What is to be run, and how."""

    argv: tuple[bytes, ...]
    env: Mapping[bytes, bytes]
    cwd: bytes
    umask: int
    limits: tuple[tuple[int, tuple[int, int]], ...]
    window: tuple[int, int] | None
    """Rows and columns of the terminal; None for pipes."""
    stdin: bool
    credentials: Credentials


class Launched(NamedTuple):
    """Our ends of a process that was just forked; -1 where there is none."""

    pid: int
    stdin: int
    stdout: int
    stderr: int
    failure: int
    """Reads as empty when the program was executed, else as status and reason."""
    terminal: int
    """The terminal, for its size and its foreground process group."""
    slave: int
    """The job's end of it: while it is open here, the job may close and reopen its own."""


class _Wiring(NamedTuple):
    """The job's ends (0, 1, 2) and ours (stdin, stdout, stderr)."""

    job: tuple[int, int, int]
    ours: tuple[int, int, int]


def launch(spec: Spec) -> Launched:
    """Fork the job; whether its program could be executed is told by ``failure``."""
    wiring = _pipes(spec) if spec.window is None else _terminal(spec, spec.window)
    failure, report = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    candidates = _candidates(spec)
    try:
        pid = os.fork()
    except OSError:
        for fd in {*wiring.job, *wiring.ours, failure, report} - {-1}:
            os.close(fd)
        raise
    if pid == 0:
        _become(spec, candidates, wiring.job, report)
    os.close(report)
    if spec.window is not None:
        slave, _, _ = wiring.job
        return Launched(pid, *wiring.ours, failure, os.dup(wiring.ours[1]), slave)
    for fd in wiring.job:
        os.close(fd)
    return Launched(pid, *wiring.ours, failure, -1, -1)


def parse_failure(told: bytes) -> tuple[int, str]:
    """Read what a child that could not become the job wrote before it ended."""
    code, _, reason = told.partition(b" ")
    return int(code), reason.decode("utf-8", "surrogateescape")


def _pipes(spec: Spec) -> _Wiring:
    if spec.stdin:
        job_in, stdin = wide_pipe()
        os.set_blocking(stdin, False)
    else:
        job_in, stdin = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC), -1
    stdout, job_out = wide_pipe()
    stderr, job_err = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(stdout, False)
    os.set_blocking(stderr, False)
    return _Wiring((job_in, job_out, job_err), (stdin, stdout, stderr))


def wide_pipe() -> tuple[int, int]:
    """Make a pipe that holds more, so that fewer trips carry a stream, if the system allows."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    with contextlib.suppress(OSError):
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    return reader, writer


def _terminal(spec: Spec, window: tuple[int, int]) -> _Wiring:
    master, slave = os.openpty()
    set_window(master, window)
    os.set_blocking(master, False)
    if spec.credentials.uid is not None:
        # So that the job may open /dev/tty and the name of its terminal again.
        os.fchown(slave, spec.credentials.uid, -1)
    return _Wiring((slave, slave, slave), (os.dup(master), master, -1))


def set_window(terminal: int, window: tuple[int, int]) -> None:
    """Set the size of a terminal; the job gets SIGWINCH when it changes."""
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", *window, 0, 0))


def _candidates(spec: Spec) -> Sequence[bytes]:
    name = spec.argv[0]
    if b"/" in name:
        return [name]
    folders = spec.env.get(b"PATH", PATH).split(b":")
    return [(folder or b".") + b"/" + name for folder in folders]


def _become(
    spec: Spec, candidates: Sequence[bytes], ends: tuple[int, int, int], report: int
) -> NoReturn:
    try:
        code, reason = _try_to_become(spec, candidates, ends)
        os.write(report, b"%d %s" % (code, reason))
    finally:
        # Whatever happened, this copy of the agent must not go on.
        os._exit(MAYFLY_FAILED)


def _try_to_become(
    spec: Spec, candidates: Sequence[bytes], ends: tuple[int, int, int]
) -> tuple[int, bytes]:
    try:
        os.setsid()
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        if spec.window is not None:
            fcntl.ioctl(ends[0], termios.TIOCSCTTY, 0)
        for number, fd in enumerate(ends):
            os.dup2(fd, number)
        # The one signal that the agent ignores, as all Python programs do.
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.umask(spec.umask)
        for limit, values in spec.limits:
            _limit(limit, values)
        spare_from_oom(b"0")
        drop(spec.credentials)
    except OSError as error:
        return MAYFLY_FAILED, _reason(b"cannot become the job's user", error)
    except MemoryError:
        return MAYFLY_FAILED, b"the job's memory limit is too low to start anything"
    try:
        os.chdir(spec.cwd)
    except OSError as error:
        return MAYFLY_FAILED, _reason(b"cannot enter " + spec.cwd, error)
    return _execute(spec, candidates)


def spare_from_oom(score: bytes) -> None:
    """Say how soon the kernel ends this process when memory is short: the agent never (-1000)."""
    # A job of many small processes would else take its machine with it.
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "wb", buffering=0) as file:
        file.write(score)


def drop(credentials: Credentials) -> None:
    """Become the user, for good."""
    if credentials.uid is None or credentials.gid is None:
        return
    os.setgroups(credentials.groups)
    os.setresgid(credentials.gid, credentials.gid, credentials.gid)
    os.setresuid(credentials.uid, credentials.uid, credentials.uid)


def _limit(limit: int, values: tuple[int, int]) -> None:
    try:
        resource.setrlimit(limit, values)
    except (OSError, ValueError):
        # The host's limit may exceed what this kernel can give; then its own stays.
        soft, hard = values
        ceiling = resource.getrlimit(limit)[1]
        if ceiling != resource.RLIM_INFINITY and 0 <= soft <= ceiling:
            resource.setrlimit(limit, (soft, min(hard, ceiling) if hard >= 0 else ceiling))


def _execute(spec: Spec, candidates: Sequence[bytes]) -> tuple[int, bytes]:
    missing = denied = b""
    for path in candidates:
        try:
            os.execve(path, spec.argv, spec.env)
        except (FileNotFoundError, NotADirectoryError) as error:
            missing = _reason(path, error)
        except PermissionError as error:
            # As a shell: a later one in PATH may still do.
            denied = denied or _reason(path, error)
        except OSError as error:
            return NOT_EXECUTABLE, _reason(path, error)
    if denied:
        return NOT_EXECUTABLE, denied
    if b"/" not in spec.argv[0]:
        return NOT_FOUND, spec.argv[0][:2048] + b": not found in PATH"
    return NOT_FOUND, missing


def _reason(what: bytes, error: OSError) -> bytes:
    # A pipe takes so much in one piece.
    return what[:2048] + b": " + (error.strerror or "").encode()
