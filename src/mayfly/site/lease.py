"""A lease: somebody's right to a machine, and how far it has come."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from mayfly.model import NetworkMode, Shape, State


class Purpose(StrEnum):
    """What a machine is for."""

    JOB = "job"
    WORKER = "worker"
    PERSONAL = "personal"


class Wanted(StrEnum):
    """What a lease's machine is to be."""

    RUNNING = "running"
    SUSPENDED = "suspended"
    GONE = "gone"


ENDED = frozenset({State.GONE})
"""States in which a lease holds nothing and never will again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """The machine that a lease is for."""

    image: str
    shape: Shape
    network: NetworkMode = NetworkMode.NONE
    ssh_keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """One lease as it is written down. Times are seconds since the epoch."""

    id: str
    owner: str
    group: str
    name: str
    """Chosen by its owner; one living lease of his has it."""
    purpose: Purpose
    spec: Spec
    created_at: float
    starts_at: float
    expires_at: float
    wanted: Wanted = Wanted.RUNNING
    state: State = State.WANTED
    reason: str = ""
    """Why it is in this state, for people."""
    machine: str = ""
    """The place's name of its machine; empty: there was none yet."""
    host_keys: tuple[str, ...] = ()
    attempts: int = 0
    """Failed tries in a row at what is to be done next."""
    retry_at: float = 0.0
    """Nothing is tried before."""
    reminders: int = 0
    """How many its owner got since the end was set."""
    expired: bool = False
    """Whether its time, not its owner, had it suspended."""
    ended_at: float | None = None
    version: int = 1

    @property
    def is_live(self) -> bool:
        """Whether it may hold a machine, now or later."""
        return self.state not in ENDED
