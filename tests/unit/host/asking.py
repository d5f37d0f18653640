"""Users who ask for machines, as tests write them down."""

from __future__ import annotations

from collections.abc import Sequence

from mayfly.host.limits import Bounds, Held, Need, Waiting, next_grants
from mayfly.host.settings import NO_LIMIT, Amounts

ADA, BOB, EVE = 1001, 1002, 1003


def need(memory_mib: int = 10, *, cpus: int = 1, disk_mib: int = 0) -> Need:
    return Need(cpus=cpus, memory_mib=memory_mib, disk_mib=disk_mib)


def asks(key: str, uid: int, wanted: Need | None = None, *, since: float = 0) -> Waiting:
    return Waiting(key=key, uid=uid, need=wanted or need(), since=since)


def has(uid: int, wanted: Need | None = None) -> Held:
    return Held(uid=uid, need=wanted or need())


def standby(key: str = "s") -> Held:
    return Held(uid=-1, need=need(640), standby=True, key=key)


def bounds(memory_mib: int = 100, disk_mib: int = 1_000_000, *, user: Amounts = NO_LIMIT) -> Bounds:
    return Bounds(memory_mib=memory_mib, disk_mib=disk_mib, user=user)


def granted(
    waiting: Sequence[Waiting], held: Sequence[Held], limits: Bounds, *, now: float = 0
) -> list[str]:
    return next_grants(waiting, held, limits, 0, now=now)
