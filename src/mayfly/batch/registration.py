"""Root's part: register a job with the host service of this host, and take that back."""

from __future__ import annotations

import contextlib
import pwd
from typing import Any

from mayfly.batch.groups import groups_of
from mayfly.batch.job import BatchJob, Ticket, refused
from mayfly.batch.settings import BatchSettings
from mayfly.batch.wish import Wish
from mayfly.errors import Conflict, Denied, MayflyError
from mayfly.host import client
from mayfly.model import NetworkMode
from mayfly.policy.model import Ask

GROUPS_MOST = 1024


def register(job: BatchJob, wish: Wish, settings: BatchSettings) -> Ticket:
    """Get a job its right, as the site's policy has it; never raises a ``MayflyError``.

    What kept it from one stands in the ticket: the starter, which has the job's own standard error,
    says it, and knows what is to become of the job.
    """
    try:
        if not settings.enabled:
            return _switched_off(job, wish)
        answer = _register(job, wish, settings)
    except MayflyError as error:
        return refused(job, error)
    return Ticket(
        system=job.system,
        job=job.job,
        key=job.key,
        image=str(answer.get("image", "")),
        network=str(answer.get("network", NetworkMode.NONE.value)),
        network_asked=wish.network is not None,
        allow=wish.allow,
        root=wish.root,
        shares=wish.shares,
        live=bool(answer.get("live", False)),
        keep=wish.keep,
        restart=job.restart,
        shared=job.shared,
    )


def _switched_off(job: BatchJob, wish: Wish) -> Ticket:
    if wish.ask in (Ask.NOTHING, Ask.NATIVE):
        return Ticket(system=job.system, job=job.job, key=job.key, restart=job.restart)
    raise Denied(
        "machines for jobs are switched off at this site",
        hint="submit the job without one, or ask the site's admin",
    )


def _register(job: BatchJob, wish: Wish, settings: BatchSettings) -> dict[str, Any]:
    fields = {"right": job.right(), "asked": asked_of(job, wish)}
    with contextlib.closing(_connect(settings)) as connection:
        try:
            return client.call(connection, "register", fields)[0]
        except Conflict:
            if job.shared:
                raise
            # An earlier try of the same job was cut short: what it had is nobody's any more.
            client.call(connection, "unregister", {"job": job.key})
            return client.call(connection, "register", fields)[0]


def unregister(key: str, settings: BatchSettings, *, one: bool = False) -> None:
    """Take a job's right back, ``CLUSTER/JOB/*`` of all its parts, and end their machines.

    ``one``: one of the processes that share it has ended, and it goes with the last one.

    Raises ``MayflyError``.
    """
    connection = client.connect(settings.socket, patience_s=client.RESTART_S)
    if connection is None:
        # Without a service there are no machines of it, or it will see by itself that they ended.
        return
    with contextlib.closing(connection):
        client.call(connection, "unregister", {"job": key, "one": one})


def _connect(settings: BatchSettings) -> client.Connection:
    connection = client.connect(settings.socket, patience_s=client.RESTART_S)
    return client.require(settings.socket) if connection is None else connection


def asked_of(job: BatchJob, wish: Wish) -> dict[str, Any]:
    """Give what the host service is asked to decide for a job."""
    user, groups = names_of(job.uid)
    network = wish.network or NetworkMode.NONE
    return {
        "ask": wish.ask.value,
        "image": wish.image,
        "network": network.value,
        "network_asked": wish.network is not None,
        "root": wish.root,
        "shares": bool(wish.shares),
        "user": user,
        "groups": list(groups[:GROUPS_MOST]),
    }


def names_of(uid: int) -> tuple[str, tuple[str, ...]]:
    """Give the names of a user and of all his groups; a uid without a name gets one."""
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        return f"user{uid}", ()
    return entry.pw_name, groups_of(entry.pw_name, entry.pw_gid)
