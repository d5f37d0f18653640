"""The registrar at work: with the kernel, the startd and the host service of this host."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import Any

from mayfly.batch.htcondor.registrar import Answered, Held, Peer, Registrar, began
from mayfly.batch.htcondor.slots import ask_slot, cgroup_of, job_of, slot_of
from mayfly.batch.job import refused, write_ticket
from mayfly.batch.program import Site
from mayfly.batch.registration import register, unregister
from mayfly.batch.wish import parse_wish
from mayfly.errors import MayflyError


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """Registers jobs, and takes that back; a few threads do so at once."""

    site: Site
    trusted: Path
    """The program of HTCondor that starts jobs, of which root's processes are believed."""
    forget: Callable[[str], None]
    """Takes a right back, by its key."""
    latest: dict[str, Held] = field(default_factory=dict)
    """Who has asked for each right last: when a job was begun again, another process has it."""
    order: Lock = field(default_factory=Lock)

    def answer(self, peer: Peer, told: Mapping[str, Any]) -> Answered:
        """Register the job that a process is of; raises ``MayflyError`` when it is of none."""
        held_since = began(peer.pid)
        slot = slot_of(peer.pid, peer.uid, self.trusted)
        job = job_of(ask_slot(slot), peer.uid, self.site.cluster, cgroup_of(peer.pid))
        job = replace(job, restart=told.get("restart", 0))
        held = Held(key=job.key, pid=peer.pid, began=held_since)
        with self.order:
            try:
                ticket = register(job, parse_wish(told["options"]), self.site.settings())
            except MayflyError as error:
                ticket = refused(job, error)
            if ticket.image:
                self.latest[job.key] = held
        reply = json.dumps({"ticket": write_ticket(ticket)}).encode() + b"\n"
        return Answered(reply=reply, held=held if ticket.image else None)

    def release(self, held: Held) -> None:
        """Take a right back that ended with its process, unless another one has it by now.

        Raises ``MayflyError``.
        """
        with self.order:
            if self.latest.get(held.key, held) == held:
                self.latest.pop(held.key, None)
                self.forget(held.key)


def serve(site: Site, trusted: Path) -> None:
    """Register jobs until this process is ended; raises ``MayflyError``."""

    def forget(key: str) -> None:
        unregister(key, site.settings())

    desk = Desk(site=site, trusted=trusted, forget=forget)
    Registrar(site.settings(), desk.answer, desk.release).serve()
