"""What makes a machine another than the one its memory comes from, and the proof of it: pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
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
    check_fresh(answer, known, clock)


def refresh_request(epoch: UUID, seed: bytes, now_ns: int) -> dict[str, Any]:
    """Give the message that a machine needs whose memory is that of an earlier moment."""
    return {"type": "refresh", "epoch": str(epoch), "seed": seed.hex(), "time_ns": now_ns}


def check_fresh(answer: Mapping[str, Any], known: Collection[str], clock: tuple[int, int]) -> None:
    """Compare a sample with random numbers that must not come again, and with the host's clock.

    Raises ``Failed`` unless it is another, and at the right time.
    """
    random = answer.get("random")
    if not isinstance(random, str) or len(random) < 32 or random in known:
        raise Failed("the machine could not be made unique: its random numbers repeat")
    time_ns = answer.get("time_ns")
    slack = int(CLOCK_TOLERANCE_S * 1e9)
    if not isinstance(time_ns, int) or not clock[0] - slack <= time_ns <= clock[1] + slack:
        raise Failed(f"the machine's clock could not be set: it says {time_ns}")
