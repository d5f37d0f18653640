"""Run a child process of minutes and hear every line it prints, so that progress can be shown."""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mayfly.errors import Failed, Quota
from mayfly.images.room import MORE_ROOM

log = logging.getLogger("mayfly.command")

Report = Callable[[str, float | None], None]
"""Called with the phase under way, and how much of it is done when that is known."""

_KEPT_LINES = 200
_GRACE_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a child process ended, and the last lines that it printed."""

    code: int
    lines: tuple[str, ...]


def silent(phase: str, fraction: float | None) -> None:
    """Take a report of progress and do nothing with it."""


def follow(
    argv: Sequence[str],
    *,
    timeout_s: float,
    on_line: Callable[[str], None] = lambda line: None,
    env: Mapping[str, str] | None = None,
    pass_fds: tuple[int, ...] = (),
    guard: tuple[str, ...] = (),
) -> None:
    """Run ``argv`` to its end; both its outputs go to ``on_line``. For the rest see ``attend``.

    Raises ``Quota`` when it ran out of disk space, ``Failed`` for any other bad end.
    """
    ended = attend(
        argv, timeout_s=timeout_s, on_line=on_line, env=env, pass_fds=pass_fds, guard=guard
    )
    if ended.code != 0:
        raise failure(argv[0], ended)


def attend(
    argv: Sequence[str],
    *,
    timeout_s: float,
    on_line: Callable[[str], None] = lambda line: None,
    env: Mapping[str, str] | None = None,
    pass_fds: tuple[int, ...] = (),
    guard: tuple[str, ...] = (),
) -> Ended:
    """Run ``argv`` to its end and tell how that was; both its outputs go to ``on_line``.

    ``guard`` is a command that runs ``argv`` with less, such as prlimit(1): for a program that
    reads what cannot be trusted. The child and its own children are ended when this call is left
    in any way, our own death included.
    """
    log.debug("follow %s", argv)
    # setpriv is a part of util-linux, as mount is: every Debian has it. It comes last, since the
    # kernel forgets the signal when a guard changes the user.
    guarded = [*guard, "setpriv", "--pdeathsig", "TERM", *argv]
    try:
        child = subprocess.Popen(
            guarded,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=env,
            pass_fds=pass_fds,
            start_new_session=True,
            umask=0o022,
        )
    except FileNotFoundError as error:
        raise Failed(f"cannot run {guarded[0]}: {error.strerror}") from error
    tail: deque[str] = deque(maxlen=_KEPT_LINES)
    try:
        _read(child, tail, on_line, time.monotonic() + timeout_s)
        code = child.wait()
    finally:
        _end(child)
    return Ended(code=code, lines=tuple(tail))


def _read(
    child: subprocess.Popen[bytes],
    tail: deque[str],
    on_line: Callable[[str], None],
    deadline: float,
) -> None:
    assert child.stdout is not None
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ)
        while True:
            if not selector.select(max(0.0, deadline - time.monotonic())):
                raise Failed(f"{child.args!r} did not end in time")
            data = os.read(child.stdout.fileno(), 1 << 16)
            if not data:
                return
            *lines, rest = (rest + data).replace(b"\r", b"\n").split(b"\n")
            for line in lines:
                text = line.decode("utf-8", "replace").strip()
                tail.append(text)
                on_line(text)


def _end(child: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        if child.poll() is not None:
            break
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_GRACE_S)
    if child.stdout is not None:
        child.stdout.close()


def failure(program: str, ended: Ended) -> Failed | Quota:
    """Give the error for a bad end, in the words of the program."""
    lines = ended.lines
    text = "\n".join(lines)
    if "No space left on device" in text or "enough free space" in text:
        return Quota(f"{program} ran out of disk space", hint=MORE_ROOM)
    if "Could not allocate block in ext2" in text:
        return Quota(
            "the disk of the image is too small for what goes into it", hint="give a larger --size"
        )
    # mmdebstrap's last line only says that it failed; what apt or dpkg said stands before.
    said = [line for line in lines if line and not line.startswith("I: ")]
    useful = [line for line in said if line.startswith(("E: ", "dpkg: error", "mke2fs: "))]
    last = next((line for line in useful if "mmdebstrap failed" not in line), "")
    return Failed(f"{program} failed: {last or (said or [f'exit status {ended.code}'])[-1]}")
