"""Run one child process: an argument list, never a shell string, always with a time limit."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

from mayfly.errors import Failed

log = logging.getLogger("mayfly.command")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """How a child process ended, with what it printed."""

    argv: tuple[str, ...]
    code: int
    stdout: bytes
    stderr: bytes

    def text(self) -> str:
        """Give standard output as text; bytes that are not UTF-8 are replaced."""
        return self.stdout.decode("utf-8", "replace")

    def complaint(self) -> str:
        """Give the last line of standard error, for an error message."""
        lines = self.stderr.decode("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else f"exit status {self.code}, nothing on standard error"


def run(
    argv: Sequence[str],
    *,
    timeout_s: float,
    stdin: bytes = b"",
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    check: bool = True,
) -> Finished:
    """Run ``argv`` to its end.

    Raises ``Failed`` when the program cannot be started, exceeds ``timeout_s`` seconds, or (unless
    ``check`` is false) exits with another status than 0.
    """
    log.debug("run %s", argv)
    try:
        done = subprocess.run(
            list(argv),
            check=False,
            input=stdin,
            capture_output=True,
            timeout=timeout_s,
            env=env,
            cwd=cwd,
        )
    except OSError as error:
        raise Failed(
            f"cannot run {argv[0]}: {error.strerror}",
            hint="'mayfly doctor' says which package has it",
        ) from error
    except subprocess.TimeoutExpired as error:
        raise Failed(f"{argv[0]} did not end within {timeout_s:g} s") from error
    result = Finished(
        argv=tuple(argv), code=done.returncode, stdout=done.stdout, stderr=done.stderr
    )
    if check and done.returncode != 0:
        raise Failed(f"{' '.join(argv[:3])} failed: {result.complaint()}")
    return result


def leave_behind(keep: Set[int]) -> None:
    """Leave what belongs to the maker of this forked child: terminal, signals, descriptors.

    Standard error stays; standard input and output become ``/dev/null`` unless they are kept.
    """
    # Else a Ctrl-C that is meant for the job would end this process.
    os.setsid()
    signal.set_wakeup_fd(-1)
    # Not SIGPIPE: Python turns a broken connection into an error by ignoring it.
    for which in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGPIPE}:
        signal.signal(which, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    # The maker's objects must not be collected here: they would close numbers that are ours now.
    gc.freeze()
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    for standard in {0, 1} - keep:
        os.dup2(null, standard)
    for number in map(int, os.listdir("/proc/self/fd")):
        if number > 2 and number not in keep:
            with contextlib.suppress(OSError):
                os.close(number)
