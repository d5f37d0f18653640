"""Tasks of a job in the machine that all of the job share on this host.

The first that comes forks the *holder*: a process of the job's user which claims the machine and
serves the job's directories until the machine ends. It belongs to the job, not to the task: the
host service puts it beside the machine's QEMU.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from mayfly.batch.job import Ticket
from mayfly.command import leave_behind
from mayfly.engine.jobs import Job, Steps, failed_outcome
from mayfly.errors import Failed, MayflyError, refusal
from mayfly.host import client, protocol
from mayfly.host.run import Claimed, claim_fields, give_back, offer_shares, run_in
from mayfly.model import Outcome

HOLDER = "mayfly-holder"


def run_shared(job: Job, ticket: Ticket, service: Path, steps: Steps) -> Outcome:
    """Run one task of a job to its end; never raises a ``MayflyError``."""
    try:
        return _run(job, ticket, service, steps)
    except MayflyError as error:
        return failed_outcome(error, steps)


def _run(job: Job, ticket: Ticket, service: Path, steps: Steps) -> Outcome:
    workdir = job.request.workdir
    if workdir is not None:
        from mayfly.engine.session.send import check_workdir  # noqa: PLC0415 - not for every task

        check_workdir(workdir)
    steps.phase = "start"
    fields = {"job": ticket.key, "brings": workdir is not None}
    with contextlib.ExitStack() as stack:
        connection, answer, fds = _join(job, ticket, service, steps, fields)
        stack.enter_context(contextlib.closing(connection))
        session = stack.enter_context(socket.socket(fileno=fds[0]))
        stack.callback(os.close, fds[1])
        env = {str(name): str(value) for name, value in answer.get("env", {}).items()}
        claimed = Claimed(id=str(answer.get("machine")), env=env, session=session, gone=fds[1])
        steps.machine, steps.image = claimed.id, str(answer.get("image", ""))
        brings = answer.get("fresh") is True and workdir is not None
        if brings:
            steps.began = _telling(connection, steps.began)
        request = replace(
            job.request,
            env={**claimed.env, **job.request.env},
            # Who came first brings it, and what is changed there comes back with him.
            workdir=workdir if brings else None,
        )
        steps.mark("claim")
        result = run_in(connection, claimed, request, steps)
        steps.mark("job")
        return give_back(connection, job, result, steps)


def _telling(connection: client.Connection, began: Any) -> Any:
    """Let the others of the job in when the working directory is there."""

    def told(machine: str) -> None:
        with contextlib.suppress(MayflyError):
            client.call(connection, "begun")
        began(machine)

    return told


def _join(
    job: Job, ticket: Ticket, service: Path, steps: Steps, fields: Mapping[str, Any]
) -> tuple[client.Connection, dict[str, Any], list[int]]:
    """Get into the machine, and have it made when nobody else has; raises what was answered."""
    while True:
        # With patience: a service that is restarted at this moment costs no job.
        connection = client.connect(service, patience_s=client.RESTART_S)
        connection = connection or client.require(service)
        try:
            connection.ask("join", fields)
            answer, fds = connection.answer(limit_s=None)
            if not answer.get("first"):
                return connection, answer, fds
            _have_it_held(job, ticket, service, steps)
        except BaseException:
            connection.close()
            raise
        connection.close()


def _have_it_held(job: Job, ticket: Ticket, service: Path, steps: Steps) -> None:
    """Start the holder and wait until it has the machine; raises what kept it from that."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        child = os.fork()
        if child == 0:
            _become_holder(job, ticket, service, theirs)
        theirs.close()
        os.waitpid(child, 0)
        while (got := protocol.receive(ours)) is not None:
            message, _ = got
            kind = message.get("type")
            if kind == "held":
                return
            if kind == "error":
                raise protocol.error_of(message)
            if kind == "note":
                steps.note(str(message.get("text")))
    raise Failed("the process that holds the job's machine ended without a word")


# --- the holder ----------------------------------------------------------------------------------


def _become_holder(job: Job, ticket: Ticket, service: Path, teller: socket.socket) -> NoReturn:
    """In a forked child: leave the task behind, and hold the machine as long as it is there."""
    try:
        # Twice: what ends the task by its tree of processes is not to find this one.
        if os.fork() == 0:
            leave_behind({teller.fileno()})
            os.dup2(1, 2)
            Path("/proc/self/comm").write_text(HOLDER)
            os.chdir("/")
            _hold(job, ticket, service, teller)
    finally:
        os._exit(0)


def _hold(job: Job, ticket: Ticket, service: Path, teller: socket.socket) -> None:
    try:
        with contextlib.ExitStack() as stack:
            gone = _claim(job, ticket, service, teller, stack)
            protocol.send(teller, {"type": "held"})
            teller.close()
            select.select([gone], [], [])
    except (MayflyError, OSError) as error:
        told = refusal(error) if isinstance(error, OSError) else error
        with contextlib.suppress(OSError):
            protocol.send(teller, protocol.error_message(told))


def _claim(
    job: Job, ticket: Ticket, service: Path, teller: socket.socket, stack: contextlib.ExitStack
) -> int:
    """Claim the machine; gives a descriptor that is readable when it has ended."""

    def heard(message: Mapping[str, Any], fds: Sequence[int]) -> None:
        if message.get("type") == "share":
            offer_shares(job, fds[0], stack)
        elif message.get("type") == "note":
            protocol.send(teller, {"type": "note", "text": str(message.get("text"))})

    connection = client.connect(service, patience_s=client.RESTART_S) or client.require(service)
    stack.callback(connection.close)
    fields = claim_fields(job, key=ticket.key, network_asked=ticket.network_asked)
    connection.ask("claim", fields)
    _, fds = connection.answer(heard, limit_s=None)
    return fds[0]
