"""One decision cycle: what there is and what is wanted become what is to be done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mayfly.planner.fit import Rest, Room, lay, rooms_of
from mayfly.planner.ledger import Ledger
from mayfly.planner.model import (
    Change,
    Compared,
    Decision,
    Kind,
    Offer,
    Phase,
    Rules,
    Snapshot,
    Start,
    Unmet,
    Worker,
)
from mayfly.planner.pack import Need, Packed, headroom, needs_of, pack, unmet_of
from mayfly.planner.price import refusal_of
from mayfly.planner.shrink import View, resume, shrink

NO_NEED = Packed(starts=(), left={}, why=())


def plan(snapshot: Snapshot, rules: Rules) -> Decision:
    """Decide: lay demand onto what is there, start what lacks, give back what is too much.

    The same snapshot and rules give the same decision.
    """
    snapshot = replace(snapshot, fleet=_alike(snapshot.fleet))
    sound = {offer.name: offer for offer in snapshot.offers if not refusal_of(offer, rules)}
    ledger = Ledger(
        rules=rules, offers=sound, budgets=snapshot.budgets, fleet=snapshot.fleet, now=snapshot.now
    )
    view = View(now=snapshot.now, rules=rules, offers=sound, ledger=ledger)
    rooms = rooms_of(snapshot.fleet, now=snapshot.now, settle_s=rules.settle_s)
    rests = lay(snapshot.wanted, rooms)
    needs = [*needs_of(rests, rules), *headroom(snapshot.fleet, rooms, rules)]
    resumed = resume(needs, snapshot.fleet, view) if needs else ()
    if resumed:
        needs, rests, rooms = _again(snapshot, rules, resumed)
    starts, unmet = _grow(needs, rests, list(sound.values()), ledger, rules)
    back = {change.worker for change in resumed}
    shrunk = shrink([each for each in snapshot.fleet if each.id not in back], rooms, view)
    return Decision(
        starts=starts,
        resumes=resumed,
        drains=shrunk.drains,
        removals=shrunk.removals,
        kept=shrunk.kept,
        unmet=unmet,
        refused=tuple(
            Compared(offer=offer.name, cost=None, why=refusal_of(offer, rules))
            for offer in snapshot.offers
            if offer.name not in sound
        ),
        notes=(*ledger.notes(), *_doubts(rests)),
    )


def _alike(fleet: tuple[Worker, ...]) -> tuple[Worker, ...]:
    """Let equal kinds be one object: they are told apart by identity, since hashing each costs."""
    kinds = {id(worker.kind): worker.kind for worker in fleet}
    first: dict[Kind, Kind] = {}
    for kind in kinds.values():
        first.setdefault(kind, kind)
    if len(first) == len(kinds):
        return fleet
    return tuple(replace(worker, kind=first[worker.kind]) for worker in fleet)


def _again(
    snapshot: Snapshot, rules: Rules, resumed: Sequence[Change]
) -> tuple[list[Need], list[Rest], list[Room]]:
    """Lay the demand once more, with the workers that take jobs again."""
    back = {change.worker for change in resumed}
    fleet = [
        replace(worker, phase=Phase.READY) if worker.id in back else worker
        for worker in snapshot.fleet
    ]
    rooms = rooms_of(fleet, now=snapshot.now, settle_s=rules.settle_s)
    rests = lay(snapshot.wanted, rooms)
    return [*needs_of(rests, rules), *headroom(fleet, rooms, rules)], rests, rooms


def _grow(
    needs: Sequence[Need],
    rests: Sequence[Rest],
    offers: Sequence[Offer],
    ledger: Ledger,
    rules: Rules,
) -> tuple[tuple[Start, ...], tuple[Unmet, ...]]:
    starts: list[Start] = []
    packed: dict[tuple[object, str], Packed] = {}
    for need in needs:
        found = packed[need.kind, need.group] = pack(need, offers, ledger, rules)
        starts += found.starts
    unmet = [
        unmet_of(rest, packed.get((rest.wanted.kind, rest.wanted.group), NO_NEED), offers)
        for rest in rests
        if rest.waiting > 0
    ]
    return tuple(starts), tuple(each for each in unmet if each is not None)


def _doubts(rests: Sequence[Rest]) -> list[str]:
    return [
        f"{rest.doubted} jobs of group '{rest.wanted.group}' wait although idle workers could run "
        "them: nothing is started for these"
        for rest in rests
        if rest.doubted
    ]
