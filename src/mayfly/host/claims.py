"""From a request to a machine in somebody's hands: admit, wait in line, make or take, hand over."""

from __future__ import annotations

import contextlib
import logging
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from mayfly.engine.linux import start_time
from mayfly.engine.machine import Machine, account_message
from mayfly.engine.network.attach import NetworkPlan
from mayfly.errors import Denied, Failed, MayflyError, Unavailable
from mayfly.host import cgroups
from mayfly.host.caller import open_process
from mayfly.host.features import features_of
from mayfly.host.joining import claim_ended
from mayfly.host.making import Making, make, wake
from mayfly.host.network import Connected, connect
from mayfly.host.qemu import answered, replied
from mayfly.host.request import Request
from mayfly.host.rights import put_into_cgroup
from mayfly.host.state import Hosted, Service
from mayfly.host.watching import end, occupied, watch_client
from mayfly.host.wish import Wish
from mayfly.host.work import Step
from mayfly.model import State

log = logging.getLogger("mayfly.host")


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What a client gets."""

    fields: Mapping[str, Any]
    port: socket.socket | None
    """The machine's session port; None where the job's processes get one each."""


def fulfil(service: Service, request: Request) -> Step[None]:
    """Get a machine for a request whose turn it is, and hand it over; answers the caller."""
    caller = request.caller
    began = time.monotonic()
    try:
        hosted, given = yield from _machine_for(service, request)
        _note_times(hosted, began - request.since, time.monotonic() - began, given)
    except MayflyError as error:
        service.metrics.failed(error)
        caller.fail(error)
        claim_ended(service, request.wish.job, error)
        service.changed()
        return
    with contextlib.ExitStack() as stack:
        assert hosted.machine is not None
        ports = [] if given.port is None else [stack.enter_context(given.port).fileno()]
        caller.machine = hosted.id
        hosted.caller = caller
        caller.ok(given.fields, [*ports, hosted.machine.process.handle])
    log.info(
        "machine %s (%s, %s) given to uid %d after %.0f ms",
        hosted.id,
        hosted.record.image,
        given.fields["path"],
        caller.uid,
        (time.monotonic() - began) * 1000,
    )
    service.metrics.started(request.image.name, str(given.fields["path"]), time.monotonic() - began)
    if caller.gone:
        hosted.caller = None
        if not request.wish.outlive:
            end(service, hosted, "its client was gone when it was ready")
    claim_ended(service, request.wish.job)
    service.changed()


def _note_times(hosted: Hosted, line_s: float, given_s: float, given: Given) -> None:
    """Write down how long each step of a start took: in line, until it was there, in our hands."""
    own_ms = float(given.fields["service_ms"])
    hosted.start_ms = {
        "line": round(line_s * 1000, 1),
        str(given.fields["path"]): round(given_s * 1000, 1),
        "service": own_ms,
    }


def _machine_for(service: Service, request: Request) -> Step[tuple[Hosted, Given]]:
    """Give a standby if there is one that works, else a clone made for this request."""
    _check_wanted(service, request)
    standbys = service.table.standbys(request.image.name, request.shape, request.image.sha512)
    for hosted in standbys[:1]:
        service.hit(request.image.name, request.shape)
        wake(hosted)
        try:
            given = yield from _hand_over(service, hosted, request, "standby")
        except (Failed, Unavailable) as error:
            # It waited for long; what is wrong with it need not be wrong with a fresh one.
            log.warning("standby %s failed at its claim: %s", hosted.id, error)
            service.metrics.failed(error)
            continue
        return hosted, given
    if standbys:
        _check_wanted(service, request)
    else:
        service.miss(request.image.name, request.shape)
    making = Making(
        image=request.image,
        shape=request.shape,
        label=request.wish.label,
        disk_mib=request.wish.disk_mib,
        owner=request.caller.uid,
        job=request.wish.job,
    )
    hosted = yield from make(service, making, request.caller.progress)
    given = yield from _hand_over(service, hosted, request, "clone")
    return hosted, given


def _check_wanted(service: Service, request: Request) -> None:
    """Raise when the job has ended, or the client: it may have waited for long."""
    # It may have been taken back while this one waited.
    service.gate.check(request.image, datetime.now(UTC))
    key, peer = request.wish.job, request.caller.peer
    if key and service.rights.find(key) is None:
        raise Denied(f"job {key} has ended")
    gone = request.caller.gone or start_time(peer.pid) != peer.started
    if gone and not request.wish.outlive:
        raise Failed("the process that asked for the machine has ended")


def _standbys(service: Service, request: Request) -> list[Hosted]:
    """Give the standbys that would do; how much a disk may grow is settled when QEMU starts."""
    if (request.wish.disk_mib or 0) > service.settings.disk.room_mib:
        return []
    image = request.image
    return service.table.standbys(image.name, request.shape, image.sha512)


def _hand_over(service: Service, hosted: Hosted, request: Request, path: str) -> Step[Given]:
    """Make a running or stopped machine the caller's; when this raises, the machine ends."""
    hosted.need = service.need(request.shape, request.wish.disk_mib)
    _own(hosted, request)
    # From here on its end is the machine's: a guest may take long to mount what nobody serves.
    hosted.caller = request.caller
    with occupied(service, hosted, "handing it over") as machine:
        try:
            stopwatch = _Stopwatch()
            _into_cgroup(machine, request)
            network = yield from stopwatch.around(connect(machine, _plan(service, request.wish)))
            message = _claim_message(request, network)
            env = {**(network.env or {})}
            if path == "standby":
                machine.process.monitor.send("cont")
            _offer_share(machine, request)
            number = machine.control.send(message)
            if path == "standby":
                yield from stopwatch.around(replied(machine.process.monitor, "cont"))
            yield from stopwatch.around(answered(machine.control, number, "claim"))
            shared = request.right is not None and request.right.shared
            port = None if shared else machine.session()
            hosted.fresh, hosted.env = shared, env
            hosted.right = request.right
            if request.right is not None:
                hosted.oom_kills = cgroups.oom_kills(request.right.cgroup)
            bind(service, hosted)
            hosted.write(replace(hosted.record, state=State.RUNNING))
            _begin_log(service, hosted)
        except BaseException as error:
            # Also a fault of ours must not leave a machine that nobody has.
            hosted.caller = None
            hosted.doomed = hosted.doomed or f"it could not be handed over: {error}"
            raise
    fields = {
        "machine": hosted.id,
        "env": env,
        "path": path,
        "image": request.image.pin,
        "service_ms": round(stopwatch.own_s() * 1000, 3),
    }
    return Given(fields=fields, port=port)


def _into_cgroup(machine: Machine, request: Request) -> None:
    """Put a machine where its job's memory is counted, and who holds it for the job with it."""
    right, pid = request.right, machine.process.pid
    if right is None or not right.cgroup:
        return
    if not right.shared:
        put_into_cgroup(pid, right.cgroup)
        return
    holder = request.caller.peer.pid
    step = cgroups.step_of(holder, right.cgroup)
    for each in (pid, holder):
        cgroups.settle_in(each, right.cgroup, step)


def _offer_share(machine: Machine, request: Request) -> None:
    """Let the client serve its directories: the agent mounts them before it answers the claim."""
    if request.wish.shares:
        with machine.process.connect("share") as port:
            request.caller.tell({"type": "share"}, [port.fileno()])


def _own(hosted: Hosted, request: Request) -> None:
    """Write down whose it is, before it is: nobody else must get it, whatever happens."""
    wish, peer = request.wish, request.caller.peer
    hosted.write(
        replace(
            hosted.record,
            owner=peer.uid,
            client=0 if wish.outlive else peer.pid,
            client_started=0 if wish.outlive else peer.started,
            outlive=wish.outlive,
            command=wish.label,
            network=wish.network.value,
            allow=wish.allow,
            disk_mib=wish.disk_mib or 0,
            job=wish.job,
            lease=wish.lease,
            state=State.STARTING,
            created_at=time.time(),
            expires_at=None if wish.life_s is None else time.time() + wish.life_s,
        )
    )


def _begin_log(service: Service, hosted: Hosted) -> None:
    record, now = hosted.record, time.time()
    owner = -1 if record.owner is None else record.owner
    service.logs.begin(record.id, owner, image=record.image, now=now)
    service.logs.event(record.id, f"given to uid {owner}: {record.command}", now=now)


def bind(service: Service, hosted: Hosted) -> None:
    """Have the machine end with the process that has it; raises ``Failed`` when that has ended."""
    record = hosted.record
    if record.outlive:
        return
    handle = open_process(record.client)
    if handle is None or start_time(record.client) != record.client_started:
        raise Failed("the process that asked for the machine has ended")
    watch_client(service, hosted, handle)


def _plan(service: Service, wish: Wish) -> NetworkPlan:
    sites = service.engine.settings.site_networks
    return NetworkPlan(mode=wish.network, allow=wish.allow, site_networks=sites)


def _claim_message(request: Request, network: Connected) -> dict[str, Any]:
    shares = [{"path": path, "read_only": only} for path, only in request.wish.shares]
    return {
        "type": "claim",
        "account": account_message(request.account),
        "root": request.may_root,
        "network": None if network.guest is None else dict(network.guest),
        "shares": shares,
        "time_ns": time.time_ns(),
        "features": features_of(request.shape, request.right, time.time()),
    }


class _Stopwatch:
    """Tells the service's own time from that of others."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._others_s = 0.0

    def around(self, step: Step[Any]) -> Step[Any]:
        """Do a step, and take its waits for somebody else's time."""
        value: int | None = None
        while True:
            try:
                wait = step.send(value)
            except StopIteration as ended:
                return ended.value
            paused = time.monotonic()
            value = yield wait
            self._others_s += time.monotonic() - paused

    def own_s(self) -> float:
        """Give how long the service itself has worked."""
        return time.monotonic() - self._began - self._others_s
