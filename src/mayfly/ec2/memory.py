"""A site that exists in memory only, with all that ``ports`` asks for: for tests of clients.

Its instances are not machines: they change state when they are told to, and do nothing.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from mayfly.ec2.credentials import Credential
from mayfly.ec2.fault import TokenReused
from mayfly.ec2.values import (
    ALLOWED,
    Change,
    Console,
    Instance,
    InstanceType,
    KeyPair,
    MachineImage,
    Order,
    Phase,
    Tag,
    Verb,
)
from mayfly.errors import Conflict, Missing, Quota

SHOWN_AFTER_END = timedelta(hours=1)

SOON = {
    Phase.PENDING: Phase.RUNNING,
    Phase.STOPPING: Phase.STOPPED,
    Phase.SHUTTING_DOWN: Phase.TERMINATED,
}
"""What the next look finds an instance in, as if time had passed."""

_NEXT = {
    Verb.START: {Phase.STOPPED: Phase.PENDING},
    Verb.STOP: {Phase.RUNNING: Phase.STOPPING},
    Verb.REBOOT: {},
    Verb.TERMINATE: dict.fromkeys(
        (Phase.PENDING, Phase.RUNNING, Phase.STOPPING, Phase.STOPPED), Phase.SHUTTING_DOWN
    ),
}


def _now() -> datetime:
    return datetime.now(UTC)


class Memory:
    """Machines, key pairs, tags and EC2 keys of users, and what all may run."""

    def __init__(
        self,
        *,
        images: Sequence[MachineImage],
        types: Sequence[InstanceType],
        most: int = 100,
        clock: Callable[[], datetime] = _now,
    ) -> None:
        """``most`` is how many instances each user may have."""
        self._images = tuple(images)
        self._types = tuple(types)
        self._most = most
        self._clock = clock
        self._lock = threading.RLock()
        self._instances: dict[str, dict[str, Instance]] = {}
        self._ended: dict[str, datetime] = {}
        self._orders: dict[tuple[str, str], tuple[str, tuple[str, ...]]] = {}
        self._pairs: dict[str, dict[str, KeyPair]] = {}
        self._tags: dict[str, dict[tuple[str, str], str]] = {}
        self._credentials: dict[str, Credential] = {}

    def images(self, owner: str) -> tuple[MachineImage, ...]:
        """Give the images; all users may run the same ones."""
        return self._images

    def types(self) -> tuple[InstanceType, ...]:
        """Give the sizes."""
        return self._types

    def check(self, owner: str, order: Order) -> None:
        """Say whether the order fits."""
        with self._lock:
            gone = (Phase.TERMINATED, Phase.SHUTTING_DOWN)
            used = sum(each.phase not in gone for each in self._mine(owner).values())
        if used + order.least > self._most:
            raise Quota(f"{owner} has {used} instances of {self._most}, and asks for {order.least}")

    def run(self, owner: str, order: Order) -> tuple[Instance, ...]:
        """Make instances, or give those that this token made before."""
        with self._lock:
            if known := self._orders.get((owner, order.token)):
                fingerprint, ids = known
                if fingerprint != order.fingerprint:
                    raise TokenReused(f"the client token {order.token} was used for another order")
                left = [self._mine(owner)[each] for each in ids if each in self._mine(owner)]
                if left:
                    return tuple(left)
            self.check(owner, order)
            used = sum(each.phase is not Phase.TERMINATED for each in self._mine(owner).values())
            count = min(order.most, self._most - used)
            reservation = "r-" + secrets.token_hex(9)[:17]
            made = [self._new(order, reservation, index) for index in range(count)]
            self._mine(owner).update({each.id: each for each in made})
            for each in made:
                self._tags.setdefault(owner, {}).update(
                    {(each.id, key): value for key, value in order.tags}
                )
            ids = tuple(each.id for each in made)
            self._orders[owner, order.token] = (order.fingerprint, ids)
            return tuple(made)

    def instances(self, owner: str) -> tuple[Instance, ...]:
        """Give all of a user's, and let what they are doing go on by a step."""
        with self._lock:
            self._forget(owner)
            mine = self._mine(owner)
            seen = tuple(mine.values())
            for each in seen:
                phase = SOON.get(each.phase, each.phase)
                mine[each.id] = replace(each, phase=phase, reachable=phase is Phase.RUNNING)
            return seen

    def change(self, owner: str, verb: Verb, ids: Sequence[str]) -> tuple[Change, ...]:
        """Do the verb to all, or to none."""
        with self._lock:
            mine = self._mine(owner)
            for each in ids:
                if each not in mine:
                    raise Missing(f"{owner} has no instance {each}")
                if mine[each].phase not in ALLOWED[verb]:
                    raise Conflict(f"cannot {verb} {each}: it is {mine[each].phase}")
            return tuple(self._turn(mine, verb, each) for each in dict.fromkeys(ids))

    def console(self, owner: str, instance: str) -> Console:
        """Give a line that a booting system might write."""
        with self._lock:
            if instance not in self._mine(owner):
                raise Missing(f"{owner} has no instance {instance}")
        return Console(text=f"{instance} login: ".encode(), at=self._clock())

    def key_pairs(self, owner: str) -> tuple[KeyPair, ...]:
        """Give all of a user's."""
        with self._lock:
            return tuple(self._pairs.get(owner, {}).values())

    def add_key_pair(self, owner: str, pair: KeyPair) -> None:
        """Keep one."""
        with self._lock:
            pairs = self._pairs.setdefault(owner, {})
            if pair.name in pairs:
                raise Conflict(f"{owner} has a key pair {pair.name}")
            pairs[pair.name] = pair

    def remove_key_pair(self, owner: str, name: str) -> None:
        """Forget one, and its tags."""
        with self._lock:
            pair = self._pairs.get(owner, {}).pop(name, None)
            if pair is not None:
                self._untag(owner, pair.id)

    def tags(self, owner: str) -> tuple[Tag, ...]:
        """Give all of a user's."""
        with self._lock:
            mine = self._tags.get(owner, {}).items()
            return tuple(Tag(resource=at, key=key, value=value) for (at, key), value in mine)

    def put_tags(self, owner: str, tags: Sequence[Tag], *, most: int) -> None:
        """Put these, or none."""
        with self._lock:
            after = dict(self._tags.get(owner, {}))
            after.update({(tag.resource, tag.key): tag.value for tag in tags})
            for resource in {tag.resource for tag in tags}:
                if sum(at == resource for at, _ in after) > most:
                    raise Quota(f"{resource} would have more than {most} tags")
            self._tags[owner] = after

    def remove_tags(self, owner: str, tags: Sequence[tuple[str, str, str | None]]) -> None:
        """Remove those."""
        with self._lock:
            mine = self._tags.setdefault(owner, {})
            for resource, key, value in tags:
                if value is None or mine.get((resource, key)) == value:
                    mine.pop((resource, key), None)

    def find_credential(self, access_key: str) -> Credential | None:
        """Give an EC2 key."""
        with self._lock:
            return self._credentials.get(access_key)

    def add_credential(self, credential: Credential) -> None:
        """Keep an EC2 key."""
        with self._lock:
            self._credentials[credential.access_key] = credential

    def _mine(self, owner: str) -> dict[str, Instance]:
        return self._instances.setdefault(owner, {})

    def _new(self, order: Order, reservation: str, index: int) -> Instance:
        return Instance(
            id="i-" + secrets.token_hex(9)[:17],
            reservation=reservation,
            index=index,
            image=order.image,
            type=order.type,
            key_name=order.key_name,
            phase=Phase.PENDING,
            launched_at=self._clock(),
            token="" if order.token.startswith("signature ") else order.token,
        )

    def _turn(self, mine: dict[str, Instance], verb: Verb, instance: str) -> Change:
        before = mine[instance].phase
        after = _NEXT[verb].get(before, before)
        reason = f"the user asked to {verb} it" if after is not before else mine[instance].reason
        mine[instance] = replace(mine[instance], phase=after, reason=reason, reachable=False)
        if after is Phase.SHUTTING_DOWN:
            self._ended[instance] = self._clock()
        return Change(id=instance, before=before, after=after)

    def _forget(self, owner: str) -> None:
        mine = self._mine(owner)
        for each in list(mine):
            ended = self._ended.get(each)
            if ended is not None and self._clock() - ended > SHOWN_AFTER_END:
                del mine[each], self._ended[each]
                self._untag(owner, each)

    def _untag(self, owner: str, resource: str) -> None:
        mine = self._tags.get(owner, {})
        for at, key in [each for each in mine if each[0] == resource]:
            del mine[at, key]
