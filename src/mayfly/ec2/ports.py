"""What the EC2 API needs of the site, as protocols; ``memory`` has all of them for tests.

Whoever implements them shows a user that user's own things only: another one's are missing. They
raise the errors of ``mayfly.errors``, and are called from many threads at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from mayfly.ec2.values import (
    Change,
    Console,
    Instance,
    InstanceType,
    KeyPair,
    MachineImage,
    Order,
    Region,
    Tag,
    Verb,
)


class Machines(Protocol):
    """A user's leased machines."""

    def check(self, owner: str, order: Order) -> None:
        """Say whether the order would be granted now.

        :raises Denied: the policy does not allow it
        :raises Quota: it does not fit
        """

    def run(self, owner: str, order: Order) -> tuple[Instance, ...]:
        """Grant the order, all of it or nothing; with a known token, give what it made before.

        :raises TokenReused: the token belongs to another order
        :raises Denied: the policy does not allow it
        :raises Quota: it does not fit
        """

    def instances(self, owner: str) -> tuple[Instance, ...]:
        """Give all of the user's, those included that ended within the last hour."""

    def change(self, owner: str, verb: Verb, ids: Sequence[str]) -> tuple[Change, ...]:
        """Do the verb to all of these, or to none.

        :raises Missing: one of them is not this user's
        :raises Conflict: one of them is in a state that does not allow it
        :raises Fault: ``UnsupportedOperation``, where this verb cannot be had
        """

    def console(self, owner: str, instance: str) -> Console:
        """Give the newest 64 KiB of its console.

        :raises Missing: it is not this user's
        :raises Fault: ``UnsupportedOperation``, where consoles cannot be had
        """


class KeyPairs(Protocol):
    """A user's public keys."""

    def key_pairs(self, owner: str) -> tuple[KeyPair, ...]:
        """Give all of the user's."""

    def add_key_pair(self, owner: str, pair: KeyPair) -> None:
        """Keep one.

        :raises Conflict: the user has one of that name
        """

    def remove_key_pair(self, owner: str, name: str) -> None:
        """Forget one and its tags; without complaint where there is none."""


class Tags(Protocol):
    """What users noted on their things."""

    def tags(self, owner: str) -> tuple[Tag, ...]:
        """Give all of the user's, those of ended instances while these are shown."""

    def put_tags(self, owner: str, tags: Sequence[Tag], *, most: int) -> None:
        """Put these, or none; a key that is there gets the new value.

        :raises Quota: a resource would have more than ``most``
        """

    def remove_tags(self, owner: str, tags: Sequence[tuple[str, str, str | None]]) -> None:
        """Remove those of these resources and keys, if the value is this one or None was given."""


class Catalogue(Protocol):
    """What can be run, and in which sizes."""

    def images(self, owner: str) -> tuple[MachineImage, ...]:
        """Give the images that this user may run."""

    def types(self) -> tuple[InstanceType, ...]:
        """Give the sizes; the first is what an order without one gets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """All that the actions work on."""

    machines: Machines
    key_pairs: KeyPairs
    tags: Tags
    catalogue: Catalogue
    region: Region
