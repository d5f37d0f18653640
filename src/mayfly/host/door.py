"""The service's socket: who connects, how many may, and what becomes of what they ask."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import resource
import socket
import stat
import time
from collections import Counter
from pathlib import Path

from mayfly import __version__
from mayfly.errors import Conflict, Denied, Invalid, MayflyError, Quota, Unavailable
from mayfly.host import line, protocol
from mayfly.host.behalf import check_verb
from mayfly.host.caller import Caller
from mayfly.host.peer import Peer, peer_of
from mayfly.host.state import Service
from mayfly.host.verbs import VERBS, Verb
from mayfly.host.watching import end

BACKLOG = 256
IDLE_MOST = 64
"""Connections of one user that neither ask nor hold anything."""
IDLE_S = 30.0
SWEEP_S = 5.0
ACCEPTS_AT_ONCE = 64
FULL_S = 1.0
"""How long nobody is taken in when there are no descriptors left."""

log = logging.getLogger("mayfly.host")


def listen(path: Path) -> socket.socket:
    """Listen at a path; what a dead service left there is replaced.

    Raises ``Conflict`` when something else is there, or a service that lives.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    _make_room(path)
    door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        fresh.unlink(missing_ok=True)
        door.bind(str(fresh))
        fresh.chmod(0o666)
        door.listen(BACKLOG)
        door.setblocking(False)
        # It appears open: nobody ever finds a socket at which nobody listens.
        fresh.rename(path)
    except OSError as error:
        door.close()
        fresh.unlink(missing_ok=True)
        raise Denied(f"cannot listen at {path}: {error.strerror}") from error
    return door


def _make_room(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise Conflict(
            f"{path} is no socket, and not of the host service",
            hint="remove it, or set another 'socket' in host.toml",
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        code = probe.connect_ex(str(path))
    if code not in (errno.ECONNREFUSED, errno.ENOENT):
        raise Conflict(
            f"another process listens at {path}",
            hint="'mayfly host status' tells whether it is a host service that runs already",
        )


def open_door(service: Service, door: socket.socket) -> None:
    """Begin to take callers in."""
    _answer_door(service, door)
    _sweep(service)


def _answer_door(service: Service, door: socket.socket) -> None:
    if door.fileno() >= 0:
        service.loop.watch(door.fileno(), lambda: _accept(service, door))


def _accept(service: Service, door: socket.socket) -> None:
    for _ in range(ACCEPTS_AT_ONCE):
        try:
            connection, _ = door.accept()
        except BlockingIOError:
            return
        except OSError as error:
            # Out of descriptors, say. Those who wait would only be heard again at once.
            log.warning("cannot take a caller in, for %g s nobody: %s", FULL_S, error)
            service.loop.forget(door.fileno())
            service.loop.later(FULL_S, lambda: _answer_door(service, door))
            return
        try:
            take_in(service, connection, peer_of(connection))
        except (MayflyError, OSError) as error:
            log.info("turned away: %s", error)
            connection.close()


def take_in(service: Service, connection: socket.socket, peer: Peer) -> None:
    """Listen to somebody from here on, unless there are too many."""
    caller = Caller(connection, peer)
    caller.is_site = service.site_uid is not None and peer.uid == service.site_uid
    full = _why_full(service, caller)
    if full is not None:
        caller.fail(full)
        caller.close()
        return
    service.callers.add(caller)
    service.loop.watch(connection.fileno(), lambda: _heard(service, caller))


def _why_full(service: Service, caller: Caller) -> MayflyError | None:
    idle = sum(one.uid == caller.uid and one.is_idle for one in service.callers)
    if idle >= IDLE_MOST:
        words = f"{idle} connections of yours do nothing: no more are taken"
        return Quota(words, hint="close some")
    # The other half is for machines, and root can always see what is going on.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2
    if len(service.callers) >= most and not caller.is_root:
        return Unavailable(f"{len(service.callers)} clients are connected: no more are taken")
    return None


def _heard(service: Service, caller: Caller) -> None:
    try:
        got = protocol.receive(caller.connection)
    except BlockingIOError:
        return
    except protocol.Garbled as error:
        caller.fail(Invalid(f"that is no request: {error}"))
        _dismiss(service, caller)
        return
    except OSError:
        got = None
    if got is None:
        _dismiss(service, caller)
        return
    message, fds = got
    for fd in fds:
        # Nobody has a reason to send us any.
        os.close(fd)
    _answer(service, caller, message)
    if caller.gone:
        # It asks, and does not read what it is answered.
        _dismiss(service, caller)


def _answer(service: Service, caller: Caller, message: dict[str, object]) -> None:
    try:
        verb = _verb(caller, message)
    except MayflyError as error:
        caller.refuse(error)
        return
    caller.asking = True
    service.loop.spawn(verb.run(service, caller, message))


def _verb(caller: Caller, message: dict[str, object]) -> Verb:
    version = message.get("v")
    if not isinstance(version, int) or not protocol.OLDEST <= version <= protocol.PROTOCOL:
        raise Invalid(
            f"this host service ({__version__}) speaks protocols {protocol.OLDEST} to "
            f"{protocol.PROTOCOL}, not {str(version)[:20]}"
        )
    name = str(message.get("op"))[:40]
    verb = VERBS.get(name)
    if verb is None:
        raise Invalid(f"this host service ({__version__}) knows no request '{name}'")
    if verb.root_only and not caller.is_root:
        raise Denied(f"'{name}' is for root only")
    check_verb(caller, name)
    if caller.asking:
        raise Conflict("one request at a time: the one before is not answered yet")
    return verb


def _dismiss(service: Service, caller: Caller) -> None:
    """A caller has gone, or has to go."""
    if caller not in service.callers:
        return
    service.loop.forget(caller.connection.fileno())
    service.callers.discard(caller)
    caller.close()
    line.leave(service, caller)
    for hosted in service.table:
        if hosted.visitor is caller:
            hosted.visitor = None
        if hosted.caller is caller:
            hosted.caller = None
            if not hosted.record.outlive:
                end(service, hosted, "its client ended")
    service.changed()


def _sweep(service: Service) -> None:
    """Close what has been idle for long, now and every few seconds."""
    now = time.monotonic()
    for caller in list(service.callers):
        if caller.gone or (caller.is_idle and now - caller.idle_since > IDLE_S):
            _dismiss(service, caller)
    service.loop.later(SWEEP_S, lambda: _sweep(service))


def idle_callers(service: Service) -> dict[int, int]:
    """Give the number of idle connections by uid."""
    return dict(Counter(one.uid for one in service.callers if one.is_idle))


def close_door(service: Service, door: socket.socket, path: Path) -> None:
    """Take no more callers in."""
    with contextlib.suppress(KeyError):
        service.loop.forget(door.fileno())
    door.close()
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
