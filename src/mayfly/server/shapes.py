"""What travels over REST: requests and answers as the OpenAPI document has them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from mayfly.errors import Invalid
from mayfly.server.site import Wish
from mayfly.site.lease import Lease
from mayfly.store.log import Event

LIFE_MOST_S = 10 * 366 * 86_400
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
Word = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.:@+-]{0,199}$")]
_KINDS = "ssh-(ed25519|rsa)|ecdsa-sha2-nistp(256|384|521)"
Key = Annotated[
    str,
    StringConstraints(max_length=4096, pattern=rf"^({_KINDS}) [A-Za-z0-9+/]+={{0,2}}( [ -~]*)?$"),
]
"""A line of an authorized_keys file, without options: those would be commands of ours to run."""


class _Shape(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NewLease(_Shape):
    """A machine that is asked for."""

    image: Word
    cpus: int = Field(default=1, ge=1, le=255, strict=True)
    memory_mib: int = Field(default=512, ge=64, le=1 << 22, strict=True)
    network: Literal["none", "open"] = "none"
    name: Name | None = None
    group: Word | None = None
    ssh_keys: list[Key] = Field(default=[], max_length=16)
    for_s: float | None = Field(default=None, gt=0, le=LIFE_MOST_S, description="Seconds.")
    starts_at: AwareDatetime | None = None
    expires_at: AwareDatetime | None = None
    dry_run: bool = False

    def wish(self) -> Wish:
        """Give it as the site wants it."""
        return Wish(
            image=self.image,
            cpus=self.cpus,
            memory_mib=self.memory_mib,
            network=self.network,
            name=self.name or "",
            group=self.group or "",
            ssh_keys=tuple(self.ssh_keys),
            for_s=self.for_s,
            starts_at=seconds(self.starts_at),
            expires_at=seconds(self.expires_at),
        )


class ChangedLease(_Shape):
    """What is to be different; one of both."""

    expires_at: AwareDatetime | None = None
    wanted: Literal["running", "suspended"] | None = None


class LeaseOut(_Shape):
    """A lease as it is."""

    id: str
    name: str
    owner: str
    group: str
    purpose: str
    image: str
    cpus: int
    memory_mib: int
    network: str
    state: str
    wanted: str
    reason: str
    machine: str
    host_keys: list[str]
    created_at: datetime
    starts_at: datetime
    expires_at: datetime
    ended_at: datetime | None
    version: int


class LeasePage(_Shape):
    """Some leases, newest first."""

    items: list[LeaseOut]
    next: str | None = Field(description="Cursor of the next page; null: this is the last.")


class EventOut(_Shape):
    """Something that happened."""

    id: str
    at: datetime
    kind: str
    lease: str
    owner: str
    group: str
    actor: str
    source: str
    detail: dict[str, str | float | int | bool | None]


class EventPage(_Shape):
    """Some events, oldest first."""

    items: list[EventOut]
    next: str = Field(description="Cursor from which later events follow.")


class ImageOut(_Shape):
    """An image that machines can be had of."""

    name: str
    pin: str


class ImageList(_Shape):
    """All of them."""

    items: list[ImageOut]


class Me(_Shape):
    """Who asks, as the server sees him."""

    name: str
    groups: list[str]
    manages: list[str]
    roles: list[str]
    held: dict[str, int]
    quota: dict[str, int]


class Problem(BaseModel):
    """An error (RFC 9457)."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    hint: str = ""
    request_id: str = ""


def seconds(moment: datetime | None) -> float | None:
    """Give seconds since the epoch; raises ``Invalid`` for what no clock shows."""
    if moment is None:
        return None
    try:
        return moment.timestamp()
    except (OverflowError, ValueError) as error:
        raise Invalid(f"{moment} is no time that can be meant") from error


def moment(at: float) -> datetime:
    """Give a time with its zone, UTC."""
    return datetime.fromtimestamp(at, UTC)


def lease_out(lease: Lease) -> LeaseOut:
    """Give a lease as it travels."""
    return LeaseOut(
        id=lease.id,
        name=lease.name,
        owner=lease.owner,
        group=lease.group,
        purpose=lease.purpose.value,
        image=lease.spec.image,
        cpus=lease.spec.shape.cpus,
        memory_mib=lease.spec.shape.memory_mib,
        network=lease.spec.network.value,
        state=lease.state.value,
        wanted=lease.wanted.value,
        reason=lease.reason,
        machine=lease.machine,
        host_keys=list(lease.host_keys),
        created_at=moment(lease.created_at),
        starts_at=moment(lease.starts_at),
        expires_at=moment(lease.expires_at),
        ended_at=None if lease.ended_at is None else moment(lease.ended_at),
        version=lease.version,
    )


def event_out(event: Event) -> EventOut:
    """Give an event as it travels."""
    return EventOut(
        id=event.id,
        at=moment(event.at),
        kind=event.kind,
        lease=event.lease,
        owner=event.owner,
        group=event.group,
        actor=event.actor,
        source=event.source,
        detail=dict(event.detail),
    )
