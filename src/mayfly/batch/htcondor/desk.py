"""The registrar at work: with the kernel, the startd and the host service of this host."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mayfly.batch.htcondor.registrar import Answered, Held, Peer, Registrar, began
from mayfly.batch.htcondor.slots import ask_slot, cgroup_of, job_of, slot_of
from mayfly.batch.job import refused, write_ticket
from mayfly.batch.program import Site
from mayfly.batch.registration import register, unregister
from mayfly.batch.wish import parse_wish
from mayfly.errors import MayflyError


def serve(site: Site, trusted: Path) -> None:
    """Register jobs until this process is ended; raises ``MayflyError``.

    ``trusted``: the program of HTCondor that starts jobs, of which root's processes are believed.
    """

    def answer(peer: Peer, told: Mapping[str, Any]) -> Answered:
        return answer_for(peer, told, site, trusted)

    def release(key: str) -> None:
        unregister(key, site.settings())

    Registrar(site.settings(), answer, release).serve()


def answer_for(peer: Peer, told: Mapping[str, Any], site: Site, trusted: Path) -> Answered:
    """Register the job that a process is of; raises ``MayflyError`` when it is of none."""
    held_since = began(peer.pid)
    slot = slot_of(peer.pid, trusted)
    job = job_of(ask_slot(slot), peer.uid, site.cluster, cgroup_of(peer.pid))
    job = replace(job, restart=told.get("restart", 0))
    try:
        ticket = register(job, parse_wish(told["options"]), site.settings())
    except MayflyError as error:
        ticket = refused(job, error)
    reply = json.dumps({"ticket": write_ticket(ticket)}).encode() + b"\n"
    held = Held(key=job.key, pid=peer.pid, began=held_since) if ticket.image else None
    return Answered(reply=reply, held=held)
