"""Who gets a machine now, who waits, and what never fits.

**What is promised.** Each machine is promised its guest's memory and a stated overhead for QEMU,
all of it: every page of a guest may become private. The memory of a template is counted once,
however many machines share it. A standby is stopped and cannot grow: it counts only what it has.
The sum stays within ``(host memory - reserve_memory) * overcommit``.

**Who goes first.** The user who holds the least (as the largest of the shares of what is limited:
memory, disk, CPUs, machines), among equals the one who was served longest ago, then the request
that came first. The requests of one user go in the order in which they came. Standbys keep nobody
waiting: they are given up.

**Aging.** A request for which there is no room yet may be passed by those behind it, for
``PATIENCE_S`` seconds. From then on everybody behind it waits until it fits. So a large machine
gets its turn: while it waits, room is given only to users who hold less than its owner, and each
of them soon holds as much. A request that only its owner's own limits stop keeps nobody waiting.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import chain

from mayfly.errors import Invalid
from mayfly.host.settings import NO_LIMIT, Amounts, HostSettings, Kept
from mayfly.model import Shape
from mayfly.units import MEMORY_LEAST_MIB, MEMORY_STEP_MIB, MIB, round_memory, show_size

OVERHEAD_TCG_MIB = 128
"""QEMU's own memory under emulation, its translation cache of 64 MiB included."""
OVERHEAD_KVM_MIB = 48
"""QEMU's own memory under KVM."""
STANDBY_MIB = 96
"""Private memory of a stopped machine, at most."""
PATIENCE_S = 300.0
"""How long a request that does not fit may be passed by others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What one machine is promised."""

    cpus: int
    memory_mib: int
    """The guest's memory and the overhead: ``need_of`` adds it."""
    disk_mib: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A machine that is there."""

    uid: int
    need: Need
    standby: bool = False
    key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A request in the line."""

    key: str
    uid: int
    need: Need
    since: float
    """When it came, by the same clock as ``now``: one that is never set back."""
    template_mib: int = 0
    """Memory of the template that it needs, as far as that is known."""
    served: int = 0
    """Number of the turn in which its user was last served, if somebody waited then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What there is to give."""

    memory_mib: int
    """Of the host, for machines and templates, as much as may be promised."""
    disk_mib: int
    """Of the host, for the disks of machines."""
    everyone: Amounts = NO_LIMIT
    user: Amounts = NO_LIMIT
    waiting: int = 1000
    line_user: int = 200


def bounds_of(settings: HostSettings, *, host_memory_mib: int, disk_mib: int) -> Bounds:
    """Give the bounds of a host with so much memory, and so much disk for machines."""
    limits = settings.limits
    left = max(0, host_memory_mib - settings.reserve_memory_mib)
    return Bounds(
        memory_mib=int(left * settings.overcommit),
        disk_mib=disk_mib,
        everyone=Amounts(
            machines=limits.machines,
            cpus=limits.cpus,
            memory_mib=limits.memory_mib,
            disk_mib=limits.disk_mib,
        ),
        user=limits.user,
        waiting=limits.waiting,
        line_user=limits.line_user,
    )


# --- sizes ---------------------------------------------------------------------------------------


def shape_for(cpus: int, memory_mib: int) -> Shape:
    """Give the size of machine that serves a wish."""
    return Shape(cpus=cpus, memory_mib=round_memory(memory_mib * MIB))


def overhead_mib(accelerator: str) -> int:
    """Give what QEMU itself may need beside the guest's memory."""
    return OVERHEAD_KVM_MIB if accelerator == "kvm" else OVERHEAD_TCG_MIB


def need_of(shape: Shape, disk_mib: int, accelerator: str) -> Need:
    """Give what a machine of this size, whose disk may grow so much, is promised."""
    memory = shape.memory_mib + overhead_mib(accelerator)
    return Need(cpus=shape.cpus, memory_mib=memory, disk_mib=disk_mib)


def guest_memory_mib(granted_mib: int, accelerator: str) -> int:
    """Give the guest's memory for a job that was granted so much: less the overhead, rounded down.

    Raises ``Invalid`` when that is too little for any machine.
    """
    overhead = overhead_mib(accelerator)
    guest = (granted_mib - overhead) // MEMORY_STEP_MIB * MEMORY_STEP_MIB
    if guest < MEMORY_LEAST_MIB:
        raise Invalid(
            f"{granted_mib} MiB of memory are too little for a machine: {MEMORY_LEAST_MIB} MiB "
            f"for the guest and {overhead} MiB for QEMU itself",
            hint=f"ask for {MEMORY_LEAST_MIB + overhead} MiB or more",
        )
    return guest


# --- what is used, and what of it is lacking -----------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Check:
    """One limit, as it stands against one need."""

    name: str
    """The setting, or what of the host."""
    what: str
    limit: int
    used: int
    wanted: int
    own: bool
    """Whether it is a limit of this user alone."""

    def lacks(self) -> bool:
        return self.used + self.wanted > self.limit

    def show(self, value: int) -> str:
        return show_size(value * MIB) if self.what in ("memory", "disk") else str(value)

    def wish(self) -> str:
        return f"it wants {self.show(self.wanted)}{_WISHES[self.what]}"


HOST = "this host"
_WORDS = {"machines": "machines", "cpus": "CPUs", "memory_mib": "memory", "disk_mib": "disk"}
_WISHES = {"machines": " machine", "CPUs": " CPUs", "memory": " of memory", "disk": " of disk"}


class _Ledger:
    """What is held, by everybody and by each user."""

    def __init__(self, held: Iterable[Held], bounds: Bounds, templates_mib: int) -> None:
        self._bounds = bounds
        self._templates_mib = templates_mib
        self._everyone = NO_LIMIT
        self._users: dict[int, Amounts] = defaultdict(Amounts)
        for machine in held:
            if not machine.standby:
                self.add(machine.uid, machine.need)

    def add(self, uid: int, need: Need) -> None:
        self._everyone = _plus(self._everyone, need)
        self._users[uid] = _plus(self._users[uid], need)

    def share(self, uid: int) -> float:
        """Give the largest share that a user has of anything that is limited."""
        used = self._users[uid]
        shares = [getattr(used, name) / most for name, most, _ in self._limits() if most > 0]
        return max(shares, default=0.0)

    def lacking(self, uid: int, need: Need) -> _Check | None:
        """Give the first limit that stops this need, the user's own before the common ones."""
        return next((check for check in self._checks(uid, need) if check.lacks()), None)

    def _limits(self) -> Iterator[tuple[str, int, str]]:
        yield "memory_mib", self._bounds.memory_mib - self._templates_mib, HOST
        yield "disk_mib", self._bounds.disk_mib, HOST
        yield from _given(self._bounds.everyone, "limits")

    def _checks(self, uid: int, need: Need) -> Iterator[_Check]:
        wanted = _plus(NO_LIMIT, need)
        users = ((each, self._users[uid]) for each in _given(self._bounds.user, "limits.user"))
        rest = ((each, self._everyone) for each in self._limits())
        for (field, limit, name), used in chain(users, rest):
            yield _Check(
                name=name,
                what=_WORDS[field],
                limit=limit,
                used=getattr(used, field),
                wanted=getattr(wanted, field),
                own=name.startswith("limits.user."),
            )


def _given(amounts: Amounts, table: str) -> Iterator[tuple[str, int, str]]:
    for item in fields(amounts):
        if limit := getattr(amounts, item.name):
            yield item.name, limit, f"{table}.{item.name.removesuffix('_mib')}"


def _plus(amounts: Amounts, need: Need) -> Amounts:
    return Amounts(
        machines=amounts.machines + 1,
        cpus=amounts.cpus + need.cpus,
        memory_mib=amounts.memory_mib + need.memory_mib,
        disk_mib=amounts.disk_mib + need.disk_mib,
    )


# --- the rules -----------------------------------------------------------------------------------


def never(need: Need, uid: int, bounds: Bounds, *, template_mib: int = 0) -> str:
    """Say why a machine would not even fit alone, with its template; empty when it would."""
    check = _Ledger((), bounds, template_mib).lacking(uid, need)
    if check is None:
        return ""
    limit = check.show(max(0, check.limit))
    if check.name == HOST:
        return f"{check.wish()}; this host has {limit} for machines"
    return f"{check.wish()}; {check.name} allows {limit}"


def no_place(waiting: Sequence[Waiting], uid: int, bounds: Bounds) -> str:
    """Say why one more request of this user may not wait; empty when it may."""
    if len(waiting) >= bounds.waiting:
        return f"{len(waiting)} requests wait; limits.waiting allows {bounds.waiting}"
    own = sum(request.uid == uid for request in waiting)
    if own >= bounds.line_user:
        return f"{own} of your requests wait; limits.line_user allows {bounds.line_user}"
    return ""


def next_grants(
    waiting: Sequence[Waiting],
    held: Sequence[Held],
    bounds: Bounds,
    templates_mib: int,
    *,
    now: float,
) -> list[str]:
    """Give the keys of the requests that go now, in order; the module says by which rule.

    ``templates_mib``: the memory of templates that stay; one that nothing uses should be dropped
    before it keeps anybody waiting. What is asked for that never fits is passed over.
    """
    ledger = _Ledger(held, bounds, templates_mib)
    granted: list[str] = []
    queue = _Queue(_possible(waiting, bounds), ledger)
    while (request := queue.first()) is not None:
        check = ledger.lacking(request.uid, request.need)
        if check is None:
            granted.append(request.key)
            queue.took(request)
        elif not check.own and now - request.since >= PATIENCE_S:
            break
    return granted


def _possible(waiting: Sequence[Waiting], bounds: Bounds) -> list[Waiting]:
    # Most ask for the same.
    wishes = {(each.need, each.template_mib): each.uid for each in waiting}
    fits = {
        wish: not never(wish[0], uid, bounds, template_mib=wish[1]) for wish, uid in wishes.items()
    }
    return [each for each in waiting if fits[each.need, each.template_mib]]


def line(
    waiting: Sequence[Waiting], held: Sequence[Held], bounds: Bounds, templates_mib: int
) -> dict[str, int]:
    """Give each request's place, from 1, as if there came room for one after the other."""
    queue = _Queue(waiting, _Ledger(held, bounds, templates_mib))
    places: dict[str, int] = {}
    while (request := queue.first()) is not None:
        places[request.key] = len(places) + 1
        queue.took(request)
    return places


class _Queue:
    """The first request of each user, those of users who hold least first."""

    def __init__(self, waiting: Iterable[Waiting], ledger: _Ledger) -> None:
        self._ledger = ledger
        self._lines: dict[int, list[Waiting]] = defaultdict(list)
        for request in sorted(waiting, key=lambda each: (each.since, each.key), reverse=True):
            self._lines[request.uid].append(request)
        self._heap: list[tuple[float, int, float, str, int]] = []
        for uid in self._lines:
            self._push(uid)

    def first(self) -> Waiting | None:
        """Give whose turn it is; its user's next one comes only when this one was taken."""
        if not self._heap:
            return None
        uid = heapq.heappop(self._heap)[-1]
        return self._lines[uid].pop()

    def took(self, request: Waiting) -> None:
        self._ledger.add(request.uid, request.need)
        self._push(request.uid)

    def _push(self, uid: int) -> None:
        if line := self._lines[uid]:
            head = line[-1]
            order = (self._ledger.share(uid), head.served, head.since, head.key, uid)
            heapq.heappush(self._heap, order)


def why(need: Need, uid: int, held: Sequence[Held], bounds: Bounds, templates_mib: int) -> str:
    """Say what is lacking for a machine now; empty when it would fit, were it its turn."""
    check = _Ledger(held, bounds, templates_mib).lacking(uid, need)
    if check is None:
        return ""
    limit, free = check.show(check.limit), check.show(max(0, check.limit - check.used))
    return f"{check.wish()}; free: {free} of {limit} ({check.name})"


def spare_mib(held: Sequence[Held], bounds: Bounds, templates_mib: int) -> int:
    """Give the memory that is promised to nobody, standbys counted; below 0 when it is too much."""
    used = sum(STANDBY_MIB if each.standby else each.need.memory_mib for each in held)
    return bounds.memory_mib - templates_mib - used


def sacrifice(
    need: Need,
    held: Sequence[Held],
    bounds: Bounds,
    templates_mib: int,
    *,
    claimed: str = "",
) -> list[str]:
    """Give the keys of the standbys to be given up, so that there is memory for a machine.

    They go in the order of ``held``, except the one that is ``claimed`` to become the machine.
    None goes in vain: when all of them would not do, none is given.
    """
    spare = spare_mib(held, bounds, templates_mib)
    standbys = [each.key for each in held if each.standby and each.key != claimed]
    if any(each.standby and each.key == claimed for each in held):
        spare += STANDBY_MIB
    count = max(0, -(-(need.memory_mib - spare) // STANDBY_MIB))
    return standbys[:count] if count <= len(standbys) else []


def no_room_to_keep(uid: int, disk_mib: int, kept: Sequence[Held], rules: Kept) -> str:
    """Say why no machine of this size may be kept beside these; empty when it may."""
    used = sum(each.need.disk_mib for each in kept)
    own = sum(each.uid == uid for each in kept)
    if own >= rules.user_machines:
        return f"{own} of your machines are kept; kept.user_machines allows {rules.user_machines}"
    if len(kept) >= rules.machines:
        return f"{len(kept)} machines are kept; kept.machines allows {rules.machines}"
    if used + disk_mib > rules.disk_mib:
        wanted, limit = show_size(disk_mib * MIB), show_size(rules.disk_mib * MIB)
        return f"it takes {wanted}; of {limit} (kept.disk), {show_size(used * MIB)} are in use"
    return ""
