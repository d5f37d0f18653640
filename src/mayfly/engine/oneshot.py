"""One job in one machine, from template to end: what ``mayfly run`` does without a host service."""

from __future__ import annotations

import contextlib
import importlib
import time
from collections.abc import Mapping
from dataclasses import replace

from mayfly.engine.jobs import Job, Report, Steps, failed_outcome
from mayfly.engine.machine import Attach, Machine, Order, machine_for
from mayfly.engine.records import reap
from mayfly.engine.session.job import JobRequest, JobResult, Stdio
from mayfly.engine.template import Engine, Template, check_fits, find_template, sweep_templates
from mayfly.engine.turns import turn
from mayfly.engine.watch import Watch, explained
from mayfly.errors import MayflyError
from mayfly.model import (
    Image,
    MachineSpec,
    NetworkMode,
    Outcome,
    Shape,
)


def run_one(engine: Engine, image: Image, job: Job, steps: Steps) -> Outcome:
    """Run one job in a machine made for it; the machine is gone afterwards, or kept on request.

    Never raises a ``MayflyError``: Mayfly's own failure is an ``Outcome`` with code 125.
    """
    try:
        return _run(engine, image, job, steps)
    except MayflyError as error:
        return failed_outcome(error, steps)


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
    with contextlib.ExitStack() as stack, contextlib.ExitStack() as starting:
        starting.enter_context(
            turn(engine.paths.cache / "turns", waiting=lambda: steps.report("waiting for a turn"))
        )
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
        steps.image = image.pin
        steps.mark("clone")
        _give(machine, job, attach.guest, stack)
        starting.close()
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
    # Unless the site forbids it: nobody else can reach its ports.
    machine.claim(job.account, root=job.may_root, network=network, shares=shares)


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
        image=steps.image,
    )


def _keep(engine: Engine, machine: Machine, result: JobResult) -> str:
    hours = engine.settings.keep_hours
    machine.keep(result.reason or f"exit status {result.code}", time.time() + hours * 3600)
    name = machine.record.id
    return (
        f"failed: machine {name} is kept, stopped, for {hours} h; "
        f"'mayfly machine ssh {name}' enters it, 'mayfly machine delete {name}' removes it"
    )
