"""Sizes and durations as people write them: ``512M``, ``2G``, ``90s``, ``10m``, ``8h``, ``2d``."""

from __future__ import annotations

import re

from mayfly.errors import Invalid

MIB = 1 << 20
GIB = 1 << 30
MEMORY_STEP_MIB = 128
MEMORY_LEAST_MIB = 256

_SIZE = {"": 1, "K": 1 << 10, "M": MIB, "G": GIB, "T": 1 << 40}
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def parse_size(text: str) -> int:
    """Read a size, in bytes; units are powers of 1024 (``1G`` = 1 GiB = ``1GiB``)."""
    match = re.fullmatch(r"([0-9]{1,15})\s*(?:B|([KMGT])(?:I?B)?)?", text.strip().upper())
    if match is None:
        raise Invalid(f"'{text}' is not a size", hint="write it as 512M or 2G")
    return int(match[1]) * _SIZE[match[2] or ""]


def parse_duration(text: str) -> float:
    """Read a duration in seconds: ``90s``, ``10m``, ``1h30m``, ``2d``; a bare number is seconds."""
    plain = text.strip().lower()
    if re.fullmatch(r"[0-9]{1,9}", plain):
        return float(plain)
    parts = re.findall(r"([0-9]{1,9})([smhdw])", plain)
    if not parts or "".join(a + b for a, b in parts) != plain:
        raise Invalid(f"'{text}' is not a duration", hint="write it as 90s, 10m, 1h30m or 2d")
    return float(sum(int(number) * _SECONDS[unit] for number, unit in parts))


def show_size(count: int) -> str:
    """Give a size for people, three digits at most."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 999.5 or unit == "TiB":
            return f"{value:.0f} {unit}" if value >= 9.95 or unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError("unreachable")


def show_duration(seconds: float) -> str:
    """Give a duration for people: ``0.42 s``, ``12 s``, ``1h 30m``."""
    if seconds < 10:
        return f"{seconds:.2f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    words = [(days, "d"), (hours, "h"), (minutes, "m"), (rest, "s")]
    shown = [f"{value}{unit}" for value, unit in words if value]
    return " ".join(shown[:2])


def round_memory(size: int) -> int:
    """Give a machine's memory, in MiB, for a wish in bytes: up to the next 128 MiB, 256 at least.

    Sizes are rounded so that templates, one per size, are few.
    """
    if size > 1 << 44:
        raise Invalid(f"{size} bytes of memory cannot be meant")
    steps = -(-size // (MEMORY_STEP_MIB * MIB))
    return max(MEMORY_LEAST_MIB, steps * MEMORY_STEP_MIB)
