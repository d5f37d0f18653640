"""EC2's instances are leases: one order makes its leases in one transaction."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, insert, select
from sqlalchemy.exc import IntegrityError

from mayfly.ec2.fault import Fault, TokenReused
from mayfly.ec2.values import (
    ALLOWED,
    PHASES,
    Change,
    Console,
    Instance,
    InstanceType,
    MachineImage,
    Order,
    Phase,
    Tag,
    Verb,
)
from mayfly.errors import Conflict, Denied, Missing, Quota
from mayfly.model import State
from mayfly.server.ec2.notes import SHOWN_AFTER_END_S, forget, write_tag
from mayfly.server.site import Site, Wish
from mayfly.site.lease import Lease, Wanted
from mayfly.site.people import Asker, Roles, asker_of
from mayfly.store import ec2tables, tables
from mayfly.store import leases as rows
from mayfly.store import log as diary
from mayfly.store.log import By

_TRIAL = "trial run"
"""No client's token has a space in it."""

_WANTED = {
    Verb.START: Wanted.RUNNING,
    Verb.STOP: Wanted.SUSPENDED,
    Verb.TERMINATE: Wanted.GONE,
}
_THERE = {
    Verb.START: frozenset({Phase.RUNNING, Phase.PENDING}),
    Verb.STOP: frozenset({Phase.STOPPED, Phase.STOPPING}),
}
"""Where nothing is left to be done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeasedMachines:
    """A user's leases that were made through EC2, and what he may make more of."""

    site: Site
    sizes: tuple[InstanceType, ...]
    people: Callable[[str], Asker]
    """Gives who somebody is by his name; raises ``Denied`` for nobody."""

    def images(self, owner: str) -> tuple[MachineImage, ...]:
        """Give the images that machines can be had of here."""
        epoch = datetime.fromtimestamp(0, UTC)
        return tuple(
            MachineImage(
                id=offer.image, title=offer.pin, arch="x86_64", owner="site", created_at=epoch
            )
            for offer in self.site.images()
        )

    def types(self) -> tuple[InstanceType, ...]:
        """Give the sizes."""
        return self.sizes

    def check(self, owner: str, order: Order) -> None:
        """Say whether the order would be granted; the quota is that of all that it asks for."""
        try:
            with self.site.database.writing() as connection:
                # Under a token that nobody has: this one may be in use already.
                self._add_all(connection, self.people(owner), replace(order, token=_TRIAL))
                raise _Dry
        except _Dry:
            return

    def run(self, owner: str, order: Order) -> tuple[Instance, ...]:
        """Write the leases down; their machines follow."""
        asker = self.people(owner)
        try:
            self._run_once(asker, order)
        except _Raced:
            # The same token came twice at once; the other one has written it down by now.
            self._run_once(asker, order)
        self.site.wake()
        token = _order_of(owner, order.token)
        with self.site.database.reading() as connection:
            reservation = connection.execute(
                select(ec2tables.orders.c.reservation).where(token)
            ).scalar()
        made = [each for each in self.instances(owner) if each.reservation == reservation]
        if not made:
            raise Conflict("what this client token made is gone: take a new one")
        return tuple(sorted(made, key=lambda each: each.index))

    def instances(self, owner: str) -> tuple[Instance, ...]:
        """Give all of a user's, those included that ended within the last hour."""
        leases, mine = tables.leases.c, ec2tables.instances
        recent = leases.live | (leases.ended_at > self.site.clock() - SHOWN_AFTER_END_S)
        query = (
            select(
                mine,
                leases.image,
                leases.state,
                leases.wanted,
                leases.reason,
                leases.created_at,
            )
            .join(tables.leases, leases.id == mine.c.lease)
            .where(mine.c.owner == owner, recent)
            .order_by(mine.c.lease)
        )
        with self.site.database.reading() as connection:
            return tuple(_instance(row) for row in connection.execute(query).mappings())

    def change(self, owner: str, verb: Verb, ids: Sequence[str]) -> tuple[Change, ...]:
        """Have the leases wanted so; all are looked at before the first is changed."""
        here = {each.id: each for each in self.instances(owner)}
        for each in ids:
            if each not in here:
                raise Missing(f"no instance {each}")
            if here[each].phase not in ALLOWED[verb]:
                raise Conflict(f"cannot {verb} {each}: it is {here[each].phase}")
        if verb is Verb.REBOOT:
            raise _not_offered("a reboot: log in and use the system's own")
        return tuple(self._want(owner, verb, here[each]) for each in dict.fromkeys(ids))

    def console(self, owner: str, instance: str) -> Console:
        """Refuse: leases have no console yet."""
        if instance not in {each.id for each in self.instances(owner)}:
            raise Missing(f"no instance {instance}")
        raise _not_offered("the console")

    def _want(self, owner: str, verb: Verb, instance: Instance) -> Change:
        # One that failed is shown as terminated, but holds its place in the quota until it is gone.
        if verb is Verb.TERMINATE or instance.phase not in _THERE[verb]:
            with contextlib.suppress(*([Missing] if verb is Verb.TERMINATE else [])):
                self.site.want(self.people(owner), instance.id, _WANTED[verb])
        after = {each.id: each.phase for each in self.instances(owner)}.get(instance.id)
        return Change(id=instance.id, before=instance.phase, after=after or Phase.TERMINATED)

    def _run_once(self, asker: Asker, order: Order) -> None:
        with self.site.database.writing() as connection:
            forget(connection, asker.name, self.site.clock())
            if not self._known(connection, asker.name, order):
                self._add_all(connection, asker, order)

    def _known(self, connection: Connection, owner: str, order: Order) -> bool:
        query = select(ec2tables.orders.c.fingerprint).where(_order_of(owner, order.token))
        fingerprint = connection.execute(query).scalar()
        if fingerprint not in (None, order.fingerprint):
            raise TokenReused(f"the client token {order.token} was used for another order")
        return fingerprint is not None

    def _add_all(self, connection: Connection, asker: Asker, order: Order) -> None:
        if order.user_data:
            raise _not_offered("user data")
        reservation = "r-" + secrets.token_hex(9)[:17]
        row = {"owner": asker.name, "token": order.token, "reservation": reservation}
        try:
            connection.execute(
                insert(ec2tables.orders).values(fingerprint=order.fingerprint, **row)
            )
        except IntegrityError:
            raise _Raced from None
        keys = self._public_keys(connection, asker.name, order.key_name)
        for index in range(order.most):
            lease = self.site.planned(asker, self._wish(order, keys))
            lease = replace(lease, name="i-" + lease.id.replace("-", "")[-17:])
            try:
                rows.add(connection, lease, self.site.quotas)
            except Quota:
                if index < order.least:
                    raise
                break
            self._note(connection, asker, order, lease, (reservation, index))

    def _wish(self, order: Order, keys: tuple[str, ...]) -> Wish:
        size = next(each.shape for each in self.sizes if each.name == order.type)
        return Wish(
            image=order.image,
            cpus=size.cpus,
            memory_mib=size.memory_mib,
            ssh_keys=keys,
            for_s=order.lasts_s,
        )

    def _public_keys(self, connection: Connection, owner: str, name: str) -> tuple[str, ...]:
        table = ec2tables.key_pairs
        mine = (table.c.owner == owner) & (table.c.name == name)
        return tuple(connection.execute(select(table.c.public).where(mine)).scalars())

    def _note(
        self,
        connection: Connection,
        asker: Asker,
        order: Order,
        lease: Lease,
        where: tuple[str, int],
    ) -> None:
        row = {
            "lease": lease.id,
            "id": lease.name,
            "owner": asker.name,
            "reservation": where[0],
            "place": where[1],
            "type": order.type,
            "key_name": order.key_name,
            "token": "" if order.token.startswith("signature ") else order.token,
        }
        connection.execute(insert(ec2tables.instances).values(row))
        for key, value in order.tags:
            write_tag(connection, asker.name, Tag(resource=lease.name, key=key, value=value))
        words = {"image": order.image, "name": lease.name, "expires_at": lease.expires_at}
        by = By(actor=f"user:{asker.name}", source="ec2")
        diary.append(connection, "lease.created", lease, lease.created_at, by, **words)


class _Raced(Exception):
    """Another request with this token was quicker."""


class _Dry(Exception):
    """Takes back what was only tried."""


def _order_of(owner: str, token: str) -> Any:
    table = ec2tables.orders
    return (table.c.owner == owner) & (table.c.token == token)


def _not_offered(what: str) -> Fault:
    return Fault("UnsupportedOperation", f"This site does not offer {what}")


def local_asker(owner: str) -> Asker:
    """Give a user of this computer; through EC2 everybody has his own things only."""
    try:
        entry = pwd.getpwnam(owner)
    except KeyError:
        raise Denied(f"{owner} is no longer a user here") from None
    names = []
    for gid in dict.fromkeys([entry.pw_gid, *os.getgrouplist(owner, entry.pw_gid)]):
        try:
            names.append(grp.getgrgid(gid).gr_name)
        except KeyError:
            continue
    return asker_of(owner, tuple(names), Roles(), "ec2")


def _phase(state: State, wanted: Wanted) -> Phase:
    phase = PHASES[state]
    if wanted is Wanted.GONE and phase is not Phase.TERMINATED:
        return Phase.SHUTTING_DOWN
    if wanted is Wanted.SUSPENDED and phase is Phase.RUNNING:
        return Phase.STOPPING
    if wanted is Wanted.RUNNING and phase is Phase.STOPPED:
        return Phase.PENDING
    return phase


def _instance(row: Mapping[Any, Any]) -> Instance:
    state = State(row["state"])
    phase = _phase(state, Wanted(row["wanted"]))
    return Instance(
        id=row["id"],
        reservation=row["reservation"],
        index=row["place"],
        image=row["image"],
        type=row["type"],
        key_name=row["key_name"],
        phase=phase,
        launched_at=datetime.fromtimestamp(row["created_at"], UTC),
        reason=row["reason"],
        token=row["token"],
        # A lease runs once a connection from outside was seen to work.
        reachable=phase is Phase.RUNNING and state is State.RUNNING,
    )
