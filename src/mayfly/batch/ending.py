"""How a starter speaks to the job's user, and ends as the job did."""

from __future__ import annotations

import os
import resource
import signal
import sys


def say(text: str) -> None:
    """Tell the job's user something."""
    for line in text.split("\n"):
        print(f"mayfly: {line}", file=sys.stderr, flush=True)


def end_by(number: int) -> None:
    """End by a signal, as the job did; the core of this process is of no interest."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if number not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [number])
    os.kill(os.getpid(), number)
