"""Which workers are given back: idle ones, the dearest first, and not before their time is used."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mayfly.planner.fit import Room, serves
from mayfly.planner.ledger import Ledger
from mayfly.planner.model import Change, Kept, Offer, Phase, Rules, Worker
from mayfly.planner.pack import Need
from mayfly.planner.price import hour_price, paid_until

Spare = dict[tuple[int, str], int]
"""CPUs that no demand needs, by the identity of a kind, and group."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shrunk:
    """What is given back, and what is not although it is idle."""

    removals: tuple[Change, ...]
    drains: tuple[Change, ...]
    kept: tuple[Kept, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What the rules of giving back look at."""

    now: float
    rules: Rules
    offers: Mapping[str, Offer]
    ledger: Ledger


def resume(needs: Iterable[Need], fleet: Iterable[Worker], view: View) -> tuple[Change, ...]:
    """Let draining workers take jobs again where there is need, the cheapest first."""
    able = [worker for worker in fleet if worker.phase is Phase.DRAINING and worker.free_cpus > 0]
    able = [worker for worker in able if not _must_go(worker, view)]
    # The fullest will be there for longest anyhow.
    able.sort(key=lambda worker: (_cpu_price(worker, view), worker.free_cpus, worker.id))
    told: list[Change] = []
    for need in needs:
        cpus = sum(shape.cpus * count for shape, count in need.counts.items())
        for worker in list(able):
            if cpus <= 0:
                break
            if worker.group in {"", need.group} and serves(worker.kind, need.kind):
                able.remove(worker)
                cpus -= worker.free_cpus
                told.append(Change(worker=worker.id, why=need.why))
    return tuple(told)


def shrink(fleet: Iterable[Worker], rooms: Iterable[Room], view: View) -> Shrunk:
    """Choose what is given back and what is drained.

    ``rooms`` has what is still free after all demand was laid onto it. A worker with a job is given
    back only where the site forces it, long after the end of its life.
    """
    spare: Spare = {}
    for room in rooms:
        key = (id(room.kind), room.group)
        spare[key] = spare.get(key, 0) + room.cpus
    workers = list(fleet)
    for key, cpus in _used(workers).items():
        if key in spare:
            spare[key] -= int(cpus * view.rules.headroom_share)
    removals, kept = _remove(workers, spare, view)
    gone = {change.worker for change in removals}
    drains = _drain([worker for worker in workers if worker.id not in gone], spare, view)
    return Shrunk(removals=tuple(removals), drains=tuple(drains), kept=kept)


def _remove(
    fleet: Iterable[Worker], spare: Spare, view: View
) -> tuple[list[Change], tuple[Kept, ...]]:
    told: list[Change] = []
    kept: Counter[str] = Counter()
    idle = [worker for worker in fleet if worker.jobs == 0 and worker.phase is not Phase.BOOTING]
    idle.sort(key=lambda worker: (-_cpu_price(worker, view), worker.id))
    for worker in idle:
        key = (id(worker.kind), worker.group)
        stays = _stays(worker, spare.get(key, 0), view)
        if not stays and len(told) >= view.rules.stop_most:
            stays = f"one cycle gives back {view.rules.stop_most} workers at most"
        if stays:
            kept[stays] += 1
            continue
        if worker.phase is Phase.READY:
            spare[key] = spare.get(key, 0) - worker.free_cpus
        told.append(Change(worker=worker.id, why=_leaves(worker, view)))
    told += _force(fleet, view, view.rules.stop_most - len(told))
    return told, tuple(Kept(count=count, why=why) for why, count in kept.items())


def _force(fleet: Iterable[Worker], view: View, most: int) -> list[Change]:
    """Give back workers that have jobs, where the site wants that."""
    after_s = view.rules.force_after_s
    if after_s is None:
        return []
    why = "its life ended long ago, and the site lets no job keep it"
    old = (each for each in fleet if each.jobs and _is_old(each, view, more_s=after_s))
    return [Change(worker=each.id, why=why) for each in itertools.islice(old, max(0, most))]


def _stays(worker: Worker, spare_cpus: int, view: View) -> str:
    """Tell why an idle worker is not given back now; empty when it is."""
    if _must_go(worker, view):
        return ""
    if worker.phase is Phase.READY and spare_cpus < worker.free_cpus:
        return "jobs need it, or may soon"
    offer = view.offers.get(worker.offer)
    if offer is not None and offer.price_hour:
        until = paid_until(offer, worker.launched_at, view.now)
        # What ends before the next decision is not waited for: then the next step would begin.
        if until - view.now > view.rules.cycle_s:
            return "its time is paid for"
    since = worker.launched_at if worker.idle_since is None else worker.idle_since
    # What drained did so because it was not needed.
    if worker.phase is Phase.READY and view.now - since < view.rules.keep_s:
        return f"idle for less than {view.rules.keep_s:.0f} s"
    return ""


def _leaves(worker: Worker, view: View) -> str:
    if _is_old(worker, view):
        return f"it has lived for {view.rules.life_s:.0f} s"
    if view.ledger.is_spent(worker.group):
        return f"the budget of group '{worker.group}' is spent"
    if worker.phase is Phase.DRAINING:
        return "its last job has ended"
    since = worker.launched_at if worker.idle_since is None else worker.idle_since
    return f"idle for {view.now - since:.0f} s, and no job waits for it"


def _drain(fleet: Iterable[Worker], spare: Spare, view: View) -> list[Change]:
    """Stop giving jobs to the dearest, emptiest workers while others have room enough."""
    told: list[Change] = []
    ready = [worker for worker in fleet if worker.phase is Phase.READY]
    used = _used(ready)
    busy = [worker for worker in ready if worker.jobs]
    busy.sort(
        key=lambda worker: (-_cpu_price(worker, view), worker.cpus - worker.free_cpus, worker.id)
    )
    for worker in busy:
        if len(told) >= view.rules.stop_most:
            break
        key = (id(worker.kind), worker.group)
        if _must_go(worker, view):
            told.append(Change(worker=worker.id, why=_leaves(worker, view)))
        elif worker.free_cpus:
            # What it runs will not move: only its free part is given up.
            after = spare.get(key, 0) - worker.free_cpus
            if after < worker.cpus + view.rules.spare_share * used[key]:
                continue
            spare[key] = after
            told.append(Change(worker=worker.id, why="cheaper or fuller workers have room enough"))
    return told


def _used(fleet: Iterable[Worker]) -> Counter[tuple[int, str]]:
    used: Counter[tuple[int, str]] = Counter()
    for worker in fleet:
        used[id(worker.kind), worker.group] += worker.cpus - worker.free_cpus
    return used


def _cpu_price(worker: Worker, view: View) -> float:
    offer = view.offers.get(worker.offer)
    return hour_price(offer, view.rules) / max(1, offer.shape.cpus) if offer else 0.0


def _must_go(worker: Worker, view: View) -> bool:
    """Tell whether it is to end with its jobs: its life is over, or its group's budget is spent."""
    return _is_old(worker, view) or view.ledger.is_spent(worker.group)


def _is_old(worker: Worker, view: View, *, more_s: float = 0.0) -> bool:
    life_s = view.rules.life_s
    return life_s is not None and view.now - worker.launched_at >= life_s + more_s
