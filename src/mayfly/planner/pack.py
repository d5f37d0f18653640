"""Choose offers for what has no room yet: the whole need of a group is packed, not job by job."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mayfly.model import Shape
from mayfly.planner.fit import Rest, Room, fits, misfit
from mayfly.planner.ledger import Ledger
from mayfly.planner.model import Compared, Kind, Offer, Rules, Start, Unmet, Wanted, Worker
from mayfly.planner.price import core_hour_cost, useful_share

HEADROOM = "CPUs for jobs to come are lacking"
NOTHING = "there is no offer"
STEPS_MOST = 64
"""Choices for one need in one cycle; what is left comes in the next."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What one group needs of one kind."""

    kind: Kind
    group: str
    counts: Mapping[Shape, int]
    run_s: float
    why: str = "jobs are due and have no room"


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What one machine of an offer would hold."""

    jobs: Mapping[Shape, int]
    cpus: int
    times: int
    """How many machines the need fills in this way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """What is started for a need, and what stays without."""

    starts: tuple[Start, ...]
    left: Mapping[Shape, int]
    why: tuple[str, ...]


def needs_of(rests: Iterable[Rest], rules: Rules) -> list[Need]:
    """Sum up by kind and group what is due and has no room, in the order of the lines."""
    counts: dict[tuple[Kind, str], dict[Shape, int]] = {}
    times: dict[tuple[Kind, str], list[float]] = {}
    for rest in rests:
        if rest.due <= 0:
            continue
        line = rest.wanted
        key = (line.kind, line.group)
        shapes = counts.setdefault(key, {})
        shapes[line.shape] = shapes.get(line.shape, 0) + rest.due
        sums = times.setdefault(key, [0.0, 0.0])
        sums[0] += rest.due * (rules.run_s if line.run_s is None else line.run_s)
        sums[1] += rest.due
    return [
        Need(
            kind=kind,
            group=group,
            counts=shapes,
            run_s=times[kind, group][0] / times[kind, group][1],
        )
        for (kind, group), shapes in counts.items()
    ]


def pack(need: Need, offers: Sequence[Offer], ledger: Ledger, rules: Rules) -> Packed:
    """Start the cheapest, by cost per useful core-hour, for as much of the need as may be."""
    left = dict(need.counts)
    starts: list[Start] = []
    refused: dict[str, str] = {}
    fitting = [offer for offer in offers if _suits(offer, need, refused)]
    for _ in range(STEPS_MOST):
        ranked = _rank(need, left, fitting, ledger, rules, refused)
        if not ranked:
            break
        _, _, offer, load, room = ranked[0]
        count = min(load.times, room)
        ledger.book(offer, need.group, count)
        starts.append(_start(need, offer, count, ranked, refused))
        for shape, number in load.jobs.items():
            left[shape] -= number * count
        left = {shape: number for shape, number in left.items() if number > 0}
        if not left:
            break
    return Packed(
        starts=tuple(starts),
        left=left,
        why=tuple(f"{name}: {why}" for name, why in refused.items()) or (NOTHING,),
    )


def headroom(fleet: Iterable[Worker], rooms: Iterable[Room], rules: Rules) -> list[Need]:
    """Give what lacks of the room that is kept free for jobs to come, as a need of single CPUs."""
    if rules.headroom_share <= 0:
        return []
    used: dict[tuple[int, str], int] = {}
    for worker in fleet:
        key = (id(worker.kind), worker.group)
        used[key] = used.get(key, 0) + worker.cpus - worker.free_cpus
    free: dict[tuple[int, str], int] = {}
    kinds: dict[tuple[int, str], Kind] = {}
    for room in rooms:
        key = (id(room.kind), room.group)
        free[key] = free.get(key, 0) + room.cpus
        kinds[key] = room.kind
    one = Shape(cpus=1, memory_mib=0)
    lacking = {key: int(used.get(key, 0) * rules.headroom_share) - free[key] for key in kinds}
    return [
        Need(kind=kinds[key], group=key[1], counts={one: cpus}, run_s=rules.run_s, why=HEADROOM)
        for key, cpus in lacking.items()
        if cpus > 0
    ]


Ranked = tuple[float, str, Offer, Load, int]


def _rank(
    need: Need,
    left: Mapping[Shape, int],
    offers: Iterable[Offer],
    ledger: Ledger,
    rules: Rules,
    refused: dict[str, str],
) -> list[Ranked]:
    ranked: list[Ranked] = []
    for offer in offers:
        load = load_of(offer, left)
        if load is None:
            continue
        room, why = ledger.room(offer, need.group)
        if room <= 0:
            refused[offer.name] = why
            continue
        cost = core_hour_cost(
            offer,
            rules,
            image=need.kind.image,
            used=(sum(load.jobs.values()), load.cpus),
            run_s=need.run_s,
        )
        if math.isinf(cost):
            refused[offer.name] = "interrupted so often that no such job would end"
            continue
        ranked.append((cost, offer.name, offer, load, room))
    return sorted(ranked, key=lambda each: each[:2])


def _suits(offer: Offer, need: Need, refused: dict[str, str]) -> bool:
    """Tell whether an offer serves any job of the need; notes why it serves none."""
    for shape in need.counts:
        why = misfit(offer, Wanted(kind=need.kind, shape=shape, count=1, due=1))
        if not why:
            return True
        refused[offer.name] = why
    return False


def load_of(offer: Offer, counts: Mapping[Shape, int]) -> Load | None:
    """Fill one machine, the largest jobs first; None when nothing fits."""
    cpus, memory_mib = offer.shape.cpus, offer.shape.memory_mib
    jobs: dict[Shape, int] = {}
    for shape in sorted(counts, key=lambda each: (-each.cpus, -each.memory_mib)):
        number = min(counts[shape], fits(cpus, memory_mib, shape))
        if number:
            jobs[shape] = number
            cpus -= number * shape.cpus
            memory_mib -= number * shape.memory_mib
    if not jobs:
        return None
    times = min(counts[shape] // number for shape, number in jobs.items())
    return Load(jobs=jobs, cpus=offer.shape.cpus - cpus, times=times)


def _start(
    need: Need,
    offer: Offer,
    count: int,
    ranked: Sequence[Ranked],
    refused: Mapping[str, str],
) -> Start:
    compared = [
        Compared(offer=name, cost=cost, why=_made_of(other, filled, need))
        for cost, name, other, filled, _ in ranked
    ]
    compared += [Compared(offer=name, cost=None, why=why) for name, why in refused.items()]
    return Start(
        offer=offer.name,
        count=count,
        kind=need.kind,
        group=need.group,
        why=f"{need.why}: {sum(need.counts.values())}; a useful core-hour costs least here",
        compared=tuple(compared),
    )


def _made_of(offer: Offer, load: Load, need: Need) -> str:
    said = [f"{offer.price_hour:g} an hour", f"{load.cpus} of {offer.shape.cpus} CPUs used"]
    if offer.interruptions_hour:
        lost = 1 - useful_share(offer, need.run_s)
        said.append(f"{lost:.0%} lost to interruptions")
    if offer.image_s and need.kind.image not in offer.images:
        said.append(f"its image is not there ({offer.image_s:.0f} s)")
    return ", ".join(said)


def unmet_of(rest: Rest, packed: Packed, offers: Iterable[Offer]) -> Unmet | None:
    """Tell what of a line stays without a worker, and whether it must; None: nothing does."""
    line = rest.wanted
    why = [(offer.name, misfit(offer, line)) for offer in offers]
    if rest.waiting and all(each for _, each in why):
        # That is so whether or not they are due: they are told at once.
        reasons = tuple(f"{name}: {each}" for name, each in why) or (NOTHING,)
        return Unmet(wanted=line, count=rest.waiting, why=reasons, impossible=True)
    left = min(rest.due, packed.left.get(line.shape, 0))
    return Unmet(wanted=line, count=left, why=packed.why, impossible=False) if left else None
