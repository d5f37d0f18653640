"""Run one child process: an argument list, never a shell string, always with a time limit."""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Mapping, Sequence
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
