"""Run commands against the clock, and leave none of them behind."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

LIMIT_S = 600.0
GRACE_S = 15.0
REPOSITORY = Path(__file__).resolve().parent.parent
MAYFLY = Path(sys.executable).with_name("mayfly")


class BenchError(Exception):
    """A measurement could not be taken."""


@dataclass(slots=True, kw_only=True)
class Child:
    """A process that was started, when, and where its messages go."""

    argv: Sequence[str]
    process: subprocess.Popen[bytes]
    began: float
    """By the monotonic clock, just before it was started."""
    output: int
    errors: int
    bare: bool = False
    """What it started ends with it by force: it does not clear up after itself."""
    ended: float = 0.0

    def wait(self, limit_s: float = LIMIT_S) -> int:
        """Wait for the end, note when it was, and give the exit status."""
        if self.process.returncode is not None:
            return self.process.returncode
        # Popen.wait() with a limit looks only now and then: too coarse a clock.
        handle = os.pidfd_open(self.process.pid)
        try:
            if not select.select([handle], [], [], limit_s)[0]:
                raise BenchError(f"'{' '.join(self.argv)}' did not end within {limit_s:g} s")
            self.ended = time.monotonic()
        finally:
            os.close(handle)
        if self.bare:
            # Not reaped yet, so the group's number is still its own.
            os.killpg(self.process.pid, signal.SIGKILL)
        return self.process.wait()

    @property
    def seconds(self) -> float:
        """Seconds from its start to its end."""
        return self.ended - self.began

    def said(self) -> str:
        """Give what it has printed on its standard output so far."""
        return _text(self.output)

    def complained(self) -> str:
        """Give what it has printed on its standard error so far."""
        return _text(self.errors)

    def end(self) -> None:
        """End it, with time to clear up unless it is bare, and let go of what it printed."""
        if not self.bare:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(GRACE_S)
        if self.process.returncode is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.close()

    def close(self) -> None:
        """Let go of what it printed."""
        os.close(self.output)
        os.close(self.errors)


def _text(file: int) -> str:
    # Its own reading place: the process writes on at the one that it shares with us.
    size = os.fstat(file).st_size
    return os.pread(file, size, 0).decode("utf-8", "replace").strip()


@dataclass(slots=True)
class Children:
    """Starts processes; at the end of the block none of them is left."""

    env: Mapping[str, str]
    _running: list[Child] = field(default_factory=list)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """End whatever still runs."""
        for child in self._running:
            if not child.bare:
                child.process.terminate()
        while self._running:
            self._running[-1].end()
            self._running.pop()

    def start(
        self,
        argv: Sequence[str],
        *,
        stdin: int = subprocess.DEVNULL,
        stdout: int | None = None,
        bare: bool = False,
        pass_fds: Sequence[int] = (),
    ) -> Child:
        """Start a process in a session of its own: a Ctrl-C reaches us alone, and we end it.

        Its output is kept for ``Child.said`` unless ``stdout`` says where it goes.
        """
        output, errors = os.memfd_create("bench-output"), os.memfd_create("bench-errors")
        began = time.monotonic()
        process = subprocess.Popen(
            argv,
            stdin=stdin,
            stdout=output if stdout is None else stdout,
            stderr=errors,
            cwd="/",
            env=self.env,
            start_new_session=True,
            pass_fds=pass_fds,
        )
        child = Child(
            argv=argv, process=process, began=began, output=output, errors=errors, bare=bare
        )
        self._running.append(child)
        return child

    @contextlib.contextmanager
    def done(self, child: Child, limit_s: float = LIMIT_S) -> Iterator[Child]:
        """Wait for a process to succeed, and give it to be read; raises when it does not."""
        status = child.wait(limit_s)
        if status != 0:
            words = " ".join(child.argv)
            raise BenchError(f"exit status {status} of '{words}': {child.complained()}")
        yield child
        self.forget(child)

    def stop(self, child: Child) -> None:
        """End a process that need not have ended."""
        if child in self._running:
            self._running.remove(child)
            child.end()

    def forget(self, child: Child) -> None:
        """Let go of a process that has ended."""
        self._running.remove(child)
        child.close()


def environment(home: Path) -> dict[str, str]:
    """Give the environment of a ``mayfly`` with that home, as after an ordinary installation.

    No service is asked: a bench that wants one names its own.
    """
    env = {**os.environ, "MAYFLY_HOME": str(home), "MAYFLY_HOST_SOCKET": "none"}
    # Compiled modules are kept, as pip keeps them.
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    # One more directory to search costs each import a little.
    paths = [path for path in env.pop("PYTHONPATH", "").split(":") if path]
    if others := [path for path in paths if path != str(REPOSITORY)]:
        env["PYTHONPATH"] = ":".join(others)
    return env
