"""The starter: in the place of a job's command, as its user.

LSF runs ``JOB_STARTER`` by a shell, with the command, or the path of its own file with the job's
script, in the place of ``%USRCMD``.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from mayfly.batch.ending import say
from mayfly.batch.job import Fault, Ticket
from mayfly.batch.lsf.job import VARIABLE, name_of, read_options
from mayfly.batch.running import become, is_bare, run_task
from mayfly.batch.settings import BatchSettings
from mayfly.batch.starter import Payload
from mayfly.batch.tickets import find
from mayfly.batch.wish import parse_wish
from mayfly.command import run
from mayfly.errors import Invalid, MayflyError, Missing
from mayfly.policy.model import Ask

AGAIN = 99
"""The queue has it as ``EXCLUDE(99)``: begun again, and not on this host."""
SHELL = "/bin/sh"
SPOOL = ".lsbatch"
"""The directory in a user's home where LSF keeps files of his jobs."""
HOST_ONLY = ("LS_SUBCWD", "LSB_JOBFILENAME", "LSB_DJOB_HOSTFILE", "LSB_EEXEC_REAL_UID")
HOST_ONLY_BEGIN = ("LSF_", "LSB_TRAPSIGS", "LS_EXEC_T")
POST_LIMIT_S = 20.0


def start_job(words: Sequence[str], environ: Mapping[str, str], settings: BatchSettings) -> int:
    """Run the job; gives the exit status, or ends by the signal that ended it."""
    if not words:
        raise Invalid("LSF gave no command to start")
    name = name_of(environ)
    ticket = ticket_for(name, environ, settings)
    if is_bare(ticket):
        argv = (SHELL, "-c", words[0]) if len(words) == 1 else tuple(words)
        return become(argv, environ)

    def again(reason: str) -> int:
        say("the job will be begun again elsewhere, as often as its queue allows")
        told = f"mayfly: {' '.join(reason.split())}"[:500]
        with contextlib.suppress(MayflyError):
            run(["bpost", "-d", told, name], timeout_s=POST_LIMIT_S, check=False)
        return AGAIN

    return run_task(ticket, payload_of(words, environ), settings, again)


def ticket_for(name: str, environ: Mapping[str, str], settings: BatchSettings) -> Ticket:
    """Give the job's ticket; what kept it from one stands in it."""
    reason, hint, fault = "", "", Fault.MAYFLY
    try:
        return find(settings, name)
    except Missing as error:
        reason = f"{error.message}: the queue has our starter, but not our PRE_EXEC as root"
    except MayflyError as error:
        reason, hint = error.message, error.hint
    plain = Ticket(system="lsf", job=name, key=f"-/{name}/-")
    try:
        if parse_wish(read_options(environ.get(VARIABLE, ""))).ask in (Ask.NOTHING, Ask.NATIVE):
            return plain
    except Invalid as error:
        reason, hint, fault = error.message, error.hint, Fault.JOB
    return Ticket(system="lsf", job=name, key=plain.key, fault=fault, reason=reason, hint=hint)


def payload_of(words: Sequence[str], environ: Mapping[str, str]) -> Payload:
    """Give the command that the job is in its machine."""
    env = {
        name: value
        for name, value in environ.items()
        if name not in HOST_ONLY and not name.startswith(HOST_ONLY_BEGIN)
    }
    script = _script(words, environ)
    if script is not None:
        with open(script, "rb") as file:
            interpreter = () if file.read(2) == b"#!" else (SHELL,)
        argv = (str(script), *words[1:])
        return Payload(argv=argv, script=script, interpreter=interpreter, environ=env, tty=None)
    argv = (SHELL, "-c", words[0]) if len(words) == 1 else tuple(words)
    return Payload(argv=argv, environ=env, tty=None)


def _script(words: Sequence[str], environ: Mapping[str, str]) -> Path | None:
    """Give LSF's own file with the job's script; a program of the user's is none."""
    path = Path(words[0].strip())
    spool = environ.get("LSB_JOBFILENAME", "")
    own = path.parent.name == SPOOL or (spool and str(path).startswith(spool))
    return path if own and path.is_absolute() and os.path.isfile(path) else None
