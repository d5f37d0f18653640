"""What a client asks for when it wants a machine: one place that writes it down."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def claim_request(
    *,
    image: str,
    size: tuple[int, int] | None,
    network: str,
    label: str,
    job: str = "",
    **more: Any,
) -> dict[str, Any]:
    """Give the fields of a claim; ``size`` is CPUs and MiB, None what the job was granted.

    ``more``: ``root``, ``allow``, ``shares``, ``disk_mib``, ``wait``, ``outlive``, ``life_s``,
    ``network_asked``.
    """
    cpus, memory_mib = size or (None, None)
    plain: dict[str, Any] = {
        "image": image,
        "cpus": cpus,
        "memory_mib": memory_mib,
        "network": network,
        "label": label,
        "job": job,
        "root": False,
        "allow": [],
        "shares": [],
        "disk_mib": None,
        "wait": True,
        "outlive": False,
        "life_s": None,
    }
    return {**plain, **more}


def paths_of(shares: Sequence[tuple[str, bool]]) -> list[dict[str, Any]]:
    """Give shared directories as a claim has them."""
    return [{"path": path, "read_only": read_only} for path, read_only in shares]
