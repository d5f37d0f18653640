"""The nouns of the EC2 API as frozen values."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum

from mayfly.model import Shape, State


class Phase(StrEnum):
    """The states of an EC2 instance."""

    PENDING = "pending"
    RUNNING = "running"
    SHUTTING_DOWN = "shutting-down"
    TERMINATED = "terminated"
    STOPPING = "stopping"
    STOPPED = "stopped"


PHASE_CODES = {
    Phase.PENDING: 0,
    Phase.RUNNING: 16,
    Phase.SHUTTING_DOWN: 32,
    Phase.TERMINATED: 48,
    Phase.STOPPING: 64,
    Phase.STOPPED: 80,
}

PHASES = {
    State.WANTED: Phase.PENDING,
    State.STARTING: Phase.PENDING,
    State.STANDBY: Phase.PENDING,
    State.RUNNING: Phase.RUNNING,
    State.PAUSED: Phase.STOPPED,
    State.SUSPENDED: Phase.STOPPED,
    State.STOPPED: Phase.STOPPED,
    State.KEPT: Phase.STOPPED,
    State.STOPPING: Phase.SHUTTING_DOWN,
    State.GONE: Phase.TERMINATED,
    State.FAILED: Phase.TERMINATED,
    State.UNKNOWN: Phase.RUNNING,
}
"""What each state of a machine is called by EC2; ``docs/reference/ec2.md`` has the same table."""


class Verb(StrEnum):
    """What can be done to instances that exist."""

    START = "start"
    STOP = "stop"
    REBOOT = "reboot"
    TERMINATE = "terminate"


ALLOWED = {
    Verb.START: frozenset({Phase.STOPPED, Phase.PENDING, Phase.RUNNING}),
    Verb.STOP: frozenset({Phase.RUNNING, Phase.STOPPING, Phase.STOPPED}),
    Verb.REBOOT: frozenset({Phase.RUNNING}),
    Verb.TERMINATE: frozenset(Phase),
}
"""In which states each verb may be used; where the state is already right, it changes nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tag:
    """A name and a value that somebody put on an instance or a key pair."""

    resource: str
    key: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What RunInstances asks for."""

    image: str
    type: str
    least: int
    most: int
    key_name: str = ""
    user_data: bytes = b""
    tags: tuple[tuple[str, str], ...] = ()
    """Of each instance; sorted."""
    lasts_s: int | None = None
    """How long the lease is to be; None: as the site has it."""
    token: str = ""
    """The same token and the same order make nothing new."""

    @property
    def fingerprint(self) -> str:
        """Give what two orders of one token must have in common."""
        plain = {**asdict(self), "token": "", "user_data": self.user_data.hex()}
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """A leased machine as EC2 shows it."""

    id: str
    """``i-`` and 17 hexadecimal digits."""
    reservation: str
    """``r-`` and 17 hexadecimal digits; the instances of one order share it."""
    index: int
    """Its place in that order, from 0."""
    image: str
    type: str
    key_name: str
    phase: Phase
    launched_at: datetime
    reason: str = ""
    """Why it is in this state, in words."""
    address: str = ""
    """Its IPv4 address, where it has one."""
    name: str = ""
    """Its host name, where it has one."""
    token: str = ""
    """The client's own token; empty where the client gave none."""
    reachable: bool = False
    """Whether a connection from outside was seen to work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What a verb did to an instance."""

    id: str
    before: Phase
    after: Phase


@dataclass(frozen=True, slots=True, kw_only=True)
class Console:
    """What an instance wrote to its serial console."""

    text: bytes
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPair:
    """A public key for ssh; the private half is never stored."""

    id: str
    """``key-`` and 17 hexadecimal digits."""
    name: str
    kind: str
    """``rsa`` or ``ed25519``."""
    public: str
    """As in an ``authorized_keys`` line."""
    fingerprint: str
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineImage:
    """An image that this user may run."""

    id: str
    """Its name in the catalogue: what ``mayfly run`` takes."""
    title: str
    arch: str
    owner: str
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceType:
    """A size that has a name."""

    name: str
    shape: Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """What the site calls itself."""

    name: str
    zone: str
    endpoint: str
    """``host:port`` under which clients reach this API."""
