"""The starter: in the place of the shell that PBS starts for a job, as the job's user.

PBS starts a login shell and hands it the job's script: its path in a line of standard input, the
script itself there, or its path as an argument, as it was built.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mayfly.batch.ending import say
from mayfly.batch.job import Fault, Ticket
from mayfly.batch.pbs.job import number_of
from mayfly.batch.place import usable
from mayfly.batch.running import become, has_tries, is_bare, run_task
from mayfly.batch.script import LONGEST
from mayfly.batch.settings import BatchSettings
from mayfly.batch.starter import Payload
from mayfly.batch.tickets import find, note
from mayfly.errors import RUN_FAILED, MayflyError, Missing

AGAIN = 99
"""Torque's server is told by ``automatic_requeue_exit_code`` what this means."""
HOST_ONLY = ("PBS_NODEFILE", "PBS_GPUFILE", "PBS_MICFILE", "PBS_JOBDIR", "PBS_JOBCOOKIE")
LOGIN = ("bash", "sh", "dash", "ksh", "zsh")
"""Shells that take ``-l`` and ``-c`` with words behind."""
PATH_LONGEST = 4096


def start_job(words: Sequence[str], environ: Mapping[str, str], settings: BatchSettings) -> int:
    """Run the job; gives the exit status, or ends by the signal that ended it."""
    job = number_of(environ.get("PBS_JOBID", ""))
    ticket = find_ticket(job, settings)
    if ticket is None or is_bare(ticket):
        return become(tuple(words), environ)
    payload = payload_of(words, environ, script_of(words, job))
    _go_to_work(environ, settings)

    def again(reason: str) -> int:
        if not has_tries(ticket, settings):
            return RUN_FAILED
        note(settings, job, reason)
        return AGAIN

    return run_task(ticket, payload, settings, again)


def find_ticket(job: str, settings: BatchSettings) -> Ticket | None:
    """Give the job's ticket, or one that says why it cannot be read; None: it asked for nothing."""
    try:
        return find(settings, job)
    except Missing:
        # Registration is for all jobs: where it is not set up, they run as they always did.
        return None
    except MayflyError as error:
        return Ticket(
            system="pbs", job=job, key=f"-/{job}/-", fault=Fault.MAYFLY, reason=error.message
        )


# --- what PBS would have run ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """A job's script: where it can be read, and whether it names what reads it."""

    path: Path
    named: bool


def script_of(words: Sequence[str], job: str) -> Script | None:
    """Find the job's script; None: the job is interactive. Standard input is empty afterwards."""
    for word in words[1:]:
        if not word.startswith("-") and os.path.isfile(word):
            return _script(Path(word))
    if os.isatty(0):
        return None
    content = _read_all(0)
    _empty_input()
    line = content[:PATH_LONGEST].strip()
    if line.startswith(b"/") and b"\n" not in line and os.path.isfile(line):
        return _script(Path(os.fsdecode(line)))
    # It goes where nobody but this process sees it, and is gone with it.
    fd = os.memfd_create(f"job-{job}")
    os.write(fd, content)
    return _script(Path(f"/proc/self/fd/{fd}"))


def _script(path: Path) -> Script:
    try:
        with open(path, "rb") as file:
            return Script(path=path, named=file.read(2) == b"#!")
    except OSError:
        return Script(path=path, named=False)


def _read_all(fd: int) -> bytes:
    """Read all of a small thing; one byte more than a script may have is enough to refuse it."""
    parts = []
    left = LONGEST + 1
    while left > 0 and (part := os.read(fd, min(left, 1 << 16))):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _empty_input() -> None:
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)


def payload_of(words: Sequence[str], environ: Mapping[str, str], script: Script | None) -> Payload:
    """Give the command that the job is in its machine."""
    shell = words[0] if words else "/bin/sh"
    name = Path(shell).name
    env = _environment(environ)
    if script is None:
        return Payload(argv=(shell, "-l"), environ=env, tty=None)
    login = name in LOGIN
    # As PBS does it: a login shell that executes the script, whose own first line counts.
    within = (shell, "-l", "-c", '"$0" "$@"') if login else () if script.named else (shell,)
    path = script.path
    return Payload(argv=(str(path),), script=path, interpreter=within, environ=env)


def _environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Give the job's variables, but for what leads to directories of the host."""
    env = {name: value for name, value in environ.items() if name not in HOST_ONLY}
    temporary = env.get("TMPDIR", "")
    if temporary and environ.get("PBS_JOBID", "-") in temporary:
        env["TMPDIR"] = "/tmp"  # noqa: S108 - the machine's own, which nobody shares
    return env


def _go_to_work(environ: Mapping[str, str], settings: BatchSettings) -> None:
    """Have the directory of submission in the machine, to which scripts go with ``cd``.

    PBS starts jobs in the home directory, which is not copied into a machine.
    """
    where = Path(environ.get("PBS_O_WORKDIR", "/"))
    if not where.is_absolute() or any(
        where.is_relative_to(share.path) for share in settings.live if usable(share)
    ):
        return
    try:
        if stat.S_ISDIR(os.stat(where).st_mode):
            os.chdir(where)
    except OSError as error:
        say(f"{where}: {error.strerror}")
        sys.stderr.flush()
