"""What a client asks for, checked: nothing in it says who the client is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mayfly.errors import Invalid
from mayfly.model import NetworkMode, Shape

LABEL_LENGTH = 200
PATH_LENGTH = 4096
SHARES_MOST = 64
ALLOW_MOST = 256
ALLOW_BYTES = 1 << 14
"""Of all of them: they are part of what is told of a machine."""
LIFE_MOST_S = 10 * 365 * 86_400.0
CPUS_MOST = 255
DISK_MOST_MIB = 1 << 30
MEMORY_LEAST_MIB, MEMORY_MOST_MIB = 64, 1 << 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A machine as a client wants it."""

    image: str
    shape: Shape | None
    """None: what the job was granted, as far as a machine can have it."""
    network: NetworkMode
    allow: tuple[str, ...]
    shares: tuple[tuple[str, bool], ...]
    """Path in the machine, and whether it is read-only; the client itself serves them."""
    wait: bool
    """Whether to wait in line when it does not fit now."""
    outlive: bool
    """Whether it stays when the client ends."""
    disk_mib: int | None
    """How much its disk may grow; None: as the host has it."""
    life_s: float | None
    """For how long at most, in seconds."""
    label: str
    job: str
    """Key of the batch job's right, or ""."""
    user: str = ""
    """For whom the site server asks; empty: for whoever connected."""
    lease: str = ""
    """Of the site server; a lease has one machine."""
    root: bool = False
    """Whether the job is to be root in the machine."""
    network_asked: bool = True
    """Whether the user asked for the network himself; else a setting did."""


def parse_wish(message: Mapping[str, Any]) -> Wish:
    """Read a claim; raises ``Invalid`` naming what is wrong."""
    if message.get("outlive") and message.get("shares"):
        raise Invalid("a machine that stays cannot have shares: the client serves them")
    return Wish(
        image=_text(message, "image", 200),
        shape=_shape(message),
        network=_network(message),
        allow=_allow(message),
        shares=tuple(_share(item) for item in _list(message, "shares", SHARES_MOST)),
        wait=_flag(message, "wait", default=True),
        outlive=_flag(message, "outlive", default=False),
        disk_mib=(
            None
            if message.get("disk_mib") is None
            else _number(message, "disk_mib", 1, DISK_MOST_MIB)
        ),
        life_s=_seconds(message, "life_s"),
        label=_label(message),
        job=_text(message, "job", 200) if message.get("job") else "",
        user=_text(message, "user", 64) if message.get("user") else "",
        lease=_text(message, "lease", 64) if message.get("lease") else "",
        root=_flag(message, "root", default=False),
        network_asked=_flag(message, "network_asked", default=True),
    )


def _shape(message: Mapping[str, Any]) -> Shape | None:
    if message.get("job") and message.get("cpus") is None and message.get("memory_mib") is None:
        return None
    return Shape(
        cpus=_number(message, "cpus", 1, CPUS_MOST),
        memory_mib=_number(message, "memory_mib", MEMORY_LEAST_MIB, MEMORY_MOST_MIB),
    )


def text_of(message: Mapping[str, Any], key: str, longest: int = 200) -> str:
    """Give a text that must be there; raises ``Invalid``."""
    return _text(message, key, longest)


def _text(message: Mapping[str, Any], key: str, longest: int) -> str:
    value = message.get(key)
    if not isinstance(value, str) or not 0 < len(value) <= longest or "\0" in value:
        raise Invalid(f"the request's '{key}' must be a text of 1 to {longest} characters")
    return value


def _number(message: Mapping[str, Any], key: str, least: int, most: int) -> int:
    value = message.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise Invalid(f"the request's '{key}' must be a whole number from {least} to {most}")
    return value


def _seconds(message: Mapping[str, Any], key: str) -> float | None:
    value = message.get(key)
    if value is None:
        return None
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 < value <= LIFE_MOST_S:
        raise Invalid(f"the request's '{key}' must be seconds above 0")
    return float(value)


def _flag(message: Mapping[str, Any], key: str, *, default: bool) -> bool:
    value = message.get(key, default)
    if not isinstance(value, bool):
        raise Invalid(f"the request's '{key}' must be true or false")
    return value


def _list(message: Mapping[str, Any], key: str, most: int) -> list[Any]:
    value = message.get(key, [])
    if not isinstance(value, list) or len(value) > most:
        raise Invalid(f"the request's '{key}' must be a list of at most {most}")
    return value


def _label(message: Mapping[str, Any]) -> str:
    value = message.get("label", "")
    if not isinstance(value, str):
        raise Invalid("the request's 'label' must be a text")
    return value[:LABEL_LENGTH]


def _allow(message: Mapping[str, Any]) -> tuple[str, ...]:
    entries = _texts(message, "allow", ALLOW_MOST)
    if sum(len(entry.encode("utf-8", "replace")) for entry in entries) > ALLOW_BYTES:
        raise Invalid(f"the request's 'allow' must have at most {ALLOW_BYTES} bytes in all")
    return tuple(entries)


def _texts(message: Mapping[str, Any], key: str, most: int) -> list[str]:
    values = _list(message, key, most)
    if not all(isinstance(value, str) and len(value) <= PATH_LENGTH for value in values):
        raise Invalid(f"the request's '{key}' must be a list of texts")
    return values


def _network(message: Mapping[str, Any]) -> NetworkMode:
    value = message.get("network", NetworkMode.NONE.value)
    try:
        return NetworkMode(value)
    except ValueError:
        modes = ", ".join(mode.value for mode in NetworkMode)
        raise Invalid(f"the request's 'network' must be one of {modes}") from None


def _share(item: object) -> tuple[str, bool]:
    if not isinstance(item, dict):
        raise Invalid("each of the request's 'shares' must be an object")
    path = _text(item, "path", PATH_LENGTH)
    if not path.startswith("/"):
        raise Invalid("the path of each of the request's 'shares' must begin with /")
    return path, _flag(item, "read_only", default=False)
