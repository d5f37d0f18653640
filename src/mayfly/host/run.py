"""A job in a machine that the host service gives: what ``mayfly run`` does where there is one.

The service is asked for the machine and told how the job ended; all that the job reads and writes
goes between this process and the machine directly.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import select
import socket
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from mayfly.engine.jobs import Job, Steps, failed_outcome
from mayfly.engine.session.job import JobRequest, JobResult, Stdio
from mayfly.errors import RUN_FAILED, MayflyError, Unavailable
from mayfly.host.claiming import claim_request, paths_of
from mayfly.host.client import RESTART_S, Connection, connect, socket_path
from mayfly.model import MachineSpec, Outcome, Who

GONE_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """A machine of ours for as long as the connection is open."""

    id: str
    env: Mapping[str, str]
    session: socket.socket
    gone: int
    """Readable when its QEMU has ended."""


def run_hosted(
    connection: Connection, job: Job, steps: Steps, fields: Mapping[str, Any] | None
) -> Outcome:
    """Run one job in a machine of the host service; ``fields`` is None when it was asked already.

    Never raises a ``MayflyError``: Mayfly's own failure is an ``Outcome`` with code 125.
    """
    try:
        with contextlib.closing(connection), contextlib.ExitStack() as stack:
            return _run(connection, job, steps, stack, fields)
    except MayflyError as error:
        return failed_outcome(error, steps)


def _run(
    connection: Connection,
    job: Job,
    steps: Steps,
    stack: contextlib.ExitStack,
    fields: Mapping[str, Any] | None,
) -> Outcome:
    if job.request.workdir is not None:
        from mayfly.engine.session.send import check_workdir  # noqa: PLC0415 - not for every run

        # Before a machine is asked for: a directory that is too large is soon said to be.
        check_workdir(job.request.workdir)
    steps.phase = "start"
    if fields is not None:
        connection.ask("claim", fields)
    # While the service is at it: this takes 20 ms.
    importlib.import_module("mayfly.engine.session.run")
    claimed = claim(connection, steps, stack, job)
    steps.machine = claimed.id
    steps.mark("claim")
    request = replace(job.request, env={**claimed.env, **job.request.env})
    result = run_in(connection, claimed, request, steps)
    steps.mark("job")
    return give_back(connection, job, result, steps)


def make_machine(connection: Connection, fields: Mapping[str, Any], steps: Steps) -> str:
    """Get a machine that stays when this process ends; gives its id. Raises what was answered."""
    steps.phase = "start"
    with contextlib.closing(connection), contextlib.ExitStack() as stack:
        connection.ask("claim", fields)
        return claim(connection, steps, stack).id


def release(connection: Connection, fields: Mapping[str, Any]) -> None:
    """Give a machine back, if the service is there to take it; else our end does it."""
    with contextlib.suppress(MayflyError):
        connection.ask("release", fields)
        connection.answer()


def claim_fields(job: Job, *, key: str = "", **more: Any) -> dict[str, Any]:
    """Give what is asked of the service for a job; ``more`` as in ``claim_request``."""
    spec: MachineSpec = job.spec
    granted = bool(key) and not job.sized
    return claim_request(
        image=spec.image,
        size=None if granted else (spec.shape.cpus, spec.shape.memory_mib),
        network=spec.network.value,
        label=job.label,
        job=key,
        disk_mib=spec.disk_mib,
        root=job.request.root,
        allow=list(spec.allow),
        shares=paths_of([(str(share.path), share.read_only) for share in job.shares]),
        **more,
    )


def claim(
    connection: Connection, steps: Steps, stack: contextlib.ExitStack, job: Job | None = None
) -> Claimed:
    """Wait for a machine that was asked for, as long as the line is; raises what was answered."""

    def heard(message: Mapping[str, Any], fds: Sequence[int]) -> None:
        if message.get("type") == "progress":
            steps.report(str(message.get("text")))
        elif message.get("type") == "note":
            steps.note(str(message.get("text")))
        elif message.get("type") == "line":
            steps.report(f"waiting in line, place {message.get('place')}: {message.get('why')}")
        elif message.get("type") == "share" and job is not None:
            offer_shares(job, fds[0], stack)

    answer, fds = connection.answer(heard, limit_s=None)
    session = stack.enter_context(socket.socket(fileno=fds[0]))
    stack.callback(os.close, fds[1])
    steps.service_ms = float(answer.get("service_ms", 0))
    steps.image = str(answer.get("image", ""))
    return Claimed(
        id=str(answer.get("machine")),
        env={str(name): str(value) for name, value in answer.get("env", {}).items()},
        session=session,
        gone=fds[1],
    )


def offer_shares(job: Job, port: int, stack: contextlib.ExitStack) -> None:
    """Serve the job's directories, as its user, through a port of the machine."""
    from mayfly.engine.share import start_share  # noqa: PLC0415 - not for every run

    connection = stack.enter_context(socket.socket(fileno=port))
    stack.enter_context(start_share(job.shares, connection, account=job.account))


def run_in(
    connection: Connection, claimed: Claimed, request: JobRequest, steps: Steps
) -> JobResult:
    """Run a command in a machine of ours; says why when the machine ended before it."""
    from mayfly.engine.session.run import run_job  # noqa: PLC0415 - imported by now

    def started() -> None:
        steps.mark("start")
        steps.began(claimed.id)

    result = run_job(
        claimed.session,
        request,
        Stdio(),
        machine_gone=claimed.gone,
        report=steps.report,
        started=started,
    )
    if result.who is Who.JOB or not _is_gone(claimed):
        return result
    words = connection.last_words()
    if words is None:
        return result
    told = words.get("who")
    who = next((who for who in (Who.SITE, Who.JOB) if told == who.value), Who.MAYFLY)
    reason = f"the machine ended before the job did: {words.get('reason')}"
    return replace(result, who=who, code=RUN_FAILED, reason=reason)


def _is_gone(claimed: Claimed) -> bool:
    return bool(select.select([claimed.gone], [], [], GONE_S)[0])


def give_back(connection: Connection, job: Job, result: JobResult, steps: Steps) -> Outcome:
    """Give a machine back, with how its job ended; gives that."""
    for warning in result.warnings:
        steps.note(warning)
    outcome = Outcome(
        phase=result.phase,
        who=result.who,
        code=result.code,
        reason=result.reason,
        machine=steps.machine,
        image=steps.image,
    )
    keep = job.keep_on_failure and result.code != 0
    fields = {"machine": steps.machine, "outcome": _plain(outcome), "keep": keep}
    try:
        _give_back(connection, fields, steps)
    except MayflyError as error:
        _give_back_later(fields, steps, error)
    return outcome


def _give_back(connection: Connection, fields: Mapping[str, Any], steps: Steps) -> None:
    connection.ask("release", fields)
    if fields["keep"]:
        answer, _ = connection.answer(limit_s=None)
        if text := answer.get("text"):
            steps.note(str(text))


def _give_back_later(fields: Mapping[str, Any], steps: Steps, error: MayflyError) -> None:
    """Give a machine back to a service that was restarted while the job ran."""
    if isinstance(error, Unavailable):
        try:
            again = connect(socket_path(), patience_s=RESTART_S)
            if again is not None:
                with contextlib.closing(again):
                    _give_back(again, fields, steps)
                return
        except MayflyError as other:
            error = other
    if fields["keep"]:
        # Else it does not matter: the machine ends with this process.
        steps.note(f"the machine could not be kept: {error.message}")


def _plain(outcome: Outcome) -> dict[str, Any]:
    return {**asdict(outcome), "who": outcome.who.value}
