"""The host service itself: start, take over what is there, listen, until it is told to stop."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import logging
import os
import resource
import signal
import socket
import time
from dataclasses import replace
from pathlib import Path

from mayfly import __version__
from mayfly.engine.linux import checked
from mayfly.engine.probe import probe_qemu
from mayfly.engine.template import Engine, sweep_templates
from mayfly.errors import Conflict, Denied, MayflyError, Unavailable
from mayfly.host import line, pool, trust
from mayfly.host.administration import DRAINED
from mayfly.host.adopt import adopt_all
from mayfly.host.behalf import site_uid
from mayfly.host.door import close_door, listen, open_door
from mayfly.host.expiry import end_expired
from mayfly.host.limits import overhead_mib, shape_for
from mayfly.host.logs import LogStore
from mayfly.host.loop import Task
from mayfly.host.metrics import Metrics, write_metrics
from mayfly.host.permission import Gate
from mayfly.host.rights import Rights
from mayfly.host.settings import HostSettings
from mayfly.host.state import Hot, Service
from mayfly.host.templates import Templates
from mayfly.host.watching import end
from mayfly.host.work import Channel, work
from mayfly.images.catalogue import Catalogue
from mayfly.model import State

LOCK = "service.lock"
TIDY_S = 60.0
LEFT_S = 0.5
LEFT_TURNS = 120
"""How often it is looked again for what is left; after that every ``TIDY_S``."""
METRICS_S = 15.0
STOP_LIMIT_S = 10.0
DESCRIPTORS = 1 << 16
NICENESS = -10
SWEEP_LIMIT_S = 600.0
_PR_SET_CHILD_SUBREAPER = 36

log = logging.getLogger("mayfly.host")


def serve(engine: Engine, settings: HostSettings, catalogue: Catalogue) -> None:
    """Run the service until SIGTERM or SIGINT; machines go on without it.

    Raises ``Denied`` (not root), ``Unavailable`` (no KVM, and emulation is not allowed),
    ``Conflict`` (another service runs), before anything was touched.
    """
    _check_may_serve(engine, settings)
    lock = _only_one(settings.state)
    door = listen(settings.socket)
    _allow_descriptors()
    try:
        service = _new_service(engine, settings, catalogue)
        _become_reaper()
        _go_first()
        _run(service, door)
    finally:
        settings.socket.unlink(missing_ok=True)
        os.close(lock)


def _check_may_serve(engine: Engine, settings: HostSettings) -> None:
    if os.geteuid() != 0:
        raise Denied(
            "the host service must run as root: it gives each machine a uid of its own",
            hint="sudo mayfly host serve; without it 'mayfly run' works for you alone",
        )
    if engine.accelerator == "tcg" and not settings.allow_emulation:
        raise Unavailable(
            "this host has no usable KVM, and machines would be emulated, many times slower",
            hint="'allow_emulation = true' in host.toml serves them all the same; "
            "'mayfly doctor' says what is wrong with KVM",
        )


def _only_one(state: Path) -> int:
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    fd = os.open(state / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise Conflict(
            f"another host service looks after {state}", hint="'mayfly host status' asks it"
        ) from None
    return fd


def _new_service(engine: Engine, settings: HostSettings, catalogue: Catalogue) -> Service:
    rights = Rights(settings.state / "rights", overhead_mib=overhead_mib(engine.accelerator))
    for warning in rights.load():
        log.warning("%s", warning)
    service = Service(
        engine=engine,
        settings=settings,
        catalogue=catalogue,
        rights=rights,
        logs=LogStore(settings.state / "logs", settings.logs),
        metrics=Metrics(),
        templates=Templates(engine.paths.templates),
        gate=Gate(policy_file=engine.paths.policy_file, site_trust=engine.paths.site_trust),
        site_uid=site_uid(settings),
        draining=(settings.state / DRAINED).exists(),
    )
    for standby in settings.standby:
        shape = shape_for(standby.cpus, standby.memory_mib)
        service.hot[standby.image, shape] = Hot(standby=standby)
    return service


def _allow_descriptors() -> None:
    """Let this process have as many descriptors as thousands of clients and machines need."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for most in (max(hard, DESCRIPTORS), hard):
        # Not every root may raise what it was started with.
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
            return


def _become_reaper() -> None:
    """Have the machines of children that ended become ours, so that their ends are collected."""
    libc = ctypes.CDLL(None, use_errno=True)
    checked(libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "prctl(CHILD_SUBREAPER)")


def _go_first() -> None:
    """Have this process served before guests: it works little, and many wait for its answer.

    What it forks is as nice as everybody (sched(7): SCHED_RESET_ON_FORK).
    """
    with contextlib.suppress(OSError):
        policy = os.SCHED_OTHER | os.SCHED_RESET_ON_FORK
        os.sched_setscheduler(0, policy, os.sched_param(0))
        os.setpriority(os.PRIO_PROCESS, 0, NICENESS)
        # Where sessions are groups to the scheduler, each QEMU is one that weighs as much as ours.
        if os.getsid(0) == os.getpid():
            Path("/proc/self/autogroup").write_text(str(NICENESS))


def _run(service: Service, door: socket.socket) -> None:
    stop = _Signals(service)
    sweep_templates(service.engine.paths.templates)
    _clear_left(service, turns=LEFT_TURNS)
    service.on_change = lambda: _on_change(service)
    open_door(service, door)
    trust.begin(service)
    pool.rethink(service)
    _tidy(service)
    if service.settings.metrics_file is not None:
        _write_metrics(service, service.settings.metrics_file)
    _say_ready()
    log.info(
        "mayfly %s listens at %s (%s)",
        __version__,
        service.settings.socket,
        service.engine.accelerator,
    )
    while not stop.wanted:
        service.loop.run_once()
    service.stopping = True
    close_door(service, door, service.settings.socket)
    _end_standbys(service)
    log.info("stopped; machines of users go on")


def _on_change(service: Service) -> None:
    line.advance(service)
    pool.refill(service)
    end_expired(service)


def _clear_left(service: Service, *, turns: int) -> None:
    """Look after what children of an earlier service had in hand when this one looked around.

    They end by themselves, some of them with a machine that they could hand over to nobody.
    """
    machines = service.engine.paths.machines
    adopt_all(service)
    there = {path.name for path in machines.iterdir()} if machines.exists() else set()
    if turns and there - service.table.machines.keys():
        service.loop.later(LEFT_S, lambda: _clear_left(service, turns=turns - 1))


def _tidy(service: Service) -> None:
    """Do what is due now and then."""
    adopt_all(service)
    end_expired(service)
    for key in service.rights.expired():
        service.rights.unregister(key)
        for hosted in service.table:
            if hosted.record.job == key:
                end(service, hosted, "the time of its job is over")
    service.loop.spawn(_sweep_logs(service))
    _follow_qemu(service)
    service.loop.later(TIDY_S, lambda: _tidy(service))


def _sweep_logs(service: Service) -> Task:
    """Remove logs that are too old or too many; in a child, as there are those of thousands."""

    def body(channel: Channel) -> None:
        service.logs.sweep(time.time(), living=service.table.machines.keys())
        channel.done({})

    try:
        yield from work(body, name="sweeping the logs", limit_s=SWEEP_LIMIT_S)
    except MayflyError as error:
        log.warning("%s", error.message)


def _follow_qemu(service: Service) -> None:
    """Go on with another QEMU when it was upgraded; machines that run keep theirs."""
    try:
        qemu = probe_qemu(service.engine.settings, service.engine.paths.cache)
    except MayflyError as error:
        # An upgrade may be under way.
        log.warning("%s", error.message)
        return
    if qemu.identity == service.engine.qemu.identity:
        return
    log.info("QEMU is another now: %s %s; standbys are made anew", qemu.path, qemu.version)
    service.engine = replace(service.engine, qemu=qemu)
    for hosted in service.table:
        if hosted.is_standby:
            end(service, hosted, "it was made with another QEMU")
    service.changed()


def _write_metrics(service: Service, file: Path) -> None:
    """Write the metrics for a collector that reads files, again and again."""
    trouble = write_metrics(file, service.metrics.render(service.gauges()))
    if trouble:
        log.warning("%s", trouble)
    service.loop.later(METRICS_S, lambda: _write_metrics(service, file))


def _end_standbys(service: Service) -> None:
    """Nobody will look after them; machines of users have an owner who does."""
    for hosted in service.table:
        if hosted.is_standby:
            end(service, hosted, "the service stops")
    deadline = time.monotonic() + STOP_LIMIT_S
    while time.monotonic() < deadline and any(
        one.is_standby or one.record.state in (State.STARTING, State.WANTED)
        for one in service.table
    ):
        service.loop.run_once(0.2)


class _Signals:
    """Tells the loop of signals, and collects children that ended."""

    def __init__(self, service: Service) -> None:
        self.wanted = False
        read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._read = read
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _nothing)
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        service.loop.watch(read, self._woken)

    def _stop(self, *_: object) -> None:
        self.wanted = True

    def _woken(self) -> None:
        os.read(self._read, 4096)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            pass


def _nothing(*_: object) -> None:
    """Wake the loop only."""


def _say_ready() -> None:
    """Tell systemd that requests are taken (sd_notify(3))."""
    address = os.environ.pop("NOTIFY_SOCKET", "")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            name = "\0" + address[1:] if address.startswith("@") else address
            notify.connect(name)
            notify.send(b"READY=1")
