"""Observe the place, decide for each lease, record it, and only then act.

What is under way is known from memory alone: after a crash nothing is, and what was begun is seen
in the place, where each machine carries the id of its lease. So the loop needs no repair.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from mayfly.errors import MayflyError
from mayfly.ports import LaunchSpec, Place, Ref, Seen
from mayfly.reconcile.words import kind_of
from mayfly.site.lease import Lease
from mayfly.site.rules import USUAL, USUAL_RETRIES, Ladder, Retries
from mayfly.site.step import Action, Verb, failed, not_seen, step, succeeded
from mayfly.store import leases as rows
from mayfly.store import log as diary
from mayfly.store.database import Database
from mayfly.store.leases import Scope

log = logging.getLogger("mayfly.reconcile")

EVERYTHING = Scope(everything=True)
ORPHAN_ROUNDS = 2
"""A machine without a lease is ended when it was seen so in as many rounds: lists may be late."""

Remind = Callable[[Lease], None]


@dataclass(slots=True, kw_only=True)
class Reconciler:
    """The loop, and what it needs."""

    database: Database
    place: Place
    ladder: Ladder = USUAL
    retries: Retries = USUAL_RETRIES
    interval_s: float = 5.0
    workers: int = 8
    remind: Remind = lambda lease: None
    clock: Callable[[], float] = time.time
    rounds: int = 0
    """Completed since the start."""
    trouble: str = ""
    """Why the last round saw nothing; empty: it did."""
    _wake: threading.Event = field(default_factory=threading.Event)
    _stop: threading.Event = field(default_factory=threading.Event)
    _busy: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _strange: dict[str, int] = field(default_factory=dict)

    def wake(self) -> None:
        """Have a round begin now."""
        self._wake.set()

    def stop(self) -> None:
        """Have the loop end after what is under way."""
        self._stop.set()
        self._wake.set()

    def run(self) -> None:
        """Go round until it is stopped; what fails is told, and tried again in the next round."""
        with ThreadPoolExecutor(self.workers, "act") as pool:
            self._begin()
            while not self._stop.is_set():
                self._wake.wait(self.interval_s)
                self._wake.clear()
                if not self._stop.is_set():
                    self._round_safely(pool)

    def _begin(self) -> None:
        try:
            with self.database.writing() as connection:
                diary.close_open(connection, self.clock())
        except MayflyError as error:
            log.warning("%s", error.message)
        self.wake()

    def _round_safely(self, pool: ThreadPoolExecutor) -> None:
        try:
            self.round(pool)
            self.trouble = ""
        except MayflyError as error:
            if error.message != self.trouble:
                log.warning("%s", error.message)
            self.trouble = error.message

    # --- one round -------------------------------------------------------------------------------

    def round(self, pool: ThreadPoolExecutor) -> None:
        """Observe, decide, record, act once; raises what the database or the place answered."""
        # Before the list is asked for: a machine that is made meanwhile has a lease that is known.
        with self._lock:
            busy = set(self._busy)
        with self.database.reading() as connection:
            leases = rows.living(connection)
        try:
            seen = {one.key: one for one in self.place.machines()}
        except MayflyError as error:
            self._blind(leases, error)
            raise
        for lease in leases:
            if lease.id not in busy:
                self._decide(lease, seen.get(lease.id), pool)
        self._end_orphans({lease.id for lease in leases} | busy, seen)
        self.rounds += 1

    def _blind(self, leases: Sequence[Lease], error: MayflyError) -> None:
        for lease in leases:
            if not_seen(lease, error.message) != lease:
                self._change(lease.id, lambda one: not_seen(one, error.message))

    def _decide(self, lease: Lease, seen: Seen | None, pool: ThreadPoolExecutor) -> None:
        now = self.clock()
        if step(lease, seen, now, self.ladder) == (lease, ()):
            return
        todo: list[tuple[str, Action, Lease]] = []
        with self.database.writing() as connection:
            current = rows.find(connection, lease.id, EVERYTHING, lock=True)
            if current.version != lease.version:
                # Somebody wants something else by now: the next round sees it with fresh eyes.
                self.wake()
                return
            after, actions = step(current, seen, now, self.ladder)
            kind = kind_of(current, after)
            if after != current:
                after = rows.save(connection, after)
            if kind:
                diary.append(connection, kind, after, now, reason=after.reason)
            for action in actions:
                intent = diary.intend(connection, lease.id, action.verb.value, action.machine, now)
                todo.append((intent, action, after))
        if todo:
            with self._lock:
                self._busy.add(lease.id)
            pool.submit(self._act_all, lease.id, todo)
        else:
            self.wake()

    def _end_orphans(self, known: set[str], seen: Mapping[str, Seen]) -> None:
        strange = {key: one for key, one in seen.items() if key not in known}
        self._strange = {key: self._strange.get(key, 0) + 1 for key in strange}
        for key, one in strange.items():
            if self._strange[key] < ORPHAN_ROUNDS:
                self.wake()
                continue
            log.warning("machine %s has no lease (%s): it is ended", one.id, key)
            self.place.terminate(one.id)

    # --- acting ----------------------------------------------------------------------------------

    def _act_all(self, lease_id: str, todo: list[tuple[str, Action, Lease]]) -> None:
        try:
            for intent, action, lease in todo:
                self._act_once(intent, action, lease)
        except MayflyError as error:
            # The database is away; the place will be looked at again.
            log.warning("lease %s: %s", lease_id, error.message)
        finally:
            with self._lock:
                self._busy.discard(lease_id)
            self.wake()

    def _act_once(self, intent: str, action: Action, lease: Lease) -> None:
        try:
            ref = self._act(action, lease)
        except MayflyError as caught:
            log.warning("%s of lease %s failed: %s", action.verb.value, lease.id, caught.message)
            error = caught
            now = self.clock()
            self._change(
                lease.id, lambda one: failed(one, action, error, now, self.retries), intent, caught
            )
            return
        self._change(lease.id, lambda one: succeeded(one, action, ref), intent)

    def _act(self, action: Action, lease: Lease) -> Ref | None:
        if action.verb is Verb.LAUNCH:
            return self._launch(lease)
        if action.verb is Verb.REMIND:
            self.remind(lease)
        elif action.verb is Verb.TERMINATE:
            self.place.terminate(action.machine)
        elif action.verb is Verb.SUSPEND:
            self.place.suspend(action.machine)
        else:
            self.place.resume(action.machine)
        return None

    def _launch(self, lease: Lease) -> Ref:
        spec = LaunchSpec(
            image=lease.spec.image,
            shape=lease.spec.shape,
            network=lease.spec.network,
            user=lease.owner,
            ssh_keys=lease.spec.ssh_keys,
        )
        ref = self.place.launch(spec, lease.id)
        self.place.verify(ref.id, ref.host_keys)
        return ref

    def _change(
        self,
        lease_id: str,
        change: Callable[[Lease], Lease],
        intent: str = "",
        error: MayflyError | None = None,
    ) -> None:
        now = self.clock()
        with self.database.writing() as connection:
            before = rows.find(connection, lease_id, EVERYTHING, lock=True)
            after = change(before) if before.is_live else before
            if after != before:
                after = rows.save(connection, after)
                if kind := kind_of(before, after):
                    diary.append(connection, kind, after, now, reason=after.reason)
            if intent:
                diary.finish(connection, intent, error.message if error else "done", now)
