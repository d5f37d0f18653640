"""What a guest's CPU can do under a QEMU, and whether a guest that ran elsewhere finds it here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mayfly.engine.monitor import Monitor

MODELS = {"kvm": "host", "tcg": "max"}
"""QEMU's name for all that an accelerator can do."""
SAME_UNDER_KVM = ("vendor", "family", "model")
"""Guests choose remedies for faults of the CPU by these when they boot."""
NOT_MISSED = frozenset({"pcommit"})
"""Instructions that no CPU has ever had: later QEMUs do not know them any more."""


def cpu_of(monitor: Monitor, accelerator: str) -> dict[str, Any]:
    """Give what a guest's CPU can do, by QEMU's names of CPU features."""
    asked = {"type": "static", "model": {"name": MODELS[accelerator]}}
    found: dict[str, Any] = monitor.call("query-cpu-model-expansion", asked)["model"]["props"]
    return found


def lacking(wanted: Mapping[str, Any], here: Mapping[str, Any], accelerator: str) -> list[str]:
    """Name what a guest has seen of its CPU and would not find here; pure."""
    names = [
        name
        for name, value in wanted.items()
        if value is True and here.get(name) is not True and name not in NOT_MISSED
    ]
    if accelerator == "kvm":
        names += [
            f"{name} {wanted.get(name)}"
            for name in SAME_UNDER_KVM
            if wanted.get(name) != here.get(name)
        ]
    return sorted(names)
