"""Ends of batch jobs: their rights are taken back, their machines end, nothing of them stays.

Root's hook says when a job has ended. Should nobody say so, its cgroups tell: when none of its
steps is there any more, it has.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from mayfly.host import cgroups
from mayfly.host.loop import Task, Wait
from mayfly.host.state import Service
from mayfly.host.watching import end
from mayfly.model import State

LOOK_S = 5.0
CLEAR_S = 15.0
MOMENT_S = 0.1

log = logging.getLogger("mayfly.host")


def end_jobs(service: Service, keys: Iterable[str], reason: str) -> None:
    """Take rights back and end what was had by them; machines that were kept stay."""
    these = set(keys)
    for key in these:
        right = service.rights.find(key)
        service.rights.unregister(key)
        service.registered.pop(key, None)
        if right is not None and right.shared and right.cgroup:
            service.loop.spawn(_clear(service, key, right.cgroup))
    for hosted in service.table:
        if hosted.record.job in these and not _is_kept(hosted.record.state):
            end(service, hosted, reason)


def _is_kept(state: State) -> bool:
    return state is State.KEPT


def one_less(service: Service, key: str) -> bool:
    """Note that one of a job's processes that are registered has ended; tell if it was the last."""
    service.registered[key] -= 1
    used = any(one.sessions for one in service.table if one.record.job == key)
    return service.registered[key] <= 0 and not used


def watch_jobs(service: Service) -> None:
    """See, now and every few seconds, which jobs have ended without a word."""
    shared = [right for right in service.rights.all() if right.shared and right.cgroup]
    seen = {right.key for right in shared if cgroups.has_ended(right.cgroup)}
    # Not at the first look: just now root's hook may be about to say so.
    over, service.over = sorted(seen & service.over), seen
    if over:
        log.warning("jobs have ended without a word: %s", ", ".join(over))
        end_jobs(service, over, "its job is not there any more")
    service.loop.later(LOOK_S, lambda: watch_jobs(service))


def _clear(service: Service, key: str, cgroup: str) -> Task:
    """Remove the cgroups that were made for a machine, when that has ended."""
    for _ in range(round(CLEAR_S / MOMENT_S)):
        yield Wait(seconds=MOMENT_S)
        if any(one.record.job == key and one.machine is not None for one in service.table):
            continue
        # A job that was begun again meanwhile has the same cgroup, with what is living.
        again = any(right.cgroup == cgroup for right in service.rights.all())
        if again or cgroups.clear(cgroup):
            return
    log.warning("the cgroup %s of job %s cannot be removed", cgroup, key)
