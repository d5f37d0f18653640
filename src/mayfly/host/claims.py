"""From a request to a machine in somebody's hands: admit, wait in line, make or take, hand over."""

from __future__ import annotations

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
from mayfly.host.caller import open_process
from mayfly.host.features import features_of
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
    port: socket.socket
    """The machine's session port."""


def fulfil(service: Service, request: Request) -> Step[None]:
    """Get a machine for a request whose turn it is, and hand it over; answers the caller."""
    caller = request.caller
    began = time.monotonic()
    try:
        hosted, given = yield from _machine_for(service, request)
    except MayflyError as error:
        service.metrics.failed(error)
        caller.fail(error)
        service.changed()
        return
    with given.port as port:
        assert hosted.machine is not None
        fds = [port.fileno(), hosted.machine.process.handle]
        caller.machine = hosted.id
        hosted.caller = caller
        caller.ok(given.fields, fds)
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
    service.changed()


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
            if request.right is not None and request.right.cgroup:
                put_into_cgroup(machine.process.pid, request.right.cgroup)
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
            port = machine.session()
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
