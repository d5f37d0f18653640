"""The starter: runs a task's program in its machine, and ends as that does."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

from mayfly.batch.ending import end_by, say
from mayfly.batch.job import TICKET_VARIABLE, Fault, Ticket, read_ticket
from mayfly.batch.settings import BatchSettings
from mayfly.batch.starter import Ended, Payload, outcome_lines, start
from mayfly.command import run
from mayfly.engine.session.job import signal_of
from mayfly.errors import Failed, MayflyError

ARGV0 = "MAYFLY_ARGV0"
SCRIPT = "slurm_script"
"""What slurmd calls the script of a batch job, in a directory of its own."""
COMMENT_LONGEST = 200
OURS = "mayfly: "
"""How a comment of ours on a job begins."""
CONTROL_LIMIT_S = 30.0


def start_task(words: Sequence[str], environ: Mapping[str, str], settings: BatchSettings) -> int:
    """Run the task; gives the exit status, or ends by the signal that ended it."""
    # Should the service be restarted meanwhile, it is asked again there.
    os.environ["MAYFLY_HOST_SOCKET"] = str(settings.socket)
    argv0 = environ.get(ARGV0, "")
    try:
        ticket = read_ticket(environ.get(TICKET_VARIABLE, ""))
    except MayflyError as error:
        ticket = Ticket(
            system="slurm",
            job=environ.get("SLURM_JOB_ID", ""),
            key="",
            step="" if "SLURM_STEP_ID" in environ else "batch",
            restart=_restarts(environ),
            fault=Fault.MAYFLY,
            reason=error.message,
            hint=error.hint,
        )
    payload = payload_of(argv0, words, environ)
    ended = start(ticket, payload, settings, say, waits=lambda why: _explain(ticket.job, why))
    for line in outcome_lines(ended):
        say(line)
    if ended.fault in (Fault.MAYFLY, Fault.SITE):
        _try_again(ticket, ended, environ, settings)
    if number := signal_of(ended.outcome):
        end_by(number)
    return ended.outcome.code


def _restarts(environ: Mapping[str, str]) -> int:
    text = environ.get("SLURM_RESTART_COUNT", "0")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0


def payload_of(argv0: str, words: Sequence[str], environ: Mapping[str, str]) -> Payload:
    """Give what Slurm would have run."""
    script = Path(argv0) if Path(argv0).name == SCRIPT and os.path.isfile(argv0) else None
    return Payload(argv=(argv0, *words), script=script, environ=environ, tty=None)


def _try_again(
    ticket: Ticket, ended: Ended, environ: Mapping[str, str], settings: BatchSettings
) -> None:
    """Give a batch job back to Slurm, to be begun again on another host where there is one."""
    if ticket.step != "batch":
        say("the step is not begun again: its user decides")
        return
    if ticket.restart >= settings.tries:
        say(f"the job was begun again {ticket.restart} times: that is enough")
        return
    if not _is_wanted(ticket.job):
        # Its end is none of ours: it was cancelled, or its time is over.
        return
    job = ticket.job
    _explain(job, ended.outcome.reason)
    elsewhere = _others(environ)
    # Slurm ends this step as soon as it has taken the job back.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        run(["scontrol", "requeue", job], timeout_s=CONTROL_LIMIT_S)
    except Failed as error:
        say(f"the job cannot be begun again: {error.message}")
        return
    if elsewhere:
        # Not before: of a job that runs this cannot be changed.
        _update(job, f"excnodelist={environ.get('SLURMD_NODENAME', '')}")


def _explain(job: str, reason: str) -> None:
    """Have squeue show what became of a job, unless its user has put something there himself.

    What root has for that, ``AdminComment``, users cannot change.
    """
    own = _asked(job, "%k")
    if own is not None and (own in ("", "(null)") or own.startswith(OURS)):
        words = f"{OURS}{reason}".replace("\n", " ")[:COMMENT_LONGEST]
        _update(job, f"comment={words}")


def _is_wanted(job: str) -> bool:
    """Tell whether the job is to run, as far as Slurm is concerned."""
    return _asked(job, "%T") == "RUNNING"


def _asked(job: str, what: str) -> str | None:
    """Ask squeue one thing of a job; None, and said, when it does not tell."""
    argv = ["squeue", "--noheader", "--states=all", f"--jobs={job}", f"--format={what}"]
    try:
        return run(argv, timeout_s=CONTROL_LIMIT_S).text().strip()
    except Failed as error:
        say(error.message)
        return None


def _others(environ: Mapping[str, str]) -> bool:
    """Tell whether the job could run on another host than this one."""
    queue = environ.get("SLURM_JOB_PARTITION", "")
    argv = ["sinfo", "--noheader", "--responding", "--format=%n", f"--partition={queue}"]
    try:
        names = set(run(argv, timeout_s=CONTROL_LIMIT_S).text().split())
    except Failed:
        return False
    return len(names) > 1


def _update(job: str, change: str) -> None:
    try:
        run(["scontrol", "update", f"jobid={job}", change], timeout_s=CONTROL_LIMIT_S)
    except Failed as error:
        say(error.message)
