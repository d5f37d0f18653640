"""Leases for tests."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mayfly.model import Shape, State
from mayfly.site.lease import Lease, Purpose, Spec, Wanted

NOW = 1_700_000_000.0
HOUR = 3600.0

SPEC = Spec(image="debian-12", shape=Shape(cpus=1, memory_mib=512))
WISHED = Lease(
    id="01890000-0000-7000-8000-000000000001",
    owner="alice",
    group="physics",
    name="build1",
    purpose=Purpose.PERSONAL,
    spec=SPEC,
    created_at=NOW,
    starts_at=NOW,
    expires_at=NOW + 8 * HOUR,
)
RUNNING = replace(
    WISHED,
    state=State.RUNNING,
    machine="m1",
    host_keys=("ssh-ed25519 AAAA",),
    wanted=Wanted.RUNNING,
)


def lease(number: int = 1, **changes: Any) -> Lease:
    """Give a lease that is wanted; with another number, another one."""
    fresh = f"01890000-0000-7000-8000-{number:012d}"
    return replace(WISHED, **{"id": fresh, "name": f"build{number}", **changes})
