"""What the server does for somebody: the use cases, each in one transaction."""

from __future__ import annotations

import hashlib
import json
import math
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mayfly.errors import Conflict, Denied, Invalid, MayflyError, Quota
from mayfly.model import NetworkMode, Shape, State
from mayfly.ports import Offer, Place
from mayfly.reconcile.loop import Reconciler
from mayfly.site.lease import Lease, Purpose, Spec, Wanted
from mayfly.site.people import Asker
from mayfly.site.quota import Quotas
from mayfly.store import answers
from mayfly.store import leases as rows
from mayfly.store import log as diary
from mayfly.store.database import Database, new_id
from mayfly.store.leases import Scope
from mayfly.store.log import By, Event
from mayfly.units import MIB, round_memory

AHEAD_MOST_S = 366 * 86_400.0
"""How far ahead a machine may be reserved."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A lease as it is asked for."""

    image: str
    cpus: int = 1
    memory_mib: int = 512
    network: str = "none"
    name: str = ""
    group: str = ""
    ssh_keys: tuple[str, ...] = ()
    for_s: float | None = None
    starts_at: float | None = None
    expires_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """The leases of this site, and what keeps them."""

    database: Database
    place: Place
    reconciler: Reconciler
    quotas: Quotas
    clock: Callable[[], float]
    wake: Callable[[], None]
    """Has the loop, which may be another process's, look now."""

    # --- look ------------------------------------------------------------------------------------

    def find(self, asker: Asker, word: str) -> Lease:
        """Give a lease that the asker may see, by id or by name; raises ``Missing``."""
        with self.database.reading() as connection:
            return rows.find(connection, word, scope_of(asker))

    def page(self, asker: Asker, *, after: str, limit: int, ended: bool) -> Sequence[Lease]:
        """Give the leases that the asker may see, newest first."""
        with self.database.reading() as connection:
            return rows.page(connection, scope_of(asker), after=after, limit=limit, ended=ended)

    def events(self, asker: Asker, *, after: str, lease: str, limit: int) -> Sequence[Event]:
        """Give what happened to those, oldest first."""
        with self.database.reading() as connection:
            scope = scope_of(asker)
            return diary.events(connection, scope, after=after, lease=lease, limit=limit)

    def images(self) -> Sequence[Offer]:
        """Give the images that machines can be had of."""
        return self.place.offers()

    # --- make ------------------------------------------------------------------------------------

    def create(self, asker: Asker, wish: Wish, key: str = "", *, dry: bool = False) -> Lease:
        """Write a lease down; its machine follows.

        With ``dry`` everything is checked and nothing is kept. Raises ``Invalid``, ``Missing`` (no
        such image), ``Denied`` (another's group), ``Quota``, ``Conflict`` (the name is taken).
        """
        now = self.clock()
        lease = self._plan(asker, wish, now)
        self._check_image(wish.image)
        fingerprint = _fingerprint(wish)
        try:
            with self.database.writing() as connection:
                known = key and answers.answered(connection, asker.name, key, fingerprint)
                if known:
                    return rows.find(connection, known, scope_of(asker))
                rows.add(connection, lease, self.quotas)
                if dry:
                    raise _Dry
                if key:
                    answers.remember(connection, asker.name, key, fingerprint, lease.id, now)
                words = {"image": wish.image, "name": lease.name, "expires_at": lease.expires_at}
                diary.append(connection, "lease.created", lease, now, _by(asker), **words)
        except _Dry:
            return lease
        self.wake()
        return lease

    def planned(self, asker: Asker, wish: Wish) -> Lease:
        """Give the lease that a wish would make now; nothing is written down."""
        return self._plan(asker, wish, self.clock())

    def _plan(self, asker: Asker, wish: Wish, now: float) -> Lease:
        group = wish.group or asker.groups[0]
        if group not in asker.groups:
            raise Denied(f"you are not in group '{group}'")
        starts_at = max(now, wish.starts_at or now)
        if starts_at > now + AHEAD_MOST_S:
            raise Invalid("that is more than a year ahead")
        shape = Shape(cpus=wish.cpus, memory_mib=round_memory(wish.memory_mib * MIB))
        return Lease(
            id=new_id(),
            owner=asker.name,
            group=group,
            name=wish.name or f"m-{secrets.token_hex(3)}",
            purpose=Purpose.PERSONAL,
            spec=Spec(
                image=wish.image,
                shape=shape,
                network=NetworkMode(wish.network),
                ssh_keys=wish.ssh_keys,
            ),
            created_at=now,
            starts_at=starts_at,
            expires_at=self._end(wish, starts_at),
            reason="" if starts_at <= now else "reserved: it has not begun yet",
        )

    def _end(self, wish: Wish, starts_at: float) -> float:
        ladder = self.reconciler.ladder
        if wish.for_s is not None and wish.expires_at is not None:
            raise Invalid("say either for how long, or until when")
        expires_at = wish.expires_at
        if expires_at is None:
            expires_at = starts_at + (ladder.default_s if wish.for_s is None else wish.for_s)
        return self._checked_end(expires_at, starts_at)

    def _checked_end(self, expires_at: float, begin: float) -> float:
        most_s = self.reconciler.ladder.most_s
        if not math.isfinite(expires_at) or expires_at <= begin:
            raise Invalid("a machine's time must end after it begins")
        if expires_at > begin + most_s + 1:
            raise Quota(
                f"a machine may be had for {most_s / 86_400:g} days at once",
                hint="'mayfly machine extend' adds more later, as often as is needed",
            )
        return expires_at

    def _check_image(self, image: str) -> None:
        try:
            known = {offer.image for offer in self.place.offers()}
        except MayflyError:
            # Its launch will tell; a reservation need not wait for the host.
            return
        if image.partition("@")[0] not in known and image not in known:
            raise Invalid(
                f"there is no image '{image[:200]}' here",
                hint=f"there are: {', '.join(sorted(known)) or 'none'}",
            )

    # --- change ----------------------------------------------------------------------------------

    def extend(self, asker: Asker, word: str, expires_at: float, version: int | None) -> Lease:
        """Move a lease's end; an expired one goes on where it stopped."""
        now = self.clock()

        def change(lease: Lease) -> Lease:
            end = self._checked_end(expires_at, max(now, lease.starts_at))
            fresh = replace(lease, expires_at=end, reminders=0)
            if lease.expired:
                fresh = replace(
                    fresh, expired=False, wanted=Wanted.RUNNING, reason="", retry_at=0.0
                )
            return fresh

        return self._change(asker, word, version, "lease.extended", change)

    def want(self, asker: Asker, word: str, wanted: Wanted, version: int | None = None) -> Lease:
        """Have a lease's machine suspended, running again, or gone."""

        def change(lease: Lease) -> Lease:
            if wanted is Wanted.RUNNING and lease.expired:
                raise Conflict(
                    f"the time of machine '{lease.name}' is over",
                    hint=f"'mayfly machine extend {lease.name} --for 8h' first",
                )
            if wanted is Wanted.SUSPENDED and lease.state is not State.RUNNING:
                raise Conflict(f"machine '{lease.name}' is {lease.state.value}, not running")
            reason = f"deleted by {asker.name}" if wanted is Wanted.GONE else ""
            return replace(lease, wanted=wanted, reason=reason, retry_at=0.0, attempts=0)

        return self._change(asker, word, version, f"lease.want-{wanted.value}", change)

    def _change(
        self,
        asker: Asker,
        word: str,
        version: int | None,
        kind: str,
        change: Callable[[Lease], Lease],
    ) -> Lease:
        now = self.clock()
        with self.database.writing() as connection:
            lease = rows.find(connection, word, scope_of(asker), lock=True)
            _check_may_change(asker, lease)
            if version is not None and version != lease.version:
                raise Stale(f"machine '{lease.name}' was changed meanwhile", hint="look again")
            if not lease.is_live or lease.wanted is Wanted.GONE:
                if kind == f"lease.want-{Wanted.GONE.value}":
                    return lease
                raise Conflict(f"machine '{lease.name}' is gone, or soon will be")
            after = rows.save(connection, change(lease))
            diary.append(connection, kind, after, now, _by(asker), expires_at=after.expires_at)
        self.wake()
        return after

    def reach(self, asker: Asker, word: str) -> Sequence[str]:
        """Give the command that connects to a machine of the asker's own.

        Raises ``Denied`` for another's, ``Conflict`` while it does not run.
        """
        lease = self.find(asker, word)
        if lease.owner != asker.name:
            raise Denied(f"machine '{lease.name}' belongs to {lease.owner}")
        if lease.state is not State.RUNNING:
            reason = f": {lease.reason}" if lease.reason else ""
            raise Conflict(f"machine '{lease.name}' is {lease.state.value}{reason}")
        return self.place.reach(lease.machine)


class Stale(Conflict):
    """What was to be changed is not what the caller has seen."""


class _Dry(Exception):
    """Takes back what was only tried."""


def scope_of(asker: Asker) -> Scope:
    """Give whose leases somebody sees."""
    everything = asker.operator or asker.auditor
    return Scope(owner=asker.name, groups=asker.manages, everything=everything)


def may_change(asker: Asker, lease: Lease) -> bool:
    """Say whether somebody may change and end a lease."""
    return lease.owner == asker.name or asker.operator or lease.group in asker.manages


def _check_may_change(asker: Asker, lease: Lease) -> None:
    if not may_change(asker, lease):
        raise Denied(f"machine '{lease.name}' belongs to {lease.owner}")


def _by(asker: Asker) -> By:
    return By(actor=f"user:{asker.name}", source=asker.source)


def _fingerprint(wish: Wish) -> str:
    plain: dict[str, Any] = {name: getattr(wish, name) for name in Wish.__slots__}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
