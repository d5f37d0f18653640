"""The site's rules for a machine that is made without the host service.

They keep an honest user from what the site does not want. Who can start QEMU himself can pass them
by; what must hold for everybody is enforced by the host service.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from mayfly.config import Paths
from mayfly.engine.jobs import Job
from mayfly.engine.records import is_alive, list_records
from mayfly.host.permission import Permit, gate_of, person_of
from mayfly.model import NetworkMode, State
from mayfly.policy.model import Ask, Wish
from mayfly.wiring import catalogue_of

GONE = (State.KEPT, State.STOPPING, State.GONE)


def permitted(paths: Paths, job: Job, *, network_asked: bool, note: Callable[[str], None]) -> Job:
    """Give the job as it is allowed; raises ``Denied`` or ``Untrusted``."""
    permit = gate_of(paths).permit(
        person_of(job.account),
        _wish(paths, job, network_asked=network_asked),
        catalogue_of(paths),
        datetime.now(UTC),
    )
    for text in permit.notes:
        note(text)
    return _with(job, permit)


def _wish(paths: Paths, job: Job, *, network_asked: bool) -> Wish:
    spec = job.spec
    own = [each for each in list_records(paths.machines) if each.state not in GONE]
    return Wish(
        ask=Ask.IMAGE,
        image=spec.image,
        network=spec.network,
        network_asked=network_asked,
        root=job.request.root,
        shares=bool(job.shares),
        cpus=spec.shape.cpus,
        memory_mib=spec.shape.memory_mib,
        time_s=job.request.time_limit_s or 0.0,
        machines=sum(is_alive(each) for each in own),
    )


def _with(job: Job, permit: Permit) -> Job:
    allow = job.spec.allow if permit.network is NetworkMode.RESTRICTED else ()
    limit_s = job.request.time_limit_s or permit.limits.time_s or None
    return replace(
        job,
        spec=replace(job.spec, image=permit.image, network=permit.network, allow=allow),
        request=replace(job.request, time_limit_s=limit_s),
        may_root=permit.may_root,
    )
