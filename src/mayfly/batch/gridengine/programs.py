"""The programs that Grid Engine calls: each is one of these; installation says where things are."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Mapping
from pathlib import Path

from mayfly.batch.ending import say
from mayfly.batch.gridengine.request import VARIABLE, read_request
from mayfly.batch.gridengine.starting import IN_ERROR, REASON, TICKET
from mayfly.batch.gridengine.task import (
    SPOOL,
    check_one_host,
    context_value,
    job_of,
    key_of,
    parse_context,
    read_config,
    tries_name,
    tries_of,
)
from mayfly.batch.gridengine.used import ask_used, used_words
from mayfly.batch.job import Ticket, refused, write_ticket
from mayfly.batch.program import Call, Program, call_of, end
from mayfly.batch.registration import register, unregister
from mayfly.batch.wish import parse_wish
from mayfly.command import run
from mayfly.errors import Failed, MayflyError

NAMES = ("prolog", "epilog", "starter", "suspend", "resume", "verifier", "sensor")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ASK_LIMIT_S = 30.0
REASON_LONGEST = 4096


def main(name: str, *, cluster: str, config: str, home: str = "") -> None:
    """Run one of the programs; ``home``: as ``MAYFLY_HOME``, where images and policy are."""
    call = call_of(cluster, config)
    if name in ("prolog", "epilog"):
        _forget_users_environment()
    end(_PROGRAMS[name], call, home=home)


def _forget_users_environment() -> None:
    """Root's hooks get the job's variables, which its user chose: what root starts gets none."""
    kept = {name: value for name, value in os.environ.items() if name in _CELL}
    os.environ.clear()
    os.environ.update({**kept, "PATH": PATH, "LC_ALL": "C.UTF-8"})


_CELL = ("SGE_ROOT", "SGE_CELL", "SGE_QMASTER_PORT", "SGE_EXECD_PORT", "SGE_CLUSTER_NAME")
"""Set by Grid Engine after the user's own."""


# --- root's --------------------------------------------------------------------------------------


def prolog(call: Call) -> int:
    """Register the task, and leave its ticket for the starter.

    Any other status than 0 and ``IN_ERROR`` would put the queue in error.
    """
    try:
        spool = Path(call.environ[SPOOL])
        ticket = ticket_of(call, spool)
        _write_ticket(spool / TICKET, ticket)
    except (MayflyError, OSError, KeyError, ValueError) as error:
        print(f"mayfly: the job cannot be registered: {error}", file=sys.stderr)
        return IN_ERROR
    return 0


def ticket_of(call: Call, spool: Path) -> Ticket:
    """Register a task; what kept it from a machine stands in the ticket."""
    config = read_config(spool)
    text = call.environ.get(VARIABLE, "")
    restart = _tries(config) if call.environ.get("RESTARTED", "0") != "0" else 0
    plain = job_of(config, call.site.cluster, read_request(""), restart=restart)
    try:
        request = read_request(text)
        wish = parse_wish(request.options)
        job = job_of(config, call.site.cluster, request, restart=restart)
        ticket = register(job, wish, call.site.settings())
        if ticket.image:
            check_one_host(config, _hosts(config))
        return ticket
    except MayflyError as error:
        return refused(plain, error)


def _hosts(config: Mapping[str, str]) -> str:
    name = config.get("pe_hostfile", "")
    try:
        return Path(name).read_text() if config.get("pe", "none") != "none" and name else ""
    except OSError as error:
        raise Failed(f"cannot read on which hosts the job is: {error}") from error


def _write_ticket(path: Path, ticket: Ticket) -> None:
    """Write the ticket anew: nobody but root and Grid Engine's own user may write there."""
    path.unlink(missing_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
    with open(fd, "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), 0o644)
        file.write(write_ticket(ticket))


def _tries(config: Mapping[str, str]) -> int:
    """Ask the master how often we failed this task already."""
    return tries_of(parse_context(_shown(config)), config.get("ja_task_id", ""))


def _shown(config: Mapping[str, str]) -> str:
    return run(["qstat", "-j", config.get("job_id", "")], timeout_s=ASK_LIMIT_S).text()


def epilog(call: Call) -> int:
    """Take the task's right back; put on the job why it is to be begun again, if it is.

    Whatever happens, the status is 0 or ``IN_ERROR``: any other would put the queue in error.
    """
    try:
        config = read_config(Path(call.environ.get(SPOOL, "/")))
        key = key_of(config, call.site.cluster)
    except MayflyError as error:
        print(f"mayfly: {error.message}", file=sys.stderr)
        return 0
    try:
        settings = call.site.settings()
        unregister(key, settings)
        for event in ask_used(key, settings)[:1]:
            # Grid Engine has the epilog's standard error be the job's.
            if words := used_words(event):
                say(words)
    except MayflyError as error:
        # The service ends what belongs to a client that has gone, and rights have their time.
        print(f"mayfly: {error.message}", file=sys.stderr)
    reason = read_reason(Path(config.get("tmpdir", "/")) / REASON)
    return _tell(config, reason) if reason else 0


def read_reason(path: Path) -> str:
    """Read what the starter left; the user could have put anything there."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return ""
    try:
        plain = stat.S_ISREG(os.fstat(fd).st_mode)
        return os.read(fd, REASON_LONGEST).decode("utf-8", "replace") if plain else ""
    finally:
        os.close(fd)


def _tell(config: Mapping[str, str], reason: str) -> int:
    """Put the reason on the job, and count; a job that cannot be counted is set aside."""
    job, task = config.get("job_id", ""), config.get("ja_task_id", "")
    try:
        shown = _shown(config)
        tries = tries_of(parse_context(shown), task) + 1
        told = f"vm_reason={context_value(reason)},{tries_name(task)}={tries}"
        argv = ["qalter", "-ac", told, job]
        done = run(argv, timeout_s=ASK_LIMIT_S, check=False)
        if done.code != 0:
            # What qalter(1) has to say is on its standard output.
            raise Failed(f"qalter: {done.text().strip()}")
    except MayflyError as error:
        print(f"mayfly: cannot say on the job why: {error.message}", file=sys.stderr)
        return IN_ERROR
    return 0


# --- others --------------------------------------------------------------------------------------


def starter(call: Call) -> int:
    """The user's, in the place of the job's own program."""
    from mayfly.batch.gridengine.starting import start_task  # noqa: PLC0415

    try:
        return start_task(call.words, call.environ, call.site.settings())
    except MayflyError as error:
        say(error.message)
        return IN_ERROR


def suspend(call: Call) -> int:
    """The user's: have his job stand still."""
    from mayfly.batch.gridengine.pausing import suspend_task  # noqa: PLC0415

    return suspend_task(call.site.cluster, call.words, call.environ, call.site.settings())


def resume(call: Call) -> int:
    """The user's: have his job go on."""
    from mayfly.batch.gridengine.pausing import resume_task  # noqa: PLC0415

    return resume_task(call.site.cluster, call.words, call.environ, call.site.settings())


def verifier(call: Call) -> int:
    """Grid Engine's own user's, beside the master: answer for each job that is submitted."""
    from mayfly.batch.gridengine.desk import serve  # noqa: PLC0415 - not for each task

    serve(call.site.settings, sys.stdin, _send)
    return 0


def sensor(call: Call) -> int:
    """Grid Engine's own user's, on each host: say how Mayfly is here."""
    from mayfly.batch.gridengine.sensor import report, values_of  # noqa: PLC0415
    from mayfly.batch.status import ask_status  # noqa: PLC0415

    host = _own_name(call.environ)

    def look() -> dict[str, str]:
        try:
            return values_of(ask_status(call.site.settings()))
        except MayflyError:
            return values_of(None)

    report(host, sys.stdin, _send, look)
    return 0


def _own_name(environ: Mapping[str, str]) -> str:
    """Give what Grid Engine calls this host."""
    programs = Path(environ.get("SGE_ROOT", "/")) / "utilbin"
    program = programs / environ.get("SGE_ARCH", "lx-amd64") / "gethostname"
    argv = [str(program) if program.exists() else "/usr/lib/gridengine/gethostname", "-aname"]
    try:
        return run(argv, timeout_s=ASK_LIMIT_S).text().strip()
    except Failed:
        return os.uname().nodename


def _send(line: str) -> None:
    print(line, flush=True)


_PROGRAMS: Mapping[str, Program] = {
    "prolog": prolog,
    "epilog": epilog,
    "starter": starter,
    "suspend": suspend,
    "resume": resume,
    "verifier": verifier,
    "sensor": sensor,
}
