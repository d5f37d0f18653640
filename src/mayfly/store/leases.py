"""Leases in the database: rows and values, one at a time and in pages."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, Row, and_, func, insert, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError

from mayfly.errors import Conflict, Missing, Quota
from mayfly.model import NetworkMode, Shape, State
from mayfly.site.lease import Lease, Purpose, Spec, Wanted
from mayfly.site.quota import Amounts, Quotas, lacking, need_of
from mayfly.store import tables

_PLAIN = (
    *("id", "owner", "group", "name", "created_at", "starts_at", "expires_at", "reason"),
    *("machine", "attempts", "retry_at", "reminders", "expired", "ended_at", "version"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Whose leases somebody sees: his own and those of some groups, or all."""

    owner: str = ""
    groups: tuple[str, ...] = ()
    everything: bool = False


def add(connection: Connection, lease: Lease, quotas: Quotas) -> None:
    """Write a new lease down, if its owner and group have room.

    Raises ``Quota``, or ``Conflict`` when its owner has a living one of that name.
    """
    _lock(connection, lease)
    _check_room(connection, lease, quotas)
    try:
        connection.execute(insert(tables.leases).values(_row(lease)))
    except IntegrityError as error:
        raise Conflict(
            f"you have a machine '{lease.name}' already", hint="choose another --name"
        ) from error


def _lock(connection: Connection, lease: Lease) -> None:
    """Have others wait who would count the same user's or group's leases now."""
    # In one order, so that no two wait for each other.
    for account in sorted({f"user:{lease.owner}", f"group:{lease.group}"}):
        row = {"account": account}
        if connection.dialect.name == "postgresql":
            fresh = postgresql.insert(tables.ledger).values(row).on_conflict_do_nothing()
            connection.execute(fresh)
        else:
            connection.execute(sqlite.insert(tables.ledger).values(row).on_conflict_do_nothing())
        name = tables.ledger.c.account
        connection.execute(select(name).where(name == account).with_for_update())


def _check_room(connection: Connection, lease: Lease, quotas: Quotas) -> None:
    need = need_of(lease.spec)
    columns = tables.leases.c
    for word, column, value, limit in (
        ("your", columns.owner, lease.owner, quotas.user),
        (f"group {lease.group}'s", columns.group, lease.group, quotas.group),
    ):
        short = lacking(_held(connection, column == value), need, limit)
        if short:
            raise Quota(f"this is more than {word} quota: {short}", hint="delete a machine first")


def _held(connection: Connection, whose: Any) -> Amounts:
    columns = tables.leases.c
    total = select(func.count(), func.sum(columns.cpus), func.sum(columns.memory_mib)).where(
        and_(columns.live, whose)
    )
    machines, cpus, memory_mib = connection.execute(total).one()
    return Amounts(machines=machines, cpus=int(cpus or 0), memory_mib=int(memory_mib or 0))


def held_by(connection: Connection, owner: str) -> Amounts:
    """Give what a user's living leases count for."""
    return _held(connection, tables.leases.c.owner == owner)


def find(connection: Connection, word: str, scope: Scope, *, lock: bool = False) -> Lease:
    """Give a lease by its id, or a living one of the caller's by its name; raises ``Missing``."""
    columns = tables.leases.c
    named = and_(columns.name == word, columns.owner == scope.owner, columns.live)
    query = select(tables.leases).where(or_(columns.id == word, named), _seen_by(scope))
    row = connection.execute(query.with_for_update() if lock else query).first()
    if row is None:
        # The same for another's and for none: which there are is nobody's business.
        raise Missing(f"no machine '{word}'", hint="'mayfly machine list' shows what there is")
    return _lease(row)


def page(
    connection: Connection, scope: Scope, *, after: str = "", limit: int = 100, ended: bool = False
) -> Sequence[Lease]:
    """Give leases, newest first, from behind an id on."""
    columns = tables.leases.c
    query = select(tables.leases).where(_seen_by(scope)).order_by(columns.id.desc()).limit(limit)
    if after:
        query = query.where(columns.id < after)
    if not ended:
        query = query.where(columns.live)
    return [_lease(row) for row in connection.execute(query)]


def living(connection: Connection) -> Sequence[Lease]:
    """Give all leases that may hold a machine, oldest first."""
    query = select(tables.leases).where(tables.leases.c.live).order_by(tables.leases.c.id)
    return [_lease(row) for row in connection.execute(query)]


def counted(connection: Connection) -> dict[str, int]:
    """Give how many living leases are in each state."""
    columns = tables.leases.c
    query = select(columns.state, func.count()).where(columns.live).group_by(columns.state)
    return {str(state): int(count) for state, count in connection.execute(query)}


def held_by_groups(connection: Connection, *, limit: int) -> Sequence[tuple[str, Amounts]]:
    """Give what the groups with the most living leases have."""
    columns = tables.leases.c
    machines = func.count()
    query = (
        select(columns.group, machines, func.sum(columns.cpus), func.sum(columns.memory_mib))
        .where(columns.live)
        .group_by(columns.group)
        .order_by(machines.desc(), columns.group)
        .limit(limit)
    )
    return [
        (str(group), Amounts(machines=count, cpus=int(cpus), memory_mib=int(memory_mib)))
        for group, count, cpus, memory_mib in connection.execute(query)
    ]


def in_states(
    connection: Connection, states: Sequence[State], *, limit: int = 100
) -> Sequence[Lease]:
    """Give living leases in some states, newest first."""
    columns = tables.leases.c
    query = select(tables.leases).where(columns.live, columns.state.in_([s.value for s in states]))
    query = query.order_by(columns.id.desc()).limit(limit)
    return [_lease(row) for row in connection.execute(query)]


def save(connection: Connection, lease: Lease) -> Lease:
    """Write a lease down that was read, with a lock, in this transaction; gives its next version.

    Raises ``Conflict`` when somebody else has written it meanwhile.
    """
    fresh = replace(lease, version=lease.version + 1)
    columns = tables.leases.c
    changed = connection.execute(
        update(tables.leases)
        .where(columns.id == lease.id, columns.version == lease.version)
        .values(_row(fresh))
    )
    if changed.rowcount != 1:
        raise Conflict(f"machine '{lease.name}' was changed meanwhile", hint="look again")
    return fresh


def _seen_by(scope: Scope) -> Any:
    columns = tables.leases.c
    if scope.everything:
        return columns.id != ""
    return or_(columns.owner == scope.owner, columns.group.in_(scope.groups))


def _row(lease: Lease) -> dict[str, Any]:
    spec = lease.spec
    return {
        **{name: getattr(lease, name) for name in _PLAIN},
        "purpose": lease.purpose.value,
        "image": spec.image,
        "cpus": spec.shape.cpus,
        "memory_mib": spec.shape.memory_mib,
        "network": spec.network.value,
        "ssh_keys": json.dumps(spec.ssh_keys),
        "wanted": lease.wanted.value,
        "state": lease.state.value,
        "host_keys": json.dumps(lease.host_keys),
        "live": lease.is_live,
    }


def _lease(row: Row[Any]) -> Lease:
    words = dict(row._mapping)
    spec = Spec(
        image=words["image"],
        shape=Shape(cpus=words["cpus"], memory_mib=words["memory_mib"]),
        network=NetworkMode(words["network"]),
        ssh_keys=tuple(json.loads(words["ssh_keys"])),
    )
    return Lease(
        **{name: words[name] for name in _PLAIN},
        purpose=Purpose(words["purpose"]),
        spec=spec,
        wanted=Wanted(words["wanted"]),
        state=State(words["state"]),
        host_keys=tuple(json.loads(words["host_keys"])),
    )
