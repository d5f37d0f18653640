"""Names of users, looked up where a lookup that hangs does no harm."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

from mayfly.host.loop import Wait
from mayfly.host.peer import Peer, account_of
from mayfly.host.state import Service
from mayfly.host.work import Channel, Step, work
from mayfly.model import Account, Group

LOOKUP_LIMIT_S = 20.0
TURN_S = 0.02


def account_for(service: Service, peer: Peer) -> Step[Account]:
    """Give a peer's account, of those that were looked up lately or from the system."""
    while (known := service.accounts.get(peer, time.monotonic())) is None:
        if peer.uid in service.looking_up:
            # A user may ask a thousand times at once: one child is enough.
            yield Wait(seconds=TURN_S)
            continue
        service.looking_up.add(peer.uid)
        try:
            account = yield from _look_up(peer)
        finally:
            service.looking_up.discard(peer.uid)
        service.accounts.put(peer, account, time.monotonic())
        return account
    return known


def _look_up(peer: Peer) -> Step[Account]:
    def body(channel: Channel) -> None:
        channel.done({"account": asdict(account_of(peer))})

    done = yield from work(body, name=f"the lookup of uid {peer.uid}", limit_s=LOOKUP_LIMIT_S)
    return _account(done.words["account"])


def _account(stored: dict[str, Any]) -> Account:
    groups = tuple(Group(**group) for group in stored.pop("groups"))
    known = tuple(stored.pop("all_groups"))
    return Account(**stored, groups=groups, all_groups=known)
