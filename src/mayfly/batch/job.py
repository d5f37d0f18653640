"""A job as its batch system knows it, and the ticket with which its starter comes for a machine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any

from mayfly.errors import (
    Denied,
    Invalid,
    MayflyError,
    Missing,
    Quota,
    Untrusted,
)

TICKET_FORMAT = 1
TICKET_VARIABLE = "MAYFLY_TICKET"
"""The environment variable in which a ticket goes from root's hook to the starter."""
TICKET_LONGEST = 64 << 10


class Fault(StrEnum):
    """Whose doing it was that a job could not run: this decides what becomes of the job."""

    JOB = "job"
    """The user's: it is the job's own failure, here and everywhere."""
    MAYFLY = "mayfly"
    """Ours: the job should be tried again, elsewhere."""
    SITE = "site"
    """There is no room here: as with ours."""


_USERS = (Invalid, Denied, Missing, Untrusted)


def fault_of(error: MayflyError) -> Fault:
    """Tell whose doing an error is that keeps a job from its machine."""
    if isinstance(error, _USERS):
        return Fault.JOB
    return Fault.SITE if isinstance(error, Quota) else Fault.MAYFLY


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchJob:
    """One job, or that part of it that gets one machine, as root's hook knows it."""

    system: str
    """``slurm``, ``gridengine``."""
    cluster: str
    job: str
    uid: int
    cpus: int
    memory_mib: int
    """All that the machine and its QEMU may have."""
    step: str = "0"
    """Which part of the job, where a job has several machines."""
    task: str = ""
    """Of an array."""
    restart: int = 0
    """How often the job was begun before."""
    wall_s: float = 0.0
    """0: as long as it likes."""
    queue: str = ""
    submitted_at: float = 0.0
    cgroup: str = ""
    """Where its QEMU belongs, from the top of the cgroup tree."""
    shared: bool = False
    """Whether all its processes on this host share one machine."""
    scratch_mib: int = 0

    @property
    def key(self) -> str:
        """Give the key of its right."""
        return f"{self.cluster}/{self.job}/{self.step}"

    def right(self) -> dict[str, Any]:
        """Give what root registers for it."""
        return {
            "key": self.key,
            "uid": self.uid,
            "cpus": self.cpus,
            "memory_mib": self.memory_mib,
            "wall_s": self.wall_s,
            "queue": self.queue,
            "cgroup": self.cgroup,
            "shared": self.shared,
            "scratch_mib": self.scratch_mib,
            "identity": self.identity(),
        }

    def identity(self) -> dict[str, str]:
        """Give what tells it from others that had its number, or will."""
        submitted = f"{self.submitted_at:.0f}" if self.submitted_at else ""
        known = {"array_task": self.task, "submitted_at": submitted}
        return {
            "restart": str(self.restart),
            **{name: text for name, text in known.items() if text},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """What root's hook tells the starter: it grants nothing, the right does."""

    system: str
    job: str
    key: str
    image: str = ""
    """Empty: the job runs without a machine."""
    network: str = "none"
    network_asked: bool = False
    allow: tuple[str, ...] = ()
    root: bool = False
    shares: tuple[str, ...] = ()
    live: bool = True
    """Whether the policy lets directories of the host be seen in the machine."""
    keep: bool = False
    restart: int = 0
    step: str = ""
    """Which part of the job the starter runs, in the batch system's words."""
    shared: bool = False
    """Whether the machine is for all processes of the job on this host."""
    fault: Fault | None = None
    """Set when there will be no machine: whose doing that is."""
    reason: str = ""
    hint: str = ""


def refused(job: BatchJob, error: MayflyError) -> Ticket:
    """Give the ticket of a job that gets no machine."""
    return Ticket(
        system=job.system,
        job=job.job,
        key=job.key,
        restart=job.restart,
        fault=fault_of(error),
        reason=error.message,
        hint=error.hint,
    )


def write_ticket(ticket: Ticket) -> str:
    """Give a ticket as one line of text."""
    return json.dumps({"format": TICKET_FORMAT, **asdict(ticket)}, separators=(",", ":"))


def read_ticket(text: str) -> Ticket:
    """Read a ticket; raises ``Invalid`` when it is none."""
    try:
        values = json.loads(text) if len(text) <= TICKET_LONGEST else None
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict) or values.get("format") != TICKET_FORMAT:
        raise Invalid(
            "the job has no ticket for a machine",
            hint="the batch system's hooks give it: 'mayfly batch check' (root) looks at them",
        )
    return Ticket(**{item.name: _typed(values, item.name) for item in fields(Ticket)})


_TUPLES = ("allow", "shares")
_FLAGS = ("network_asked", "root", "live", "keep", "shared")


def _typed(values: Mapping[str, Any], name: str) -> Any:
    value = values.get(name)
    if name in _TUPLES and isinstance(value, list) and all(isinstance(x, str) for x in value):
        return tuple(value)
    if name == "fault":
        return None if value is None else _fault(value)
    wanted = bool if name in _FLAGS else int if name == "restart" else str
    if name in _TUPLES or type(value) is not wanted:
        raise Invalid(f"the job's ticket has no good '{name}'")
    return value


def _fault(value: object) -> Fault:
    try:
        return Fault(str(value))
    except ValueError:
        raise Invalid("the job's ticket has no good 'fault'") from None
