"""Runs a batch job in its machine, as the job's user, the way ``mayfly run`` runs a command."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mayfly.batch.job import Fault, Ticket, fault_of
from mayfly.batch.place import Place, outermost, place_of, usable
from mayfly.batch.script import carry
from mayfly.batch.settings import BatchSettings, parse_live
from mayfly.batch.sharing import run_shared
from mayfly.config import Settings
from mayfly.engine.caller import (
    account_of_caller,
    caller_limits,
    job_environment,
    umask_of_caller,
)
from mayfly.engine.jobs import Job, Steps, failed_outcome
from mayfly.engine.session.job import JobRequest
from mayfly.errors import RUN_FAILED, Invalid, MayflyError, refusal
from mayfly.host import client
from mayfly.host.run import claim_fields, run_hosted
from mayfly.model import Account, MachineSpec, NetworkMode, Outcome, Shape, ShareDir, Who

Say = Callable[[str], None]
_OURS = "MAYFLY_"
_HOST_ONLY = frozenset(
    {"SSH_AUTH_SOCK", "SSH_AGENT_PID", "DBUS_SESSION_BUS_ADDRESS", "XDG_RUNTIME_DIR"}
)
"""Variables that lead to sockets of the host, which no machine has."""
_PROXIES = frozenset({"http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """What the batch system would have run."""

    argv: tuple[str, ...]
    script: Path | None = None
    """Where ``argv[0]`` is a script that the batch system keeps for itself."""
    interpreter: tuple[str, ...] = ()
    """What reads the script; nothing: the script itself says it."""
    environ: Mapping[str, str]
    tty: bool | None = False
    """None: if standard input and output are terminals."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How it went, and whose doing it was that it did not, if so."""

    outcome: Outcome
    fault: Fault | None = None
    """None: the job ran, and this is its own end."""


def start(
    ticket: Ticket,
    payload: Payload,
    settings: BatchSettings,
    say: Say,
    began: Say = lambda machine: None,
    waits: Say = lambda reason: None,
) -> Ended:
    """Run a job in its machine, to its end; never raises a ``MayflyError``.

    ``say``: tells the job's user something, in a line of standard error; ``began``: is told the
    machine's name when the job in it has begun; ``waits``: why there is no machine yet, once, of a
    job that does not get one at once.
    """
    reasons: list[str] = []

    def report(text: str) -> None:
        # What comes later is no more of a reason, and a job's output shows no progress.
        if not reasons and not steps.machine:
            reasons.append(text)
            say(f"no machine yet: {text}")
            waits(text)

    steps = Steps(report=report, note=say, phase="start", began=began)
    if ticket.fault is not None:
        reason = ticket.reason + (f"\n  hint: {ticket.hint}" if ticket.hint else "")
        return Ended(outcome=_not_run(reason), fault=ticket.fault)
    try:
        outcome = _start(ticket, payload, settings, steps)
    except (MayflyError, OSError) as error:
        told = refusal(error) if isinstance(error, OSError) else error
        outcome = failed_outcome(told, steps)
    return Ended(outcome=outcome, fault=_fault(outcome, steps))


def _not_run(reason: str) -> Outcome:
    return Outcome(phase="start", who=Who.MAYFLY, code=RUN_FAILED, reason=reason, machine="")


def _fault(outcome: Outcome, steps: Steps) -> Fault | None:
    if outcome.who is Who.JOB:
        return None
    if steps.error is not None:
        return fault_of(steps.error)
    return Fault.SITE if outcome.who is Who.SITE else Fault.MAYFLY


def _start(ticket: Ticket, payload: Payload, settings: BatchSettings, steps: Steps) -> Outcome:
    account = account_of_caller()
    place = place_of(_here(), _shares(ticket, settings), account, Settings())
    steps.note(f"machine of {ticket.image}, network {ticket.network}; {place.words}")
    if ticket.restart:
        steps.note(f"the job is begun again, from its beginning (try {ticket.restart + 1})")
    job = job_of(ticket, payload, place, account)
    if ticket.shared:
        return run_shared(job, ticket, settings.socket, steps)
    # With patience: a service that is restarted at this moment costs no job.
    connection = client.connect(settings.socket, patience_s=client.RESTART_S)
    connection = connection or client.require(settings.socket)
    fields = claim_fields(job, key=ticket.key, network_asked=ticket.network_asked)
    return run_hosted(connection, job, steps, fields)


def _here() -> Path | None:
    try:
        return Path.cwd()
    except OSError:
        return None


def _shares(ticket: Ticket, settings: BatchSettings) -> tuple[ShareDir, ...]:
    asked = [parse_live(Path(text)) for text in ticket.shares]
    for share in asked:
        if not usable(share):
            raise Invalid(f"{share.path} cannot be shared: you have no such directory on this host")
    site = [share for share in settings.live if usable(share)] if ticket.live else []
    return outermost([*asked, *site])


def job_of(ticket: Ticket, payload: Payload, place: Place, account: Account) -> Job:
    """Give what the machine is to run."""
    network = NetworkMode(ticket.network)
    umask = umask_of_caller()
    env = environment(payload.environ, network)
    argv = payload.argv
    if payload.script is not None:
        carried = carry(payload.script, argv[1:], umask=umask, interpreter=payload.interpreter)
        argv, env = carried.argv, {**env, **carried.env}
    request = JobRequest(
        argv=argv,
        env=env,
        cwd=place.cwd,
        umask=umask,
        limits=caller_limits(),
        root=ticket.root,
        tty=payload.tty,
        workdir=place.workdir,
        time_limit_s=None,
    )
    return Job(
        # The size is what the job was granted: the service knows it by the job's right.
        spec=MachineSpec(
            image=ticket.image,
            shape=Shape(cpus=1, memory_mib=0),
            disk_mib=None,
            network=network,
            allow=ticket.allow,
        ),
        account=account,
        request=request,
        shares=place.shares,
        keep_on_failure=ticket.keep,
        sized=False,
        label=f"job {ticket.job}: {' '.join(payload.argv)}"[:200],
    )


def environment(environ: Mapping[str, str], network: NetworkMode) -> dict[str, str]:
    """Give the job's environment: its own, but for what leads to the host or is ours."""
    proxies = _PROXIES if network is NetworkMode.RESTRICTED else frozenset()
    own = {
        name: value
        for name, value in environ.items()
        if not name.startswith(_OURS) and name not in _HOST_ONLY and name.lower() not in proxies
    }
    return {**job_environment(environ, (), tty=False), **own}


def outcome_lines(ended: Ended) -> list[str]:
    """Give what the job's user is told of an end that is not the job's own."""
    outcome = ended.outcome
    if ended.fault is None:
        return [] if outcome.phase == "done" else [outcome.reason]
    return outcome.reason.split("\n")


def run_bare(argv: tuple[str, ...], environ: Mapping[str, str]) -> None:
    """Become the job's command, on the host: for jobs without a machine. Raises ``OSError``."""
    os.execvpe(argv[0], list(argv), dict(environ))
