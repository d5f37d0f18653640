"""What pages say of leases: times, sizes and states in words for people. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from mayfly.model import State
from mayfly.site.lease import Lease, Wanted

ASKED = {
    "running": "resume asked for",
    "suspended": "suspend asked for",
    "gone": "delete asked for",
}
SOON_S = 86_400.0
SOON_PERCENT = 75
"""With less left than that, and so much over, the page says it in another colour too."""
TONES = {
    State.WANTED: "busy",
    State.STARTING: "busy",
    State.STANDBY: "busy",
    State.RUNNING: "good",
    State.PAUSED: "still",
    State.SUSPENDED: "still",
    State.STOPPED: "still",
    State.KEPT: "still",
    State.STOPPING: "busy",
    State.GONE: "over",
    State.FAILED: "bad",
    State.UNKNOWN: "bad",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A lease as a page shows it."""

    id: str
    name: str
    owner: str
    group: str
    image: str
    size: str
    network: str
    state: str
    tone: str
    reason: str
    left: str
    soon: bool
    over: bool
    until: str
    until_iso: str
    spent_percent: int
    created: str
    host_keys: tuple[str, ...]
    version: int
    can_suspend: bool
    can_resume: bool
    can_extend: bool
    can_delete: bool


def row_of(lease: Lease, now: float, *, may_change: bool) -> Row:
    """Give a lease's words."""
    alive = may_change and lease.is_live and lease.wanted is not Wanted.GONE
    asleep = lease.wanted is Wanted.SUSPENDED
    left_s = lease.expires_at - now
    spent_percent = _spent(lease, now)
    return Row(
        id=lease.id,
        name=lease.name,
        owner=lease.owner,
        group=lease.group,
        image=lease.spec.image,
        size=size_of(lease.spec.shape.cpus, lease.spec.shape.memory_mib),
        network=lease.spec.network.value,
        state=lease.state.value,
        tone=TONES[lease.state],
        reason=lease.reason,
        left=left_of(lease, now),
        soon=lease.is_live and 0 < left_s < SOON_S and spent_percent >= SOON_PERCENT,
        over=not lease.is_live or left_s <= 0,
        until=moment(lease.expires_at),
        until_iso=iso(lease.expires_at),
        spent_percent=spent_percent,
        created=moment(lease.created_at),
        host_keys=lease.host_keys,
        version=lease.version,
        can_suspend=alive and not asleep and lease.state is State.RUNNING,
        can_resume=alive and asleep and not lease.expired,
        can_extend=alive,
        can_delete=alive,
    )


def _spent(lease: Lease, now: float) -> int:
    whole_s = max(lease.expires_at - lease.starts_at, 1.0)
    return round(100 * min(max((now - lease.starts_at) / whole_s, 0.0), 1.0))


def left_of(lease: Lease, now: float) -> str:
    """Say how much of its time is left."""
    if not lease.is_live:
        return "ended"
    if lease.starts_at > now:
        return f"begins in {span(lease.starts_at - now)}"
    left_s = lease.expires_at - now
    return f"{span(left_s)} left" if left_s > 0 else "time is over"


def span(seconds: float) -> str:
    """Give a duration in the two largest units: ``2 d 3 h``, ``45 min``, ``under a minute``."""
    minutes = int(seconds // 60)
    if minutes < 1:
        return "under a minute"
    days, rest = divmod(minutes, 1440)
    hours, minutes = divmod(rest, 60)
    words = [(days, "d"), (hours, "h"), (minutes, "min")]
    return " ".join([f"{value} {unit}" for value, unit in words if value][:2])


def size_of(cpus: int, memory_mib: int) -> str:
    """Give a machine's size in words."""
    memory = f"{memory_mib / 1024:g} GiB" if memory_mib >= 1024 else f"{memory_mib} MiB"
    return f"{cpus} CPU{'' if cpus == 1 else 's'}, {memory}"


def happened(kind: str) -> str:
    """Give an event's kind in words."""
    plain = kind.removeprefix("lease.")
    return ASKED.get(plain.removeprefix("want-"), plain) if plain.startswith("want-") else plain


def moment(at: float) -> str:
    """Give a time with its zone."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC"


def iso(at: float) -> str:
    """Give a time for a program."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%SZ}"
