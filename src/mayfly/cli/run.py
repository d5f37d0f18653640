"""``mayfly run``: a command in a fresh machine, as if it ran here."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import click

from mayfly.cli.output import Progress, plain
from mayfly.config import Paths, Settings, load_settings
from mayfly.engine.caller import (
    account_of_caller,
    caller_limits,
    job_environment,
    umask_of_caller,
)
from mayfly.engine.directories import find_directory, not_copied, parse_share
from mayfly.engine.jobs import Job, Steps, failed_outcome, guest_directory
from mayfly.engine.session.job import JobRequest, Workdir
from mayfly.errors import RUN_FAILED, Invalid, MayflyError, refusal
from mayfly.host import client
from mayfly.host.run import claim_fields, make_machine, run_hosted
from mayfly.model import (
    Account,
    MachineSpec,
    NetworkMode,
    Outcome,
    Shape,
    ShareDir,
    Who,
)
from mayfly.units import MIB, parse_duration, parse_size, round_memory, show_duration


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of ``mayfly run`` as they were typed."""

    image: str
    command: tuple[str, ...]
    cpus: int | None
    memory: str | None
    disk: str | None
    network: str | None
    allow: tuple[str, ...]
    root: bool
    env: tuple[str, ...]
    workdir: str | None
    no_workdir: bool
    workdir_limit: str | None
    sync_delete: bool
    share: tuple[str, ...]
    time_limit: str | None
    tty: bool | None
    keep_on_failure: bool
    detach: bool
    no_wait: bool
    job: str | None
    status_file: str | None
    timings: bool
    quiet: bool


@click.command(
    epilog="""\b
Examples:
  mayfly run debian-12 -- sh -c 'hostname; id'
  seq 1000000 | mayfly run debian-12 -- sort -rn | head
  mayfly run debian-12 --cpus 2 --memory 1G --root --network open -- apt-get update
  mayfly run debian-12 --network restricted --allow example.org:443 -- ./fetch.sh
  mayfly run debian-12 --share ~/data:ro --for 10m -- ./analyse ~/data
  mayfly run debian-12 --keep-on-failure -- make test
  mayfly run debian-12                                 # a shell
  mayfly run debian-12 --detach --for 8h               # stays: 'mayfly machine ssh ID'

\b
The current directory goes into the machine, and what the job changed comes back.
Exit status: the job's own (128+N for signal N); 124 at the time limit; 125 when
Mayfly failed; 126 and 127 as in a shell. --status-file tells whose failure it was.
"""
)
@click.argument("image")
@click.argument("command", nargs=-1)
@click.option("--cpus", type=click.IntRange(1, 255), help="CPUs of the machine [default: 1].")
@click.option("--memory", metavar="SIZE", help="Memory, rounded up to 128M [default: 512M].")
@click.option("--disk", metavar="SIZE", help="What may be written [default: the host's rule].")
@click.option(
    "--network",
    type=click.Choice([mode.value for mode in NetworkMode]),
    help="What the machine can reach [default: none].",
)
@click.option("--allow", multiple=True, metavar="HOST:PORT", help="For --network restricted.")
@click.option("--root", is_flag=True, help="Run the job as root in the machine.")
@click.option("--env", multiple=True, metavar="NAME[=VALUE]", help="Give the job this variable.")
@click.option("--workdir", metavar="DIR", help="Copy this directory instead of the current one.")
@click.option("--no-workdir", is_flag=True, help="Copy no directory.")
@click.option("--workdir-limit", metavar="SIZE", help="Most that is copied [default: 1G].")
@click.option("--sync-delete", is_flag=True, help="Delete here what the job deleted there.")
@click.option("--share", multiple=True, metavar="DIR[:ro]", help="Mount this directory live.")
@click.option("--for", "time_limit", metavar="TIME", help="End the job after TIME (90s, 10m, 8h).")
@click.option("-t/-T", "tty", default=None, help="Force a terminal, or none, for the job.")
@click.option("--keep-on-failure", is_flag=True, help="Keep the machine when the job fails.")
@click.option("--detach", is_flag=True, help="Make a machine that stays, and print its id.")
@click.option("--no-wait", is_flag=True, help="Fail at once when there is no room now.")
@click.option("--job", metavar="KEY", hidden=True, help="For batch systems: the job's right.")
@click.option("--status-file", metavar="FILE", help="Write how it ended, and whose doing, as JSON.")
@click.option("--timings", is_flag=True, help="Show how long each step took.")
@click.option(
    "-q", "--quiet", is_flag=True, help="Print only output of the job, warnings and errors."
)
def run(**typed: object) -> None:
    """Run COMMAND in a fresh machine made from IMAGE; without COMMAND, a shell."""
    options = Options(**typed)  # type: ignore[arg-type]  # click has checked them against the types
    progress = Progress(quiet=options.quiet)
    steps = Steps(report=progress, note=progress.warn)
    try:
        outcome = _run(options, progress, steps)
    except (MayflyError, OSError) as error:
        told = refusal(error) if isinstance(error, OSError) else error
        outcome = failed_outcome(told, steps)
    except KeyboardInterrupt:
        outcome = Outcome(
            phase=steps.phase, who=Who.JOB, code=130, reason="interrupted", machine=steps.machine
        )
    progress.clear()
    _tell(options, outcome, steps)
    sys.exit(outcome.code)


def _run(options: Options, progress: Progress, steps: Steps) -> Outcome:
    if options.status_file:
        check_status_file(Path(options.status_file))
    paths = Paths.for_user()
    settings = load_settings(paths.config_files)
    image, own = whose_image(paths, options.image)
    options = replace(options, image=image)
    job = _job(options, settings, progress)
    fields = claim_fields(
        job, key=options.job or "", wait=not options.no_wait, **_given(job, options)
    )
    early = click.get_current_context().obj
    asked = early.take({} if own or options.detach else fields) if early else None
    if asked is not None:
        return run_hosted(asked, job, steps, None)
    connection = None if own else _connect(progress)
    if options.detach:
        return _detached(options, job, connection, steps)
    if connection is not None:
        return run_hosted(connection, job, steps, fields)
    from mayfly.cli.alone import run_alone  # noqa: PLC0415 - a client of the service needs none

    return run_alone(job, network_asked=options.network is not None, progress=progress, steps=steps)


def _given(job: Job, options: Options) -> dict[str, bool]:
    """Say that a network was not asked for, but set: a policy may leave it out then."""
    set_only = options.network is None and job.spec.network is not NetworkMode.NONE
    return {"network_asked": False} if set_only else {}


def whose_image(paths: Paths, text: str) -> tuple[str, bool]:
    """Give the image that is meant, and whether it is the caller's own.

    Such a one is nobody's business but the caller's: the service has those of the site, and knows
    the site's aliases only.
    """
    if os.geteuid() == 0:
        return text, False
    name = text.partition("@")[0]
    if (paths.images / name).is_dir():
        return text, True
    if name != text or not (paths.images / ".aliases").is_dir():
        return text, False
    from mayfly.images.catalogue.reference import check_name, read_alias  # noqa: PLC0415 - few have any

    alias = read_alias(paths.images, check_name(text))
    return (text, False) if alias is None else (str(alias), (paths.images / alias.name).is_dir())


def _connect(progress: Progress) -> client.Connection | None:
    """Connect to the service, also to one that was killed this moment and starts again."""
    return client.connect(
        client.socket_path(),
        patience_s=client.RESTART_S,
        waiting=lambda: progress("waiting for the host service to start again"),
    )


def _detached(
    options: Options, job: Job, connection: client.Connection | None, steps: Steps
) -> Outcome:
    """Make a machine that stays, and print its id."""
    connection = connection or client.require(client.socket_path())
    if job.shares:
        connection.close()
        raise Invalid("--share and --detach exclude each other: a share is served by this command")
    if options.command:
        connection.close()
        raise Invalid(
            "--detach takes no command",
            hint="'mayfly machine ssh ID -- COMMAND' runs one in the machine that stays",
        )
    life_s = parse_duration(options.time_limit) if options.time_limit else None
    wanted = claim_fields(
        job,
        key=options.job or "",
        wait=not options.no_wait,
        outlive=True,
        life_s=life_s,
        **_given(job, options),
    )
    name = make_machine(connection, wanted, steps)
    click.echo(name)
    return Outcome(phase="done", who=Who.JOB, code=0, reason="", machine=name)


def _job(options: Options, settings: Settings, progress: Progress) -> Job:
    spec = _spec(options, settings)
    account = account_of_caller()
    shares = tuple(parse_share(text) for text in options.share)
    request = _request(options, settings, account, shares, progress)
    return Job(
        spec=spec,
        account=account,
        request=request,
        shares=shares,
        keep_on_failure=options.keep_on_failure,
        sized=options.cpus is not None or options.memory is not None,
        label=" ".join(request.argv)[:200],
    )


def check_status_file(path: Path) -> None:
    """Refuse, before anything starts, a file that could not be written at the end."""
    there = path if path.exists() else path.absolute().parent
    if not os.access(there, os.W_OK) or path.is_dir():
        raise Invalid(f"--status-file {path}: it cannot be written")
    # One of an earlier run must not be taken for this one's, whatever happens to us.
    if path.is_file() and path.stat().st_size:
        path.write_text("")


def _spec(options: Options, settings: Settings) -> MachineSpec:
    memory = parse_size(options.memory) if options.memory else settings.memory_mib * MIB
    network = NetworkMode(options.network or settings.network)
    if options.allow and network is not NetworkMode.RESTRICTED:
        raise Invalid(
            f"--allow has no meaning with --network {network.value}",
            hint="add --network restricted",
        )
    return MachineSpec(
        image=options.image,
        shape=Shape(cpus=options.cpus or settings.cpus, memory_mib=round_memory(memory)),
        disk_mib=_disk(options.disk),
        network=network,
        allow=options.allow,
    )


def _disk(text: str | None) -> int | None:
    if text is None:
        return None
    size = parse_size(text)
    if not MIB <= size <= 1 << 50:
        raise Invalid(f"--disk {text}: it must be 1M or more, and less than 1P")
    return -(-size // MIB)


def _request(
    options: Options,
    settings: Settings,
    account: Account,
    shares: tuple[ShareDir, ...],
    progress: Progress,
) -> JobRequest:
    tty = options.tty
    on_terminal = sys.stdin.isatty() and sys.stdout.isatty() if tty is None else tty
    workdir = _workdir(options, settings, account, shares, progress)
    limit = parse_duration(options.time_limit) if options.time_limit else None
    if limit is not None and limit <= 0:
        raise Invalid(f"--for {options.time_limit}: the time must be longer than nothing")
    return JobRequest(
        argv=options.command or (account.shell, "-l"),
        env=job_environment(os.environ, options.env, tty=on_terminal),
        cwd=guest_directory(account, workdir.path if workdir else None, shares),
        umask=umask_of_caller(),
        limits=caller_limits(),
        root=options.root,
        tty=tty,
        workdir=workdir,
        time_limit_s=limit,
    )


def _workdir(
    options: Options,
    settings: Settings,
    account: Account,
    shares: tuple[ShareDir, ...],
    progress: Progress,
) -> Workdir | None:
    if options.no_workdir:
        if options.workdir:
            raise Invalid("--workdir and --no-workdir exclude each other")
        return None
    asked = options.workdir is not None
    path = find_directory("--workdir", "." if options.workdir is None else options.workdir)
    if any(path == share.path or share.path in path.parents for share in shares):
        return None
    why = not_copied(path, account)
    if why and not asked:
        progress.note(f"{path} is not copied into the machine ({why}); --workdir or --share do it")
        return None
    if path == Path("/"):
        raise Invalid("--workdir /: the whole file system cannot be copied")
    limit = parse_size(options.workdir_limit) if options.workdir_limit else None
    return Workdir(
        path=path,
        guest_path=str(path),
        sync_delete=options.sync_delete,
        copy_back=True,
        limit_bytes=settings.workdir_limit_mib * MIB if limit is None else limit,
        limit_files=settings.workdir_files,
    )


def _tell(options: Options, outcome: Outcome, steps: Steps) -> None:
    if outcome.phase != "done":
        # The job's own end speaks for itself; anything else needs words.
        click.echo(f"mayfly: {plain(outcome.reason)}", err=True)
    if options.timings and len(steps.marks) > 1:
        pairs = zip(steps.marks, steps.marks[1:], strict=False)
        words = [f"{name} {show_duration(at - before)}" for (_, before), (name, at) in pairs]
        if steps.service_ms is not None:
            words.append(f"service {steps.service_ms:.1f} ms")
        click.echo(f"mayfly: {', '.join(words)}", err=True)
    if options.status_file:
        text = json.dumps({**asdict(outcome), "who": outcome.who.value}) + "\n"
        try:
            Path(options.status_file).write_text(text)
        except OSError as error:
            click.echo(
                f"mayfly: cannot write --status-file {options.status_file}: {error.strerror}",
                err=True,
            )
            sys.exit(outcome.code or RUN_FAILED)
