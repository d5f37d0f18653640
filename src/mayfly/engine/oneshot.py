"""One job in one machine, from template to end: what ``mayfly run`` does without a host service."""

from __future__ import annotations

import contextlib
import importlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from mayfly.engine.machine import Attach, Machine, Order, machine_for
from mayfly.engine.records import reap
from mayfly.engine.session.job import JobRequest, JobResult, Stdio
from mayfly.engine.template import Engine, Template, check_fits, find_template, sweep_templates
from mayfly.engine.watch import Watch, explained
from mayfly.errors import RUN_FAILED, MayflyError, Quota
from mayfly.model import (
    Account,
    Image,
    MachineSpec,
    NetworkMode,
    Outcome,
    Shape,
    ShareDir,
    Who,
)

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Everything that ``mayfly run`` was asked for."""

    spec: MachineSpec
    account: Account
    request: JobRequest
    shares: tuple[ShareDir, ...] = ()
    keep_on_failure: bool = False
    label: str = ""
    """The command, for people who list machines."""


@dataclass(slots=True)
class Steps:
    """How far a run has come, with the time of each step for ``--timings``."""

    report: Report
    note: Report
    phase: str = "template"
    machine: str = ""
    marks: list[tuple[str, float]] = field(default_factory=lambda: [("begin", time.monotonic())])

    def mark(self, name: str) -> None:
        """A step is done."""
        self.marks.append((name, time.monotonic()))


def run_one(engine: Engine, image: Image, job: Job, steps: Steps) -> Outcome:
    """Run one job in a machine made for it; the machine is gone afterwards, or kept on request.

    Never raises a ``MayflyError``: Mayfly's own failure is an ``Outcome`` with code 125.
    """
    try:
        return _run(engine, image, job, steps)
    except MayflyError as error:
        return failed_outcome(error, steps)


def failed_outcome(error: MayflyError, steps: Steps) -> Outcome:
    """Give the outcome of a run that Mayfly, or the site's lack of room, ended."""
    return Outcome(
        phase=steps.phase,
        who=Who.SITE if isinstance(error, Quota) else Who.MAYFLY,
        code=RUN_FAILED,
        reason=error.message + (f"\n  hint: {error.hint}" if error.hint else ""),
        machine=steps.machine,
    )


def template_for(engine: Engine, image: Image, shape: Shape, report: Report) -> Template:
    """Give the template of an image and shape, making it when there is none."""
    check_fits(shape)
    found = find_template(engine, image, shape)
    if found is not None:
        return found
    # Half a minute follows: what only that needs is not imported for every run.
    from mayfly.engine.freeze import ensure_template  # noqa: PLC0415

    return ensure_template(engine, image, shape, report)


def _run(engine: Engine, image: Image, job: Job, steps: Steps) -> Outcome:
    reap(engine.paths.machines, time.time())
    sweep_templates(engine.paths.templates)
    steps.mark("clean-up")
    if job.request.workdir is not None:
        from mayfly.engine.session.send import check_workdir  # noqa: PLC0415 - not for every run

        # Before a template is made for it: a directory that is too large is soon said to be.
        check_workdir(job.request.workdir)
    template = template_for(engine, image, job.spec.shape, steps.report)
    steps.mark("template")
    steps.phase = "start"
    with contextlib.ExitStack() as stack:
        attach, env = _network(engine, job.spec, stack)
        order = Order(
            command=job.label,
            network=job.spec.network.value,
            attach=attach,
            outlive=job.keep_on_failure,
            # QEMU needs some 30 ms to start; this import takes 20.
            meanwhile=lambda: importlib.import_module("mayfly.engine.session.run"),
        )
        machine = stack.enter_context(machine_for(engine, template, image, order, steps.report))
        steps.machine = machine.record.id
        steps.mark("clone")
        _give(machine, job, attach.guest, stack)
        steps.mark("claim")
        request = replace(job.request, env={**env, **job.request.env})
        result = _session(machine, request, steps)
        steps.mark("job")
        return _settle(engine, machine, job, result, steps)


def _network(
    engine: Engine, spec: MachineSpec, stack: contextlib.ExitStack
) -> tuple[Attach, Mapping[str, str]]:
    if spec.network is NetworkMode.NONE:
        return Attach(), {}
    from mayfly.engine.network.attach import NetworkPlan, start_network  # noqa: PLC0415 - as above

    plan = NetworkPlan(
        mode=spec.network, allow=spec.allow, site_networks=engine.settings.site_networks
    )
    attachment = stack.enter_context(start_network(plan))
    attach = Attach(qemu_args=attachment.qemu_args, fds=attachment.pass_fds, guest=attachment.guest)
    return attach, attachment.env


def _give(
    machine: Machine,
    job: Job,
    network: Mapping[str, object] | None,
    stack: contextlib.ExitStack,
) -> None:
    shares: tuple[Mapping[str, object], ...] = ()
    if job.shares:
        from mayfly.engine.share import start_share  # noqa: PLC0415 - as above

        port = machine.process.connect("share")
        stack.enter_context(contextlib.closing(port))
        stack.enter_context(start_share(job.shares, port, account=job.account))
        shares = tuple(
            {"path": str(share.path), "read_only": share.read_only} for share in job.shares
        )
    # Its owner may become root in it: it is theirs, and nobody else can reach its ports.
    machine.claim(job.account, root=True, network=network, shares=shares)


def _session(machine: Machine, request: JobRequest, steps: Steps) -> JobResult:
    from mayfly.engine.session.run import run_job  # noqa: PLC0415 - imported by now

    def started() -> None:
        steps.mark("start")

    with machine.session() as port, Watch(machine.process) as watch:
        result = run_job(
            port,
            request,
            Stdio(),
            machine_gone=watch.fd,
            report=steps.report,
            started=started,
        )
        return explained(result, watch)


def _settle(engine: Engine, machine: Machine, job: Job, result: JobResult, steps: Steps) -> Outcome:
    for warning in result.warnings:
        steps.note(warning)
    if job.keep_on_failure and result.code != 0 and not machine.process.has_ended():
        try:
            steps.note(_keep(engine, machine, result))
        except MayflyError as error:
            steps.note(f"the machine could not be kept: {error.message}")
    return Outcome(
        phase=result.phase,
        who=result.who,
        code=result.code,
        reason=result.reason,
        machine=machine.record.id,
    )


def _keep(engine: Engine, machine: Machine, result: JobResult) -> str:
    hours = engine.settings.keep_hours
    machine.keep(result.reason or f"exit status {result.code}", time.time() + hours * 3600)
    name = machine.record.id
    return (
        f"failed: machine {name} is kept, stopped, for {hours} h; "
        f"'mayfly machine ssh {name}' enters it, 'mayfly machine delete {name}' removes it"
    )


def guest_directory(account: Account, workdir: Path | None, shares: tuple[ShareDir, ...]) -> str:
    """Give where the job starts: the caller's directory when it is there, else home."""
    if workdir is not None:
        return str(workdir)
    try:
        here = Path.cwd()
    except FileNotFoundError:
        return account.home
    if any(here == share.path or share.path in here.parents for share in shares):
        return str(here)
    return account.home
