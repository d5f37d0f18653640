"""The network of one machine: nothing, a list of hosts through a proxy, or the outside world."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mayfly.engine.forked import forked
from mayfly.engine.network import netns
from mayfly.engine.network.netns import Blueprint, Ids
from mayfly.engine.network.proxy import Gate, serve
from mayfly.engine.network.rules import (
    DNS_ADDRESS,
    GUEST_ADDRESS,
    NEVER,
    PRIVATE,
    Network,
    local_networks,
    packet_rules,
    parse_allowed,
    resolvers,
    site_networks,
)
from mayfly.errors import Denied, Invalid, MayflyError, Unavailable
from mayfly.model import Finding, NetworkMode

NOBODY = Ids(uid=65534, gid=65534)
MTU = 1500
_SEARCH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PROXY_NAMES = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")
_TUN_RULE = 'KERNEL=="tun", MODE="0666"'


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkPlan:
    """What a machine may reach."""

    mode: NetworkMode
    allow: tuple[str, ...] = ()
    """host:port entries of ``restricted``."""
    site_networks: tuple[str, ...] = ()
    """Refused besides the private ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """How a machine is connected."""

    qemu_args: tuple[str, ...]
    """The ``-netdev`` pair; the device on it is the same for every mode."""
    pass_fds: tuple[int, ...] = ()
    """QEMU needs these open, at these numbers."""
    guest: Mapping[str, object] | None = None
    """What the guest is to set up on its card."""
    env: Mapping[str, str] = field(default_factory=dict)
    """For the job."""


NOT_CONNECTED = Attachment(qemu_args=("-netdev", "hubport,id=n0,hubid=0"))


@contextlib.contextmanager
def start_network(plan: NetworkPlan, *, ids: Ids = NOBODY) -> Iterator[Attachment]:
    """Connect a machine as planned; everything that serves it ends with the block.

    ``ids``: the user that helper processes become when root calls.

    Raises ``Invalid`` (the plan is wrong), ``Denied`` (this user may not), ``Unavailable`` (this
    host cannot), each with what mends it. The rules of an open network are in force or it is
    refused.
    """
    refused = check_plan(plan)
    if plan.mode is NetworkMode.NONE:
        yield NOT_CONNECTED
        return
    require_tun()
    with contextlib.ExitStack() as stack:
        if plan.mode is NetworkMode.RESTRICTED:
            yield _start_restricted(stack, plan, refused, ids)
        else:
            yield _start_open(stack, refused, ids)


def check_plan(plan: NetworkPlan) -> tuple[Network, ...]:
    """Raise ``Invalid`` unless the plan makes sense; gives its site networks."""
    refused = site_networks(plan.site_networks)
    if plan.allow and plan.mode is not NetworkMode.RESTRICTED:
        raise Invalid(
            f"a list of hosts has no meaning with network '{plan.mode.value}'",
            hint=f"use it with network '{NetworkMode.RESTRICTED.value}'",
        )
    for entry in plan.allow:
        parse_allowed(entry)
    return refused


def _start_restricted(
    stack: contextlib.ExitStack, plan: NetworkPlan, refused: tuple[Network, ...], ids: Ids
) -> Attachment:
    with contextlib.ExitStack() as building:
        tap, listener = _started(building, Blueprint(listen=True))
    stack.callback(os.close, tap)
    become = ids if os.geteuid() == 0 else None
    gate = Gate(
        allowed=tuple(map(parse_allowed, plan.allow)),
        refused=lambda: (*own_networks(), *refused),
    )
    with socket.socket(fileno=listener) as accepting:
        server = forked(
            lambda channel: serve(channel, accepting, gate, become), name="proxy", keep=[listener]
        )
        stack.enter_context(server).receive()
    proxy = f"http://{netns.GATEWAY}:{netns.PROXY_PORT}"
    env = dict.fromkeys(_PROXY_NAMES, proxy)
    env |= dict.fromkeys(("no_proxy", "NO_PROXY"), "localhost,127.0.0.1,::1")
    # With no way out the guest itself knows that a network is unreachable, and need not be told.
    return _attachment(tap, gateway=None, dns=(), env=env)


def _start_open(stack: contextlib.ExitStack, refused: tuple[Network, ...], ids: Ids) -> Attachment:
    dns = (DNS_ADDRESS,) if resolvers(_text("/etc/resolv.conf", or_else="")) else ()
    rules = packet_rules((*NEVER, *PRIVATE, *own_networks(), *refused), dns=bool(dns))
    blueprint = Blueprint(
        nft=require_program("nft", package="nftables"),
        rules=rules,
        pasta=require_program("pasta", package="passt"),
        ids=ids if os.geteuid() == 0 else None,
    )
    (tap,) = _started(stack, blueprint)
    stack.callback(os.close, tap)
    return _attachment(tap, gateway=netns.GATEWAY, dns=dns, env={})


def _started(stack: contextlib.ExitStack, blueprint: Blueprint) -> list[int]:
    body = forked(lambda channel: netns.build(channel, blueprint), name="network")
    child = stack.enter_context(body)
    if blueprint.ids is not None:
        netns.admit(child, blueprint.ids)
    return child.receive()


def _attachment(
    tap: int, *, gateway: str | None, dns: tuple[str, ...], env: Mapping[str, str]
) -> Attachment:
    return Attachment(
        qemu_args=("-netdev", f"tap,id=n0,fd={tap}"),
        pass_fds=(tap,),
        guest={
            "address": GUEST_ADDRESS,
            "prefix": 24,
            "gateway": gateway,
            "dns": list(dns),
            "mtu": MTU,
        },
        env=env,
    )


def own_networks() -> tuple[Network, ...]:
    """Give the host's own addresses, as they are now; raises ``Unavailable``."""
    try:
        return local_networks(_text("/proc/net/fib_trie"), _text("/proc/net/if_inet6", or_else=""))
    except OSError as error:
        raise Unavailable(f"cannot read this host's own addresses: {error}") from error


def _text(path: str, *, or_else: str | None = None) -> str:
    try:
        return Path(path).read_text("utf-8", "replace")
    except FileNotFoundError:
        if or_else is None:
            raise
        return or_else


def require_tun() -> str:
    """Give the path of the tun device; raises unless this user may make tap devices."""
    try:
        os.close(os.open(netns.TUN, os.O_RDWR | os.O_CLOEXEC))
    except PermissionError as error:
        raise Denied(
            f"this user may not open {netns.TUN}, which a network needs",
            hint=f"sudo chmod 0666 {netns.TUN}; for good: "
            f"echo '{_TUN_RULE}' | sudo tee /etc/udev/rules.d/50-mayfly-tun.rules",
        ) from error
    except OSError as error:
        raise Unavailable(
            f"cannot open {netns.TUN}, which a network needs: {error.strerror}",
            hint="sudo modprobe tun",
        ) from error
    return netns.TUN


def require_program(name: str, *, package: str) -> str:
    """Give the path of a program; raises ``Unavailable`` when this host has it not."""
    # A plain user's PATH often lacks the sbin directories.
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:{_SEARCH}")
    if path is None:
        raise Unavailable(
            f"'{name}' is not installed, which an open network needs",
            hint=f"sudo apt-get install {package}",
        )
    return path


def check_network() -> list[Finding]:
    """Look at what networks need of this host; both kinds are tried for real."""
    restricted = [_finding("tun device", require_tun)]
    tools = [
        _finding("nft", lambda: require_program("nft", package="nftables")),
        _finding("pasta", lambda: require_program("pasta", package="passt")),
    ]
    if all(finding.ok for finding in restricted):
        restricted.append(_try_mode(NetworkMode.RESTRICTED))
    if all(finding.ok for finding in (*restricted, *tools)):
        tools.append(_try_mode(NetworkMode.OPEN))
    return [*restricted, *tools]


def _try_mode(mode: NetworkMode) -> Finding:
    def attempt() -> str:
        with start_network(NetworkPlan(mode=mode)):
            return "was set up and taken away again"

    return _finding(f"network {mode.value}", attempt)


def _finding(name: str, attempt: Callable[[], str]) -> Finding:
    try:
        return Finding(name=name, ok=True, detail=attempt(), needed=False)
    except MayflyError as error:
        return Finding(name=name, ok=False, detail=error.message, mend=error.hint, needed=False)
