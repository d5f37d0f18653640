"""Read what a site says of its pool and its providers: ``[pool]`` and ``[provider.NAME]`` in TOML.

Every error names file and line. ``docs/reference/pools.md`` has each key.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mayfly.errors import Invalid, Missing
from mayfly.model import Shape
from mayfly.planner.model import Ceiling, Offer, Rules
from mayfly.planner.price import refusal_of
from mayfly.tomllines import Path as KeyPath
from mayfly.tomllines import find_lines, line_of
from mayfly.units import MIB, parse_duration, parse_size

TEXT_MOST = 1 << 20
WHOLE_MOST = 10_000_000
OFFERS_MOST = 1000
CPUS_MOST = 4096
WINDOW_S = 30 * 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A pool and the places from which its workers come."""

    rules: Rules
    offers: tuple[Offer, ...]
    """``count`` is how many machines there may be at once."""
    patience_s: float = 0.0
    """How long a job waits before a worker is started for it."""
    budget: float | None = None
    """What the pool may cost in each window; None: no limit."""
    window_s: float = WINDOW_S
    by_price: bool = True
    """Whether the batch system fills cheap workers first."""

    @property
    def quotas(self) -> dict[str, int]:
        """Give the CPUs that providers give at once, where that is limited."""
        return {
            name: ceiling.cpus
            for name, ceiling in self.rules.quotas.items()
            if ceiling.cpus is not None
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Spot:
    """A place in the file."""

    file: str
    lines: Mapping[KeyPath, int]
    path: KeyPath

    def at(self, *keys: str | int) -> Spot:
        """Give a place within it."""
        return replace(self, path=(*self.path, *keys))

    def error(self, text: str, hint: str = "") -> Invalid:
        """Say what is wrong there."""
        name = ".".join(str(key) for key in self.path if isinstance(key, str))
        line = line_of(self.lines, self.path)
        return Invalid(f"{self.file}:{line}: '{name}' {text}", hint=hint)


Reader = Callable[[object, Spot], Any]


def read_site(file: Path) -> Site:
    """Read the file. Raises ``Missing`` and ``Invalid``."""
    try:
        with file.open("rb") as stream:
            raw = stream.read(TEXT_MOST + 1)
    except FileNotFoundError as error:
        raise Missing(f"there is no {file}") from error
    except OSError as error:
        raise Invalid(f"cannot read {file}: {error.strerror}") from error
    try:
        return parse_site(raw.decode(), str(file))
    except UnicodeDecodeError as error:
        raise Invalid(f"{file} is not TOML: {error}") from error


def parse_site(text: str, file: str) -> Site:
    """Read the tables in a text; other tables are left to others. Raises ``Invalid``."""
    if len(text) > TEXT_MOST:
        raise Invalid(f"{file} is longer than any settings: {len(text)} letters")
    try:
        values = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise Invalid(f"{file} is not TOML: {error}") from error
    spot = Spot(file=file, lines=find_lines(text.replace("\r\n", "\n")), path=())
    pool = _read(values.get("pool", {}), spot.at("pool"), {**_RULES, **_SITE})
    offers, quotas = _providers(values.get("provider"), spot.at("provider"))
    rules = Rules(quotas=quotas, **{key: pool[key] for key in pool if key not in _SITE_NAMES})
    return Site(
        rules=rules, offers=offers, **{key: pool[key] for key in pool if key in _SITE_NAMES}
    )


def _providers(value: object, spot: Spot) -> tuple[tuple[Offer, ...], dict[str, Ceiling]]:
    if not isinstance(value, dict) or not value:
        raise Invalid(
            f"{spot.file}: no provider is named", hint="write [provider.NAME] with its offers"
        )
    offers: list[Offer] = []
    quotas: dict[str, Ceiling] = {}
    for name, table in value.items():
        here = spot.at(name)
        read = _read(table, here, _PROVIDER)
        quotas[name] = Ceiling(machines=read.get("machines"), cpus=read.get("cpus"))
        rows = read.get("offer")
        if not rows:
            raise here.error("has no offer", hint=f"write [[provider.{name}.offer]]")
        offers += [_offer(row, here.at("offer", number), name) for number, row in enumerate(rows)]
    if len(offers) > OFFERS_MOST:
        raise Invalid(f"{spot.file}: {len(offers)} offers, which is more than {OFFERS_MOST}")
    names = [offer.name for offer in offers]
    for name in names:
        if names.count(name) > 1:
            raise Invalid(f"{spot.file}: two offers are called '{name}'")
    return tuple(offers), quotas


def _offer(value: object, spot: Spot, provider: str) -> Offer:
    read = _read(value, spot, _OFFER)
    for key in ("name", "cpus", "price_hour"):
        if key not in read:
            raise spot.error(f"lacks '{key}'")
    shape = Shape(cpus=read.pop("cpus"), memory_mib=read.pop("memory_mib", 0))
    name = f"{provider}/{read.pop('name')}"
    offer = Offer(name=name, provider=provider, shape=shape, **{"count": WHOLE_MOST, **read})
    # Whatever the sign or size of the price: here a person wrote it, and is told at once.
    why = refusal_of(offer, Rules())
    if why:
        raise spot.error(f"cannot be used: {why}")
    return offer


def _read(value: object, spot: Spot, known: Mapping[str, tuple[str, Reader]]) -> dict[str, Any]:
    """Read a table into the names of fields."""
    if not isinstance(value, dict):
        raise spot.error("must be a table")
    read = {}
    for key, inner in value.items():
        if key not in known:
            raise spot.at(key).error("is no key here", hint=f"known: {', '.join(known)}")
        field, reader = known[key]
        read[field] = reader(inner, spot.at(key))
    return read


# --- values --------------------------------------------------------------------------------------


def _whole(value: object, spot: Spot) -> int:
    if type(value) is not int or not 0 <= value <= WHOLE_MOST:
        raise spot.error(f"must be a whole number up to {WHOLE_MOST}, not {value!r}")
    return value


def _cpus(value: object, spot: Spot) -> int:
    if not 1 <= (count := _whole(value, spot)) <= CPUS_MOST:
        raise spot.error(f"must be from 1 to {CPUS_MOST}, not {count}")
    return count


def _number(value: object, spot: Spot) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise spot.error(f"must be a number, not {value!r}")
    if not math.isfinite(value) or value < 0 or value > 1e12:
        raise spot.error(f"must not be negative or endless, but is {value}")
    return float(value)


def _price(value: object, spot: Spot) -> float:
    # A negative one gets the words that a provider's would get.
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise spot.error(f"must be a number, not {value!r}")
    return float(value) if abs(value) < 1e12 else math.inf


def _share(value: object, spot: Spot) -> float:
    share = _number(value, spot)
    if share > 10:
        raise spot.error(f"must be a share such as 0.1, not {value!r}")
    return share


def _seconds(value: object, spot: Spot) -> float:
    if not isinstance(value, str):
        raise spot.error(f'must be a duration such as "5m", not {value!r}')
    try:
        return parse_duration(value)
    except Invalid as error:
        raise spot.error(f"is no duration: {error.message}", hint=error.hint) from error


def _some_seconds(value: object, spot: Spot) -> float:
    if (seconds := _seconds(value, spot)) <= 0:
        raise spot.error("must be longer than nothing")
    return seconds


def _memory(value: object, spot: Spot) -> int:
    if not isinstance(value, str):
        raise spot.error(f'must be a size such as "4G", not {value!r}')
    try:
        return parse_size(value) // MIB
    except Invalid as error:
        raise spot.error(f"is no size: {error.message}", hint=error.hint) from error


def _flag(value: object, spot: Spot) -> bool:
    if not isinstance(value, bool):
        raise spot.error(f"must be true or false, not {value!r}")
    return value


def _text(value: object, spot: Spot) -> str:
    if not isinstance(value, str) or not value.isprintable() or not value:
        raise spot.error(f"must be text, not {value!r}")
    return value


def _rows(value: object, spot: Spot) -> list[object]:
    if not isinstance(value, list):
        raise spot.error("must be tables [[...]]")
    return value


_SITE: dict[str, tuple[str, Reader]] = {
    "patience": ("patience_s", _seconds),
    "budget": ("budget", _number),
    "window": ("window_s", _some_seconds),
    "cheap_first": ("by_price", _flag),
}
_SITE_NAMES = {name for name, _ in _SITE.values()}
_RULES: dict[str, tuple[str, Reader]] = {
    "start_most": ("start_most", _whole),
    "stop_most": ("stop_most", _whole),
    "keep": ("keep_s", _seconds),
    "spare": ("spare_share", _share),
    "headroom": ("headroom_share", _share),
    "reserve": ("reserve_s", _seconds),
    "use": ("use_s", _some_seconds),
    "run": ("run_s", _some_seconds),
    "weight_price": ("weight_price", _number),
    "life": ("life_s", _some_seconds),
    "force_after": ("force_after_s", _seconds),
}
_PROVIDER: dict[str, tuple[str, Reader]] = {
    "machines": ("machines", _whole),
    "cpus": ("cpus", _whole),
    "offer": ("offer", _rows),
}
_OFFER: dict[str, tuple[str, Reader]] = {
    "name": ("name", _text),
    "cpus": ("cpus", _cpus),
    "memory": ("memory_mib", _memory),
    "price_hour": ("price_hour", _price),
    "count": ("count", _whole),
    "boot": ("boot_s", _seconds),
    "billing_least": ("billing_least_s", _seconds),
    "billing_step": ("billing_step_s", _some_seconds),
    "interruptions_hour": ("interruptions_hour", _number),
    "weight_hour": ("weight_hour", _number),
}
