"""What a site may set for the host service, in ``host.toml``.

A field that ends in ``_mib`` or ``_bytes`` is written as a size (``"512M"``) and one that ends in
``_s`` as a duration (``"8h"``), both without that ending: ``memory_mib`` is ``memory = "512M"``.
``docs/reference/host-settings.md`` has a line for each.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar, cast, get_type_hints

from mayfly.config import UID_LEAST, UID_MOST, Settings
from mayfly.errors import Invalid, Missing
from mayfly.units import MIB, parse_duration, parse_size

HOST_CONFIG = Path("/etc/mayfly/host.toml")
UIDS = 65_536
"""How many uids the machines of one service have."""
OVERCOMMIT_MOST = 100.0
SOCKET_PATH_MOST = 107
"""Bytes of a unix socket's path, at most (unix(7))."""
WHOLE_MOST = (1 << 32) - 1
_UNITS = ("_mib", "_bytes", "_s")

T = TypeVar("T")


class Requests(StrEnum):
    """Who may ask for machines."""

    ANYONE = "anyone"
    LISTED = "listed"
    """The users and groups that are named."""
    REGISTERED = "registered"
    """Only for a job that root has registered."""


class Sharing(StrEnum):
    """Whose machines may share the memory of one template."""

    HOST = "host"
    NONE = "none"


def _positive(default: int) -> Any:
    return field(default=default, metadata={"least": 1})


@dataclass(frozen=True, slots=True, kw_only=True)
class Amounts:
    """Limits of one user; 0: no limit."""

    machines: int = 0
    cpus: int = 0
    memory_mib: int = 0
    disk_mib: int = 0


NO_LIMIT = Amounts()


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of all users together (0: no limit), of each of them, and of the line."""

    machines: int = 0
    cpus: int = 0
    memory_mib: int = 0
    disk_mib: int = 0
    waiting: int = 1000
    """Requests that may wait."""
    line_user: int = 200
    """Requests of one user that may wait."""
    user: Amounts = NO_LIMIT


@dataclass(frozen=True, slots=True, kw_only=True)
class Standby:
    """An image of which machines wait, started, for a job."""

    image: str
    cpus: int = _positive(1)
    memory_mib: int = _positive(512)
    least: int = 1
    most: int = _positive(4)
    queues: tuple[str, ...] = ()
    """Queues of the batch system whose default image this is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """The quota of kept and suspended machines."""

    machines: int = 20
    disk_mib: int = 20 * 1024
    for_s: float = 86_400.0
    user_machines: int = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Logs:
    """The quota of what machines said."""

    size_bytes: int = 200 * MIB
    for_s: float = 14 * 86_400.0
    machine_bytes: int = MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """What a machine is promised of the host's disk."""

    room_mib: int = _positive(2048)
    """Growth of a machine's disk, where its request says nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSettings:
    """All settings of the host service."""

    socket: Path = Path("/run/mayfly/host.sock")
    state: Path = Path("/var/lib/mayfly/host")
    requests: Requests = Requests.ANYONE
    users: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    site_user: str = ""
    """Who makes and ends machines for others: the user of the site server."""
    allow_emulation: bool = False
    uid_first: int = 0x6D62_0000
    overcommit: float = 1.0
    """Memory that is promised, for each byte that there is."""
    reserve_memory_mib: int = 1024
    """Kept for the host itself."""
    sharing: Sharing = Sharing.HOST
    admin_access: bool = False
    """Whether root may enter machines of users."""
    collect: Path | None = None
    """A program of the site that is called with the directory of an ended machine's logs."""
    metrics_file: Path | None = None
    trust_update_s: float = 300.0
    """How often image lists are asked for."""
    limits: Limits = Limits()
    standby: tuple[Standby, ...] = ()
    kept: Kept = Kept()
    logs: Logs = Logs()
    disk: Disk = Disk()


@dataclass(frozen=True, slots=True, kw_only=True)
class Spot:
    """A place in the file: a table, or a key of one."""

    file: Path
    table: str = ""
    key: str = ""

    def __str__(self) -> str:
        table = f", {self.table}" if self.table else ""
        return f"{self.file}{table}" + (f": '{self.key}'" if self.key else "")

    def within(self) -> Spot:
        """Give the table that this key stands for."""
        outer = self.table.strip("[]")
        return Spot(file=self.file, table=f"[{outer}.{self.key}]" if outer else f"[{self.key}]")


def load_host_settings(file: Path | None) -> HostSettings:
    """Read ``host.toml``; without a file, everything is at its default.

    Raises ``Missing`` when there is no such file, and ``Invalid``, naming file and key, on anything
    unknown, of the wrong type or no choice.
    """
    if file is None:
        return HostSettings()
    try:
        values = tomllib.loads(file.read_text("utf-8"))
    except FileNotFoundError as error:
        raise Missing(f"there is no {file}", hint="the service also runs without one") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Invalid(f"{file} is not TOML: {error}") from error
    except OSError as error:
        raise Invalid(f"cannot read {file}: {error.strerror}") from error
    settings = _table(HostSettings, Spot(file=file), values)
    _check_whole(file, settings)
    return settings


def check_uids_apart(host: HostSettings, settings: Settings) -> None:
    """Refuse one uid range for the service and for machines that root starts without it.

    Two QEMUs of one uid could read each other's memory. Raises ``Invalid``.
    """
    if abs(host.uid_first - settings.uid_first) < UIDS:
        raise Invalid(
            f"'uid_first' of the host service ({host.uid_first}) and of config.toml "
            f"({settings.uid_first}) are less than {UIDS} apart",
            hint="set one of them to numbers that nothing else uses",
        )


# --- one table -----------------------------------------------------------------------------------


def _table(kind: type[T], spot: Spot, values: Mapping[str, object]) -> T:
    """Make a dataclass of a TOML table."""
    known: dict[str, Field[Any]] = {_key(item.name): item for item in fields(cast(Any, kind))}
    hints = get_type_hints(kind)
    read: dict[str, Any] = {}
    for key, value in values.items():
        if key not in known:
            raise Invalid(f"{spot}: no such setting '{key}'", hint=f"known: {', '.join(known)}")
        item = known[key]
        read[item.name] = _value(replace(spot, key=key), hints[item.name], item, value)
    for key, item in known.items():
        if item.default is MISSING and item.name not in read:
            raise Invalid(f"{spot}: '{key}' must be given")
    return kind(**read)


def _key(name: str) -> str:
    """Give the TOML key of a field: its name without the unit."""
    for unit in _UNITS:
        name = name.removesuffix(unit)
    return name


def _value(spot: Spot, hint: Any, item: Field[Any], value: object) -> object:
    least = int(item.metadata.get("least", 0))
    if item.name.endswith("_mib"):
        return _size(spot, value, least=least, unit=MIB)
    if item.name.endswith("_bytes"):
        return _size(spot, value, least=least, unit=1)
    if item.name.endswith("_s"):
        return _duration(spot, value)
    if hint is int:
        return _whole(spot, value, least)
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return _choice(spot, value, hint)
    reader = _READERS.get(hint)
    return reader(spot, value) if reader else _inner(spot, value, hint)


def _inner(spot: Spot, value: object, kind: type[Any]) -> object:
    if not isinstance(value, dict):
        raise Invalid(f"{spot} must be a table [{spot.key}], not {value!r}")
    return _table(kind, spot.within(), value)


def _standbys(spot: Spot, value: object) -> tuple[Standby, ...]:
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise Invalid(f"{spot} must be tables [[standby]], not {value!r}")
    return tuple(_standby(spot, number, each) for number, each in enumerate(value, start=1))


def _standby(spot: Spot, number: int, values: Mapping[str, object]) -> Standby:
    inner = Spot(file=spot.file, table=f"[[standby]] number {number}")
    standby = _table(Standby, inner, values)
    if not standby.image:
        raise Invalid(f"{inner}: 'image' must name an image")
    if standby.most < standby.least:
        raise Invalid(
            f"{inner}: 'most' ({standby.most}) must not be below 'least' ({standby.least})"
        )
    return standby


# --- one value -----------------------------------------------------------------------------------


def _size(spot: Spot, value: object, *, least: int, unit: int) -> int:
    if not isinstance(value, str):
        raise Invalid(f'{spot} must be a size such as "512M", not {value!r}')
    try:
        size = parse_size(value)
    except Invalid as error:
        raise Invalid(f"{spot}: {error.message}", hint=error.hint) from error
    # Less than a unit is more likely a forgotten letter than a wish.
    if size < least * unit or 0 < size < unit:
        raise Invalid(f"{spot} must be 1M or more, not {value}")
    return size // unit


def _duration(spot: Spot, value: object) -> float:
    if not isinstance(value, str):
        raise Invalid(f'{spot} must be a duration such as "8h", not {value!r}')
    try:
        seconds = parse_duration(value)
    except Invalid as error:
        raise Invalid(f"{spot}: {error.message}", hint=error.hint) from error
    if seconds <= 0:
        raise Invalid(f"{spot} must be longer than nothing, not {value}")
    return seconds


def _whole(spot: Spot, value: object, least: int) -> int:
    # In Python, true is a number.
    if not isinstance(value, int) or isinstance(value, bool):
        raise Invalid(f"{spot} must be a whole number, not {value!r}")
    first, last = least, WHOLE_MOST
    if spot.key == "uid_first":
        first, last = UID_LEAST, UID_MOST
    if not first <= value <= last:
        raise Invalid(f"{spot} must be from {first} to {last}, not {value}")
    return value


def _factor(spot: Spot, value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise Invalid(f"{spot} must be a number, not {value!r}")
    if not 1 <= value <= OVERCOMMIT_MOST:
        raise Invalid(f"{spot} must be from 1.0 to {OVERCOMMIT_MOST}, not {value}")
    return float(value)


def _flag(spot: Spot, value: object) -> bool:
    if not isinstance(value, bool):
        raise Invalid(f"{spot} must be true or false, not {value!r}")
    return value


def _text(spot: Spot, value: object) -> str:
    if not isinstance(value, str):
        raise Invalid(f"{spot} must be text, not {value!r}")
    return value


def _path(spot: Spot, value: object) -> Path:
    text = _text(spot, value)
    if not text.startswith("/") or "\0" in text:
        raise Invalid(f"{spot} must be a path from / on, not {value!r}")
    if spot.key == "socket" and len(text.encode()) > SOCKET_PATH_MOST:
        raise Invalid(f"{spot} must have at most {SOCKET_PATH_MOST} bytes, not {len(text)}")
    return Path(text)


def _names(spot: Spot, value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(each, str) and each for each in value):
        raise Invalid(f'{spot} must be a list of names such as ["a", "b"], not {value!r}')
    return tuple(value)


def _choice(spot: Spot, value: object, kind: type[StrEnum]) -> StrEnum:
    for choice in kind:
        if value == choice.value:
            return choice
    choices = ", ".join(choice.value for choice in kind)
    raise Invalid(f"{spot} must be one of {choices}, not {value!r}")


_READERS: dict[Any, Callable[[Spot, object], object]] = {
    bool: _flag,
    float: _factor,
    str: _text,
    Path: _path,
    Path | None: _path,
    tuple[str, ...]: _names,
    tuple[Standby, ...]: _standbys,
}


# --- what several keys say together --------------------------------------------------------------


def _check_whole(file: Path, settings: HostSettings) -> None:
    named = bool(settings.users or settings.groups)
    listed = settings.requests is Requests.LISTED
    if listed and not named:
        raise Invalid(f"{file}: 'requests' is \"listed\", but 'users' and 'groups' name nobody")
    if named and not listed:
        # Else a site would believe that its list keeps others out.
        raise Invalid(
            f"{file}: 'users' and 'groups' have no effect with 'requests' = "
            f'"{settings.requests.value}"',
            hint='write requests = "listed"',
        )
    seen: set[tuple[str, int, int]] = set()
    for standby in settings.standby:
        which = (standby.image, standby.cpus, standby.memory_mib)
        if which in seen:
            raise Invalid(f"{file}: [[standby]] has '{standby.image}' in one size twice")
        seen.add(which)
