"""Where machines come from: the one seam that leases are kept by, whoever runs the machines.

Listing is the primitive: one call sees all. Each other verb may be called twice: the id of the
lease (``key``) travels as the machine's name or tag, so that an orphan is a set difference.
An adapter raises our own errors only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from mayfly.model import NetworkMode, Shape, State


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """An image that machines can be had of."""

    image: str
    pin: str
    """``NAME@sha512:DIGEST``: which disk the name means now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchSpec:
    """A machine as it is wanted."""

    image: str
    shape: Shape
    network: NetworkMode
    user: str
    """Whose it is: a name that the place knows."""
    ssh_keys: tuple[str, ...]
    """Public keys, as lines of an authorized_keys file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ref:
    """A machine that is there, ready to be reached."""

    id: str
    """The place's own name for it."""
    host_keys: tuple[str, ...] = ()
    """Public ssh keys by which the machine is known: ``ssh-ed25519 AAAA...``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A machine as a place lists it."""

    key: str
    """Id of the lease that it was launched for."""
    id: str
    state: State
    reason: str = ""


class Provider(Protocol):
    """A place to get machines from."""

    def offers(self) -> Sequence[Offer]:
        """Give what can be had; raises ``Unavailable`` when the place does not answer."""

    def machines(self) -> Sequence[Seen]:
        """Give all machines that carry a key of ours; raises ``Unavailable``."""

    def launch(self, spec: LaunchSpec, key: str) -> Ref:
        """Give the machine of this key, made if there is none, made ready if it is not.

        Raises ``Quota``, ``Denied``, ``Missing``, ``Untrusted``, ``Unavailable`` or ``Failed``.
        """

    def terminate(self, machine: str) -> None:
        """End a machine; one that is gone is no error."""


class Pausable(Protocol):
    """A place whose machines can be put on disk, and brought back."""

    def suspend(self, machine: str) -> None:
        """Put a machine on disk and free what it holds; raises ``Conflict`` while it is in use."""

    def resume(self, machine: str) -> None:
        """Bring it back; raises ``Quota`` when there is no room now."""


class Reachable(Protocol):
    """A place whose machines can be reached by ssh without a port that is open to the world."""

    def reach(self, machine: str) -> Sequence[str]:
        """Give a command whose standard input and output are a connection to its ssh server."""

    def verify(self, machine: str, host_keys: Sequence[str]) -> None:
        """Connect as a user would, from outside; raises ``Failed`` with what came back."""


class Place(Provider, Pausable, Reachable, Protocol):
    """What the site server asks of a place that people get machines from."""
