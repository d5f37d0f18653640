"""What fits where: jobs into offers, and waiting jobs onto workers that are there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from mayfly.model import Shape
from mayfly.planner.model import Kind, Offer, Phase, Wanted, Worker

Free = tuple[int, int]
"""CPUs and MiB of memory that are free on a worker."""


def fits(cpus: int, memory_mib: int, shape: Shape) -> int:
    """Tell how many jobs of a shape have room at once."""
    by_cpus = cpus // max(1, shape.cpus)
    return min(by_cpus, memory_mib // shape.memory_mib) if shape.memory_mib > 0 else by_cpus


def serves(kind: Kind, asked: Kind) -> bool:
    """Tell whether a worker of one kind may run jobs that ask for another."""
    return (
        kind.image == asked.image
        and kind.partition in {"", asked.partition}
        and asked.constraints <= kind.constraints
    )


def misfit(offer: Offer, wanted: Wanted) -> str:
    """Tell why an offer can never serve jobs; empty when it can."""
    if not fits(offer.shape.cpus, offer.shape.memory_mib, wanted.shape):
        return (
            f"a job needs {wanted.shape.cpus} CPUs and {wanted.shape.memory_mib} MiB, it has "
            f"{offer.shape.cpus} and {offer.shape.memory_mib}"
        )
    if offer.partitions and wanted.kind.partition not in offer.partitions:
        return f"not for partition '{wanted.kind.partition}'"
    lacking = wanted.kind.constraints - offer.constraints
    return f"lacks {', '.join(sorted(lacking))}" if lacking else ""


@dataclass(slots=True)
class Room:
    """Free room on workers that are alike; it shrinks while demand is laid onto it."""

    kind: Kind
    group: str
    phase: Phase
    free: dict[Free, int] = field(default_factory=dict)
    """How many workers have so much free."""
    stale: dict[Free, int] = field(default_factory=dict)
    """How many of these have stood idle for longer than a batch system needs to use them."""

    def take(self, shape: Shape, count: int) -> int:
        """Lay at most so many jobs onto it; gives how many had room."""
        taken = 0
        for have in sorted(self.free):
            while taken < count and self.free.get(have, 0):
                each = fits(*have, shape)
                if not each:
                    break
                taken += self._fill(have, shape, min(each, count - taken), count - taken)
        return taken

    def _fill(self, have: Free, shape: Shape, each: int, left: int) -> int:
        """Put ``each`` jobs on as many workers as can be filled alike."""
        workers = min(self.free[have], max(1, left // each))
        rest = (have[0] - each * shape.cpus, have[1] - each * shape.memory_mib)
        self.free[have] -= workers
        if not self.free[have]:
            del self.free[have]
        self.free[rest] = self.free.get(rest, 0) + workers
        return workers * each

    @property
    def cpus(self) -> int:
        """Give the CPUs that are free."""
        return sum(have[0] * count for have, count in self.free.items())


def rooms_of(fleet: Iterable[Worker], *, now: float, settle_s: float) -> list[Room]:
    """Sum up what is free on workers that take jobs, or will as soon as they have booted."""
    rooms: dict[tuple[int, str, Phase], Room] = {}
    draining, early = Phase.DRAINING, now - settle_s
    for worker in fleet:
        phase = worker.phase
        if phase is draining:
            continue
        # Kinds are shared values: their identity is good enough here, and hashing costs.
        key = (id(worker.kind), worker.group, phase)
        room = rooms.get(key)
        if room is None:
            room = rooms[key] = Room(worker.kind, worker.group, phase)
        free = (worker.free_cpus, worker.free_memory_mib)
        room.free[free] = room.free.get(free, 0) + 1
        if worker.idle_since is not None and worker.idle_since < early:
            room.stale[free] = room.stale.get(free, 0) + 1
    return sorted(rooms.values(), key=lambda room: (room.phase is Phase.BOOTING, room.group == ""))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rest:
    """A line of demand after what is there has been laid under it."""

    wanted: Wanted
    due: int
    """Jobs that are due and have no room."""
    waiting: int
    """All jobs that have no room."""
    doubted: int
    """Jobs that have had room on idle workers for so long that something else must keep them."""


def lay(wanted: Sequence[Wanted], rooms: Sequence[Room]) -> list[Rest]:
    """Lay demand onto what is free, line by line; the rooms shrink."""
    by_image: dict[str, list[Room]] = {}
    for room in rooms:
        by_image.setdefault(room.kind.image, []).append(room)
    return [_rest(line, by_image.get(line.kind.image, ())) for line in wanted]


def _rest(line: Wanted, rooms: Sequence[Room]) -> Rest:
    left, doubted = line.count, 0
    for room in rooms:
        if not left:
            break
        if room.group in {"", line.group} and serves(room.kind, line.kind):
            stale = sum(
                fits(*have, line.shape) * min(count, room.free.get(have, 0))
                for have, count in room.stale.items()
            )
            taken = room.take(line.shape, left)
            doubted += min(stale, taken)
            left -= taken
    # The oldest take what is free; those that are not due yet wait for the rest.
    due = max(0, line.due - (line.count - left))
    return Rest(wanted=line, due=due, waiting=left, doubted=doubted)
