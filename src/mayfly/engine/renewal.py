"""What makes a clone another machine than its template, and the proof that it did: pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from mayfly.errors import Failed

CLOCK_TOLERANCE_S = 2.0
"""Between the host sending the time and its reading of the answer; an overloaded host is slow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A machine's own identity, drawn on the host."""

    epoch: UUID
    boot_id: UUID
    machine_id: str
    hostname: str
    seed: bytes
    host_key: tuple[str, str] | None
    """Private and public ssh host key, when the guest has an ssh server."""


def renew_request(identity: Identity, now_ns: int) -> dict[str, Any]:
    """Give the message that renews a clone."""
    key = identity.host_key
    return {
        "type": "renew",
        "epoch": str(identity.epoch),
        "boot_id": str(identity.boot_id),
        "machine_id": identity.machine_id,
        "hostname": identity.hostname,
        "seed": identity.seed.hex(),
        "time_ns": now_ns,
        "host_key": None if key is None else {"private": key[0], "public": key[1]},
    }


def check_renewed(
    answer: Mapping[str, Any], identity: Identity, known: tuple[str, ...], clock: tuple[int, int]
) -> None:
    """Compare what the clone says it is now with what it was told.

    ``known`` are random numbers that it must not show; ``clock`` is the host's time before and
    after, in ns. Raises ``Failed`` unless everything is its own.
    """
    told = {
        "boot_id": str(identity.boot_id),
        "machine_id": identity.machine_id,
        "hostname": identity.hostname,
    }
    for name, value in told.items():
        if answer.get(name) != value:
            raise Failed(f"the machine could not be made unique: its {name} is still another's")
    random = answer.get("random")
    if not isinstance(random, str) or len(random) < 32 or random in known:
        raise Failed("the machine could not be made unique: its random numbers repeat")
    time_ns = answer.get("time_ns")
    slack = int(CLOCK_TOLERANCE_S * 1e9)
    if not isinstance(time_ns, int) or not clock[0] - slack <= time_ns <= clock[1] + slack:
        raise Failed(f"the machine's clock could not be set: it says {time_ns}")
