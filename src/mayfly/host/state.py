"""What the service knows: its machines, its callers, what it runs on. Data; others act on it."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from mayfly import __version__
from mayfly.engine.machine import Machine
from mayfly.engine.records import Place, Record
from mayfly.engine.template import Engine
from mayfly.engine.turns import starts_at_once
from mayfly.engine.watch import Signs
from mayfly.errors import Missing
from mayfly.host.caller import Caller
from mayfly.host.demand import Demand
from mayfly.host.limits import Bounds, Held, Need, bounds_of, need_of, why
from mayfly.host.logs import LogStore
from mayfly.host.loop import Loop, Timer
from mayfly.host.metrics import Gauges, Metrics
from mayfly.host.peer import Accounts
from mayfly.host.permission import Gate
from mayfly.host.request import Request
from mayfly.host.rights import Rights
from mayfly.host.settings import HostSettings, Standby
from mayfly.host.templates import Kind, Templates
from mayfly.images.catalogue import Catalogue
from mayfly.model import Image, Shape, State

SAVED = "saved"
"""Where in its directory a machine lies that has no QEMU."""
SUSPENDING, RESUMING = "suspending", "resuming"


@dataclass(slots=True, eq=False)
class Hosted:
    """A machine that this service looks after."""

    record: Record
    place: Place
    need: Need
    machine: Machine | None = None
    """None while it is being made, and when it is suspended: there is no QEMU."""
    signs: Signs | None = None
    caller: Caller | None = None
    """Whose job runs in it."""
    visitor: Caller | None = None
    """Who has entered it."""
    client: int = -1
    """pidfd of the process that has it, or -1."""
    sha512: str = ""
    """Of the image, as far as a standby goes: a name may stand for another image tomorrow."""
    busy: str = ""
    """What is being done with it; nothing else may begin meanwhile."""
    distrust: str = ""
    """Why nobody may begin anything with its image any more."""
    doomed: str = ""
    """Why it shall end as soon as it is not busy."""
    ended: bool = False

    @property
    def id(self) -> str:
        """Its name."""
        return self.record.id

    @property
    def shape(self) -> Shape:
        """Its size."""
        return Shape(cpus=self.record.cpus, memory_mib=self.record.memory_mib)

    @property
    def is_saved(self) -> bool:
        """Whether it lies on disk, with no QEMU."""
        # One that is being brought back has its share of the host already.
        return self.record.state in (State.SUSPENDED, State.KEPT) and self.busy != RESUMING

    @property
    def is_standby(self) -> bool:
        """Whether it waits for an owner."""
        return self.record.owner is None

    def write(self, record: Record) -> None:
        """Write down what it is now; raises ``Quota``."""
        self.place.write(record)
        self.record = record
        if self.machine is not None:
            self.machine.record = record


@dataclass(slots=True)
class Table:
    """All machines, by id."""

    machines: dict[str, Hosted] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Hosted]:
        """Go through them, also while some leave."""
        return iter(list(self.machines.values()))

    def add(self, hosted: Hosted) -> None:
        """Take one in."""
        self.machines[hosted.id] = hosted

    def find(self, name: str) -> Hosted | None:
        """Give the machine of that id."""
        return self.machines.get(name)

    def remove(self, hosted: Hosted) -> None:
        """Forget one."""
        self.machines.pop(hosted.id, None)

    def standbys(self, image: str, shape: Shape, sha512: str = "") -> list[Hosted]:
        """Give those that wait, ready, for an owner, oldest first; of just this disk, if given."""
        return [
            one
            for one in self
            if one.is_standby
            and not one.busy
            and not one.doomed
            and one.record.state is State.STANDBY
            and one.record.image == image
            and one.shape == shape
            and sha512 in ("", one.sha512)
        ]


@dataclass(slots=True)
class Hot:
    """One image and size of which standbys are kept, and how that goes."""

    standby: Standby
    demand: Demand = field(default_factory=Demand)
    wanted: int = 0
    making: int = 0
    failures: int = 0
    """In a row."""
    not_before: float = 0.0
    """By the monotonic clock: a template that cannot be made is not tried all the time."""
    trouble: str = ""


@dataclass(slots=True)
class Service:
    """Everything together."""

    engine: Engine
    settings: HostSettings
    catalogue: Catalogue
    rights: Rights
    logs: LogStore
    metrics: Metrics
    templates: Templates
    gate: Gate
    site_uid: int | None = None
    """Of the site server's user."""
    loop: Loop = field(default_factory=Loop)
    table: Table = field(default_factory=Table)
    callers: set[Caller] = field(default_factory=set)
    line: dict[str, Request] = field(default_factory=dict)
    served: dict[int, int] = field(default_factory=dict)
    """By uid, the number of the last turn, as long as somebody waits."""
    told: dict[str, int] = field(default_factory=dict)
    """The place that each one in the line was told last."""
    hot: dict[tuple[str, Shape], Hot] = field(default_factory=dict)
    accounts: Accounts = field(default_factory=Accounts)
    looking_up: set[int] = field(default_factory=set)
    """Uids whose names are being looked up."""
    admitting: Counter[int] = field(default_factory=Counter)
    """Requests of each uid that are not in the line yet."""
    starting: int = 0
    """Machines that are being made now."""
    crowded: bool = False
    """Whether somebody for whom there is room waits until fewer are being made."""
    expiry: Timer | None = None
    """When to look for the next machine whose time is over."""
    booted_at: float | None = None
    """When the host was booted, by its clock: this changes only when the clock is set."""
    trust_seen: object = None
    """The state of the gate's files when the machines were last gone through."""
    trust_trouble: str = ""
    swept_at: float = float("-inf")
    draining: bool = False
    stopping: bool = False
    on_change: Callable[[], None] = lambda: None
    _changing: bool = False

    def changed(self) -> None:
        """There may be room, or a standby less: see to it soon, once for all changes by then."""
        if not self._changing:
            self._changing = True
            self.loop.later(0, self._change)

    def _change(self) -> None:
        self._changing = False
        self.on_change()

    def need(self, shape: Shape, disk_mib: int | None = None) -> Need:
        """Give what a machine of this size is promised, with so much disk or as the host has it."""
        # Its memory is written there too, when it is suspended or a snapshot is made.
        room_mib = max(disk_mib or self.settings.disk.room_mib, shape.memory_mib)
        return need_of(shape, room_mib, self.engine.accelerator)

    def held(self) -> list[Held]:
        """Give what is promised, standbys among it."""
        return [
            Held(
                uid=-1 if one.record.owner is None else one.record.owner,
                need=one.need,
                standby=one.is_standby,
                key=one.id,
            )
            for one in self.table
            if not one.is_saved
        ]

    def bounds(self) -> Bounds:
        """Give what there is to promise."""
        usage = shutil.disk_usage(self.settings.state)
        own = sum(one.need.disk_mib for one in self.table)
        return bounds_of(
            self.settings, host_memory_mib=host_memory_mib(), disk_mib=(usage.free >> 20) + own
        )

    def shared_mib(self) -> int:
        """Give the memory of the templates that are held, or soon will be."""
        return self.templates.memory_mib(self.used_templates())

    def used_templates(self) -> frozenset[Kind]:
        """Give the templates that machines, standbys or requests in the line need."""
        used = {(one.record.image, one.shape) for one in self.table if not one.is_saved}
        wanted = {(request.image.name, request.shape) for request in self.line.values()}
        return frozenset(used | wanted | set(self.hot))

    def image_of(self, record: Record) -> Image:
        """Give the image that a machine was made of, also when its name means another by now."""
        with contextlib.suppress(Missing):
            return self.catalogue.find(record.image_pin)
        return self.catalogue.find(record.image)

    def held_by(self, job: str) -> list[Held]:
        """Give what a job's machines are promised, and those that it waits for."""
        there = [
            Held(uid=-1 if one.record.owner is None else one.record.owner, need=one.need)
            for one in self.table
            if one.record.job == job
        ]
        waiting = [
            Held(uid=request.caller.uid, need=self.need(request.shape))
            for request in self.line.values()
            if request.wish.job == job
        ]
        return there + waiting

    def lacking(self, hosted: Hosted) -> str:
        """Say what is lacking for a machine that lies on disk to run again."""
        owner = -1 if hosted.record.owner is None else hosted.record.owner
        return why(hosted.need, owner, self.held(), self.bounds(), self.shared_mib())

    def hit(self, image: str, shape: Shape) -> None:
        """A request found a standby."""
        self.metrics.hit(image)
        if (hot := self.hot.get((image, shape))) is not None:
            hot.demand.claimed(time.monotonic(), hit=True)

    def miss(self, image: str, shape: Shape) -> None:
        """A request found none; that counts where there are some at times."""
        if (hot := self.hot.get((image, shape))) is not None:
            self.metrics.miss(image)
            hot.demand.claimed(time.monotonic(), hit=False)

    def gauges(self) -> Gauges:
        """Give how things stand, for the metrics."""
        held = self.held()
        promised = sum(each.need.memory_mib for each in held if not each.standby)
        states = Counter(one.record.state.value for one in self.table)
        return Gauges(
            version=__version__,
            machines=states,
            waiting=len(self.line),
            templates=len({(one.record.image, one.shape) for one in self.table}),
            shared_bytes=self.shared_mib() << 20,
            private_bytes=sum(private_bytes(one.record.pid) for one in self.table),
            promised_bytes=promised << 20,
            promisable_bytes=self.bounds().memory_mib << 20,
            draining=self.draining,
        )

    def can_begin(self, image: str, shape: Shape) -> bool:
        """Tell whether a machine can be made, or taken, without too many starting at once."""
        return self.starting < starts_at_once() or bool(self.table.standbys(image, shape))


def private_bytes(pid: int) -> int:
    """Give the memory of a process that nothing else shares; 0 when it is gone.

    Pages of a template that a machine wrote to are its own, and anonymous. The kernel counts those;
    to look at all pages (smaps) takes it a second for a large machine.
    """
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            lines = [line.split() for line in file]
    except OSError:
        return 0
    named = (b"RssAnon:", b"VmSwap:")
    return sum(int(line[1]) << 10 for line in lines if line and line[0] in named)


def host_memory_mib() -> int:
    """Give the host's memory."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20
