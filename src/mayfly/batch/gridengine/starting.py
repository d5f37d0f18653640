"""The starter: in the place of the job's own program, as its user; ends as the job does."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from mayfly.batch.ending import end_by, say
from mayfly.batch.gridengine.request import VARIABLE, read_request
from mayfly.batch.gridengine.task import SPOOL, read_config
from mayfly.batch.job import Fault, Ticket, read_ticket
from mayfly.batch.settings import BatchSettings
from mayfly.batch.starter import Payload, outcome_lines, run_bare, start
from mayfly.batch.wish import parse_wish
from mayfly.command import run
from mayfly.engine.session.job import signal_of
from mayfly.errors import Failed, MayflyError
from mayfly.policy.model import Ask

TICKET = "mayfly-ticket"
"""In the directory that Grid Engine has for the task: root writes there, the user reads."""
REASON = "mayfly-reason"
"""In the task's directory for temporary files."""
AGAIN, IN_ERROR = 99, 100
"""Exit statuses by which Grid Engine begins a job again, or sets it aside for somebody to look."""
HOST_ONLY = ("PE_HOSTFILE", SPOOL, "SGE_BINARY_PATH")
SHOW_LIMIT_S = 30.0
LOGIN = ("bash", "sh", "dash", "ksh", "zsh")
"""Shells that take ``-l`` beside other words."""


def start_task(words: Sequence[str], environ: Mapping[str, str], settings: BatchSettings) -> int:
    """Run the task; gives the exit status, or ends by the signal that ended it."""
    # Should the service be restarted meanwhile, it is asked again there.
    os.environ["MAYFLY_HOST_SOCKET"] = str(settings.socket)
    spool = Path(environ.get(SPOOL, "/"))
    config = read_config(spool)
    ticket = find_ticket(spool, environ)
    payload = payload_of(words, environ, config, bare=_is_bare(ticket))
    if _is_bare(ticket):
        return _bare(payload)
    ended = start(ticket, payload, settings, say, began=_shown_by(config))
    for line in outcome_lines(ended):
        say(line)
    if ended.fault in (Fault.MAYFLY, Fault.SITE):
        _leave_reason(Path(config.get("tmpdir", "/")), ended.outcome.reason)
        return _again(ticket, settings)
    if number := signal_of(ended.outcome):
        end_by(number)
    return ended.outcome.code


def _shown_by(config: Mapping[str, str]) -> Callable[[str], None]:
    """Give what shows a machine in ``qstat -j``, not before its job has begun: that would delay it.

    The tasks of an array share one context, in which there is no room for all of them.
    """

    def show(machine: str) -> None:
        told = f"vm_state=running,vm_machine={machine},vm_host={config.get('host', '')}"
        argv = ["qalter", "-ac", told, config.get("job_id", "")]
        # Where this host may not ask the master, or it is busy, the job goes on without.
        threading.Thread(target=_run_quietly, args=(argv,), daemon=True).start()

    return show if config.get("ja_task_id") == "0" else lambda machine: None


def _run_quietly(argv: Sequence[str]) -> None:
    with contextlib.suppress(MayflyError):
        run(argv, timeout_s=SHOW_LIMIT_S, check=False)


def _is_bare(ticket: Ticket) -> bool:
    return not ticket.image and ticket.fault is None


def _bare(payload: Payload) -> int:
    try:
        run_bare(payload.argv, payload.environ)
    except OSError as error:
        print(f"{payload.argv[0]}: {error.strerror}", file=sys.stderr)
        return 127 if isinstance(error, FileNotFoundError) else 126
    return 0


def find_ticket(spool: Path, environ: Mapping[str, str]) -> Ticket:
    """Give the job's ticket, or one that says why there is none."""
    try:
        return read_ticket((spool / TICKET).read_text())
    except (OSError, ValueError, MayflyError) as error:
        request = read_request(environ.get(VARIABLE, ""))
        job = environ.get("JOB_ID", "")
        plain = Ticket(system="gridengine", job=job, key=f"-/{job}/-")
        if parse_wish(request.options).ask in (Ask.NOTHING, Ask.NATIVE):
            # A queue without our prolog: its jobs run as they always did.
            return plain
        lacking = isinstance(error, OSError)
        told = "the queue has our starter, but not our prolog" if lacking else str(error)
        return Ticket(
            system="gridengine",
            job=job,
            key=plain.key,
            fault=Fault.MAYFLY,
            reason=f"the job has no ticket for a machine: {told}",
            restart=sys.maxsize,
        )


def _again(ticket: Ticket, settings: BatchSettings) -> int:
    if ticket.restart < settings.tries:
        say("the job will be begun again")
        return AGAIN
    say("that was the last try: the job waits in error ('qmod -cj' lets it try again)")
    return IN_ERROR


def _leave_reason(directory: Path, reason: str) -> None:
    """Tell root's epilog why, which puts it on the job."""
    with contextlib.suppress(OSError):
        (directory / REASON).write_text(reason[:4000])


# --- what Grid Engine would have run -------------------------------------------------------------


def payload_of(
    words: Sequence[str], environ: Mapping[str, str], config: Mapping[str, str], *, bare: bool
) -> Payload:
    """Give the command that the job is; raises ``Failed``."""
    env = dict(environ) if bare else _environment(environ, config)
    if config.get("handle_as_binary") == "1":
        if not words:
            raise Failed("Grid Engine gave no command to start")
        return Payload(argv=tuple(words), environ=env)
    script = config.get("script_file", "")
    # The first word is the script, or '-s' where shells read it from standard input.
    argv = (script, *words[1:])
    interpreter = interpreter_of(environ)
    if bare:
        return Payload(argv=(*interpreter, *argv), environ=env)
    return Payload(argv=argv, script=Path(script), interpreter=interpreter, environ=env)


def interpreter_of(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Give the shell that reads the job's script; nothing where the script names its own."""
    shell = environ.get("SGE_STARTER_SHELL_PATH", "")
    if not shell or environ.get("SGE_STARTER_SHELL_START_MODE") == "unix_behavior":
        return ()
    login = environ.get("SGE_STARTER_USE_LOGIN_SHELL") == "true"
    return (shell, "-l") if login and Path(shell).name in LOGIN else (shell,)


def _environment(environ: Mapping[str, str], config: Mapping[str, str]) -> dict[str, str]:
    """Give the job's variables, but for what leads to the host's own directories."""
    temporary = config.get("tmpdir", "")
    env = {name: value for name, value in environ.items() if name not in HOST_ONLY}
    for name in ("TMPDIR", "TMP"):
        if env.get(name) == temporary:
            env[name] = "/tmp"  # noqa: S108 - the machine's own, which nobody shares
    if "PATH" in env:
        env["PATH"] = ":".join(part for part in env["PATH"].split(":") if part != temporary)
    return env
