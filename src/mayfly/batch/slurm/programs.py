"""The programs that Slurm calls: each is one of these, with what the installation wrote into it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace

from mayfly.batch.job import Fault, Ticket, refused, write_ticket
from mayfly.batch.program import Call, Program, Site, call_of, end
from mayfly.batch.registration import register as register_job
from mayfly.batch.registration import unregister
from mayfly.batch.slurm.task import (
    ask_slurm,
    find_cgroup,
    job_of,
    node_of,
    number,
    split_words,
    step_name,
)
from mayfly.batch.wish import parse_wish
from mayfly.errors import MayflyError

COMMENT_LONGEST = 300
NAMES = ("register", "release", "epilog", "submit", "starter", "health")


def main(name: str, *, cluster: str, config: str, home: str = "") -> None:
    """Run one of the programs; ``home``: as ``MAYFLY_HOME``, where images and policy are."""
    end(_PROGRAMS[name], call_of(cluster, config), home=home)


def register(call: Call) -> int:
    """Root's, for each task: print whether it gets a machine, and its ticket."""
    facts, options = split_words(call.words)
    ticket = ticket_of(call.site, facts, options)
    machine = bool(ticket.image) or ticket.fault is not None
    print("machine" if machine else "bare")
    print(write_ticket(ticket))
    if machine:
        note(ticket.job, ticket.reason or f"machine of {ticket.image}")
    return 0


def note(job: str, text: str) -> None:
    """Have Slurm show, beside the job, what it got; nobody waits for that."""
    words = f"admincomment=mayfly: {text}".replace("\n", " ")[:COMMENT_LONGEST]
    null = subprocess.DEVNULL
    with contextlib.suppress(OSError):
        subprocess.Popen(
            ["scontrol", "update", f"jobid={job}", words],
            stdin=null,
            stdout=null,
            stderr=null,
            start_new_session=True,
        )


def ticket_of(site: Site, facts: Mapping[str, str], options: Mapping[str, str]) -> Ticket:
    """Register a task and give its ticket; never raises a ``MayflyError``."""
    try:
        plain = job_of(facts, site.cluster)
    except MayflyError as error:
        return Ticket(system="slurm", job="", key="", fault=Fault.MAYFLY, reason=error.message)
    try:
        wish = parse_wish(options)
        known = ask_slurm(number(facts, "job"))
        cgroup = find_cgroup(number(facts, "job"))
        job = job_of(facts, site.cluster, known, cgroup)
        ticket = register_job(job, wish, site.settings())
    except MayflyError as error:
        ticket = refused(plain, error)
    return replace(ticket, step=step_name(facts))


def release(call: Call) -> int:
    """Root's, when a task has ended, where Slurm does not tell of the end of jobs."""
    facts, _ = split_words(call.words)
    # Which try of the job it was the controller alone knows; there is only one at a time.
    key = f"{call.site.cluster}/{number(facts, 'job')}/{node_of(facts)}.*"
    return _unregister(key, call.site, one=True)


def epilog(call: Call) -> int:
    """Root's, when a job has ended on this host: whatever happened, nothing of it stays.

    Always succeeds: Slurm would take a host whose epilog fails out of service.
    """
    job, node = call.environ.get("SLURM_JOB_ID", ""), call.environ.get("SLURMD_NODENAME", "")
    if job.isascii() and job.isdigit():
        # A host may be several nodes.
        part = f"{node}.*" if node else "*"
        _unregister(f"{call.site.cluster}/{job}/{part}", call.site)
    return 0


def _unregister(key: str, site: Site, *, one: bool = False) -> int:
    try:
        unregister(key, site.settings(), one=one)
    except MayflyError as error:
        print(f"mayfly: {error.message}", file=sys.stderr)
        return 1
    return 0


def submit(call: Call) -> int:
    """The user's, at submission: refuse what cannot be had, or list what can."""
    from mayfly.batch.slurm.submission import check, images  # noqa: PLC0415 - not for each task

    facts, options = split_words(call.words)
    try:
        if options.get("image") == "list":
            print("\n".join(images()))
        else:
            check(options, facts.get("program", ""), call.site.settings())
    except MayflyError as error:
        print(f"mayfly: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"  hint: {error.hint}", file=sys.stderr)
        return 1
    return 0


def starter(call: Call) -> int:
    """The user's, in the place of the job's own program."""
    from mayfly.batch.slurm.starting import start_task  # noqa: PLC0415 - not for the others

    try:
        settings = call.site.settings()
    except MayflyError as error:
        raise SystemExit(f"mayfly: {error.message}") from error
    return start_task(call.words, call.environ, settings)


def health(call: Call) -> int:
    """Root's, for Slurm's HealthCheckProgram: a host on which Mayfly is sick gets no jobs."""
    from mayfly.batch.slurm.health import tend  # noqa: PLC0415 - not for each task

    node = call.environ.get("SLURMD_NODENAME", "") or os.uname().nodename.split(".")[0]
    try:
        print(tend(node, call.site.settings()))
    except MayflyError as error:
        print(f"mayfly: {error.message}", file=sys.stderr)
        return 1
    return 0


_PROGRAMS: Mapping[str, Program] = {
    "register": register,
    "release": release,
    "epilog": epilog,
    "submit": submit,
    "starter": starter,
    "health": health,
}
