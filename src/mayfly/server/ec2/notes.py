"""Key pairs, tags and EC2 keys in the site's database."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection, Select, delete, insert, select
from sqlalchemy.exc import IntegrityError

from mayfly.ec2.credentials import Credential
from mayfly.ec2.values import KeyPair, Tag
from mayfly.errors import Conflict, Quota
from mayfly.store import ec2tables, tables
from mayfly.store.database import Database

SHOWN_AFTER_END_S = 3600.0
"""How long an instance is shown after its end."""


@dataclass(frozen=True, slots=True)
class Notes:
    """What users note, and the keys they sign with."""

    database: Database
    clock: Callable[[], float] = time.time

    def key_pairs(self, owner: str) -> tuple[KeyPair, ...]:
        """Give all of a user's."""
        query = select(ec2tables.key_pairs).where(ec2tables.key_pairs.c.owner == owner)
        with self.database.reading() as connection:
            rows = [dict(row) for row in connection.execute(query).mappings()]
        for row in rows:
            del row["owner"]
            row["created_at"] = datetime.fromtimestamp(row["created_at"], UTC)
        return tuple(KeyPair(**row) for row in rows)

    def add_key_pair(self, owner: str, pair: KeyPair) -> None:
        """Keep one; raises ``Conflict`` for a name that is taken."""
        row = {**asdict(pair), "owner": owner, "created_at": pair.created_at.timestamp()}
        with self.database.writing() as connection:
            try:
                connection.execute(insert(ec2tables.key_pairs).values(row))
            except IntegrityError:
                raise Conflict(f"you have a key pair '{pair.name}' already") from None

    def remove_key_pair(self, owner: str, name: str) -> None:
        """Forget one and its tags."""
        pairs, tags = ec2tables.key_pairs, ec2tables.tags
        mine = (pairs.c.owner == owner) & (pairs.c.name == name)
        with self.database.writing() as connection:
            number = connection.execute(select(pairs.c.id).where(mine)).scalar()
            connection.execute(delete(pairs).where(mine))
            of_it = (tags.c.owner == owner) & (tags.c.resource == number)
            connection.execute(delete(tags).where(of_it))

    def tags(self, owner: str) -> tuple[Tag, ...]:
        """Give all of a user's, but those of instances that are no longer shown."""
        table = ec2tables.tags
        query = select(table.c.resource, table.c.key, table.c.value).where(
            table.c.owner == owner,
            table.c.resource.not_in(forgotten(owner, self.clock())),
        )
        with self.database.reading() as connection:
            return tuple(Tag(**row) for row in connection.execute(query).mappings())

    def put_tags(self, owner: str, tags: Sequence[Tag], *, most: int) -> None:
        """Put these, or none; raises ``Quota``."""
        with self.database.writing() as connection:
            for tag in tags:
                write_tag(connection, owner, tag)
            table = ec2tables.tags
            for resource in {tag.resource for tag in tags}:
                of_it = (table.c.owner == owner) & (table.c.resource == resource)
                keys = connection.execute(select(table.c.key).where(of_it)).all()
                if len(keys) > most:
                    raise Quota(f"{resource} would have more than {most} tags")

    def remove_tags(self, owner: str, tags: Sequence[tuple[str, str, str | None]]) -> None:
        """Remove those."""
        table = ec2tables.tags
        with self.database.writing() as connection:
            for resource, key, value in tags:
                those = (
                    (table.c.owner == owner) & (table.c.resource == resource) & (table.c.key == key)
                )
                if value is not None:
                    those &= table.c.value == value
                connection.execute(delete(table).where(those))

    def find_credential(self, access_key: str) -> Credential | None:
        """Give an EC2 key."""
        table = ec2tables.credentials
        query = select(table).where(table.c.access_key == access_key)
        with self.database.reading() as connection:
            row = connection.execute(query).mappings().first()
        if row is None:
            return None
        created_at = datetime.fromtimestamp(row["created_at"], UTC)
        return Credential(**{**row, "created_at": created_at})

    def add_credential(self, credential: Credential) -> None:
        """Keep an EC2 key."""
        row = {**asdict(credential), "created_at": credential.created_at.timestamp()}
        with self.database.writing() as connection:
            connection.execute(insert(ec2tables.credentials).values(row))

    def remove_credential(self, access_key: str) -> bool:
        """Take an EC2 key out of force; tells whether there was one."""
        table = ec2tables.credentials
        with self.database.writing() as connection:
            gone = delete(table).where(table.c.access_key == access_key)
            return connection.execute(gone).rowcount > 0


def forgotten(owner: str, now: float) -> Select[tuple[str]]:
    """Give the query for a user's instances that ended too long ago to be shown."""
    leases, mine = tables.leases.c, ec2tables.instances.c
    return (
        select(mine.id)
        .join(tables.leases, leases.id == mine.lease)
        .where(mine.owner == owner, leases.ended_at <= now - SHOWN_AFTER_END_S)
    )


def forget(connection: Connection, owner: str, now: float) -> None:
    """Remove what was noted about those, and the orders that nothing is left of."""
    old = connection.execute(forgotten(owner, now)).scalars().all()
    tags, mine, orders = ec2tables.tags, ec2tables.instances, ec2tables.orders
    if not old:
        return
    connection.execute(delete(tags).where(tags.c.owner == owner, tags.c.resource.in_(old)))
    connection.execute(delete(mine).where(mine.c.owner == owner, mine.c.id.in_(old)))
    left = select(mine.c.reservation).where(mine.c.owner == owner)
    gone = delete(orders).where(orders.c.owner == owner, orders.c.reservation.not_in(left))
    connection.execute(gone)


def write_tag(connection: Connection, owner: str, tag: Tag) -> None:
    """Put one tag, in place of what its key had."""
    table = ec2tables.tags
    those = (table.c.owner == owner) & (table.c.resource == tag.resource) & (table.c.key == tag.key)
    connection.execute(delete(table).where(those))
    connection.execute(insert(table).values(owner=owner, **asdict(tag)))
