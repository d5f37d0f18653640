"""The nouns of the planner as frozen values: what is wanted, what could be had, what is there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from mayfly.model import Shape


class Phase(StrEnum):
    """How far a worker is."""

    BOOTING = "booting"
    READY = "ready"
    DRAINING = "draining"
    """It takes no new jobs; what runs there goes on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What a worker must be, so that a job can run there."""

    image: str = ""
    partition: str = ""
    """Of a worker: empty serves all partitions."""
    constraints: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Jobs that wait and are alike."""

    kind: Kind
    shape: Shape
    group: str = ""
    """Who is entitled to what is started for them, and pays for it."""
    count: int
    due: int
    """How many of them have waited for as long as the site lets them."""
    run_s: float | None = None
    """How long such a job runs, as far as is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What a provider would give now."""

    name: str
    provider: str
    shape: Shape
    price_hour: float | None
    """In the site's currency; None when the provider names no price."""
    count: int
    """How many more can be had now."""
    boot_s: float = 0.0
    """From the launch, which is when paying begins, until jobs can run."""
    billing_least_s: float = 0.0
    billing_step_s: float = 1.0
    interruptions_hour: float = 0.0
    """How often in an hour the provider takes such a machine away."""
    images: frozenset[str] = frozenset()
    """Images that are there already."""
    image_s: float = 0.0
    """How much longer the first start of an image takes where it is not there yet."""
    partitions: frozenset[str] = frozenset()
    """What its workers may serve; empty: all."""
    constraints: frozenset[str] = frozenset()
    """What its workers fulfil."""
    weight_hour: float = 0.0
    """Energy or carbon of one machine in an hour, in the unit of ``Rules.weight_price``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """A machine of the pool; it may still be booting."""

    id: str
    offer: str
    kind: Kind
    group: str = ""
    """Whose jobs it takes; empty: everybody's."""
    phase: Phase
    launched_at: float
    """Seconds since some day, as ``Snapshot.now``."""
    idle_since: float | None
    """Since when no job has been there; None: one is there, or it is booting."""
    cpus: int
    free_cpus: int
    free_memory_mib: int
    jobs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What a group may spend in its window."""

    group: str
    amount: float
    spent: float
    """In the window so far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceiling:
    """How much there may be at once: of a provider, or of a group."""

    machines: int | None = None
    cpus: int | None = None


NO_CEILING = Ceiling()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the site lets the planner do."""

    start_most: int = 100
    """Workers that one cycle may start."""
    stop_most: int = 100
    """Workers that one cycle may drain, and that it may give back."""
    cycle_s: float = 60.0
    """Time between two decisions."""
    keep_s: float = 300.0
    """How long an idle worker stays."""
    settle_s: float = 120.0
    """How soon a batch system has put a job on a free worker."""
    spare_share: float = 0.05
    """How much of the CPUs in use stays free before a worker that has jobs is drained."""
    headroom_share: float = 0.05
    """How much of the CPUs in use is kept free for jobs to come, so that they need not wait."""
    reserve_s: float = 3600.0
    """How long a worker is thought to run when a budget is divided."""
    use_s: float = 4 * 3600.0
    """How long a worker is thought to be of use."""
    run_s: float = 3600.0
    """How long a job runs of which nothing is known."""
    price_most_hour: float = 1000.0
    """A dearer offer is taken for a mistake."""
    weight_price: float = 0.0
    """What the site would pay to avoid one unit of an offer's weight."""
    life_s: float | None = None
    """After this a worker is drained."""
    force_after_s: float | None = None
    """So long after the end of its life a worker is given back though it has jobs; None: never."""
    quotas: Mapping[str, Ceiling] = field(default_factory=dict)
    """Of providers, by name."""
    shares: Mapping[str, Ceiling] = field(default_factory=dict)
    """Of groups, by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """All that a decision is made from."""

    now: float
    wanted: tuple[Wanted, ...]
    offers: tuple[Offer, ...]
    """Also those of which nothing more can be had: the prices of workers are looked up here."""
    fleet: tuple[Worker, ...]
    budgets: tuple[Budget, ...] = ()


# --- what was decided ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One offer, as it was weighed for one need."""

    offer: str
    cost: float | None
    """Of one useful core-hour; None when it was refused."""
    why: str
    """Why it was refused, or what the cost is made of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Workers to start."""

    offer: str
    count: int
    kind: Kind
    group: str
    why: str
    compared: tuple[Compared, ...]
    """The offers, the chosen one first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What one worker is told: to drain, to take jobs again, to go."""

    worker: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """Idle workers that stay, and why."""

    count: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unmet:
    """Jobs for which nothing was started."""

    wanted: Wanted
    count: int
    why: tuple[str, ...]
    impossible: bool
    """Whether no provider could ever give what they ask for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What is to be done, and everything that explains it."""

    starts: tuple[Start, ...] = ()
    resumes: tuple[Change, ...] = ()
    """Draining workers that take jobs again."""
    drains: tuple[Change, ...] = ()
    removals: tuple[Change, ...] = ()
    kept: tuple[Kept, ...] = ()
    unmet: tuple[Unmet, ...] = ()
    refused: tuple[Compared, ...] = ()
    """Offers that cannot be used for anything."""
    notes: tuple[str, ...] = ()
    """What an admin should know: budgets, demand that was not believed."""
