"""Read a policy: the table ``[policy]`` of a TOML file. Every error names file and line."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from mayfly.errors import Invalid, Missing
from mayfly.model import NetworkMode
from mayfly.policy.model import (
    Allow,
    Default,
    Deny,
    EndOfLife,
    Limits,
    Line,
    Mode,
    OldImages,
    Policy,
    Revoked,
    Rule,
)
from mayfly.policy.people import Who, parse_who
from mayfly.tomllines import Path as KeyPath
from mayfly.tomllines import find_lines, line_of
from mayfly.units import MIB, parse_duration, parse_size

POLICY_FILE = Path("/etc/mayfly/policy.toml")
SECTION = "policy"
TEXT_MOST = 1 << 20
WHOLE_MOST = (1 << 32) - 1

BUILT_IN = """\
[policy]
endorsed = "optional"

[[policy.allow]]
who = ["*"]
images = ["*"]
networks = ["none", "restricted", "open"]
root = true
shares = true
end_of_life = "as-usual"
"""
"""What holds where a site has written nothing: its images are for all its users."""

S = TypeVar("S", bound=StrEnum)
T = TypeVar("T")


def read_policy(file: Path | None) -> Policy:
    """Read a policy; without a file, the one that is built in. Raises ``Invalid``, ``Missing``."""
    if file is None:
        return parse_policy(BUILT_IN, "built-in policy")
    try:
        text = file.read_text("utf-8")
    except FileNotFoundError as error:
        raise Missing(f"there is no {file}") from error
    except UnicodeDecodeError as error:
        raise Invalid(f"{file} is not TOML: {error}") from error
    except OSError as error:
        raise Invalid(f"cannot read {file}: {error.strerror}") from error
    return parse_policy(text, str(file))


def parse_policy(text: str, file: str) -> Policy:
    """Read the policy in a text; other tables are left to others. Raises ``Invalid``."""
    if len(text) > TEXT_MOST:
        raise Invalid(f"{file} is longer than any policy: {len(text)} letters")
    try:
        values = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise Invalid(f"{file} is not TOML: {error}") from error
    section = values.get(SECTION, {})
    # As tomllib does, so that lines are counted alike.
    spot = _Spot(file=file, lines=find_lines(text.replace("\r\n", "\n")), path=(SECTION,))
    return _policy(_Table.of(section, spot))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Spot:
    """A place in the file."""

    file: str
    lines: Mapping[KeyPath, int]
    path: KeyPath

    def at(self, *keys: str | int) -> _Spot:
        return _Spot(file=self.file, lines=self.lines, path=(*self.path, *keys))

    def line(self) -> Line:
        return Line(file=self.file, number=line_of(self.lines, self.path))

    def error(self, text: str, hint: str = "") -> Invalid:
        return Invalid(f"{self.line()}: {text}", hint=hint)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    """A table that is read key by key; what is left at the end is unknown."""

    values: dict[str, Any]
    spot: _Spot

    @classmethod
    def of(cls, value: object, spot: _Spot) -> _Table:
        if not isinstance(value, dict):
            raise spot.error(f"'{spot.path[-1]}' must be a table")
        return cls(values=dict(value), spot=spot)

    def take(self, key: str, read: Callable[[object, _Spot], T], otherwise: T) -> T:
        if key not in self.values:
            return otherwise
        return read(self.values.pop(key), self.spot.at(key))

    def must(self, key: str, read: Callable[[object, _Spot], T]) -> T:
        if key not in self.values:
            raise self.spot.error(f"'{key}' must be given")
        return read(self.values.pop(key), self.spot.at(key))

    def tables(self, key: str) -> list[_Table]:
        value = self.values.pop(key, [])
        if not isinstance(value, list):
            raise self.spot.at(key).error(f"write [[{SECTION}.{key}]]")
        return [_Table.of(each, self.spot.at(key, place)) for place, each in enumerate(value)]

    def end(self, known: str) -> None:
        for key in self.values:
            raise self.spot.at(key).error(f"no such key '{key}'", hint=f"known: {known}")


# --- the parts -----------------------------------------------------------------------------------


def _policy(table: _Table) -> Policy:
    policy = Policy(
        line=table.spot.line(),
        endorsed_line=table.spot.at("endorsed").line(),
        endorsed=table.take("endorsed", _required, otherwise=True),
        revoked=table.take("revoked", _choice(Revoked), Revoked.MARK),
        allow=tuple(_allow(each) for each in table.tables("allow")),
        deny=tuple(_deny(each) for each in table.tables("deny")),
        default=tuple(_default(each) for each in table.tables("default")),
        end_of_life=table.take("end_of_life", _ends, ()),
    )
    table.end("endorsed, revoked, allow, deny, default, end_of_life")
    _check_defaults(policy.default)
    return policy


def _rule(table: _Table, images: tuple[str, ...] | None) -> Rule:
    return Rule(
        line=table.spot.line(),
        who=table.must("who", _people),
        images=table.must("images", _texts) if images is None else images,
        lists=table.take("lists", _texts, ()),
        endorsers=table.take("endorsers", _names, ()),
    )


def _allow(table: _Table) -> Allow:
    user_images = table.take("user_images", _flag, otherwise=False)
    allow = Allow(
        rule=_rule(table, None),
        networks=table.take("networks", _networks, (NetworkMode.NONE,)),
        root=table.take("root", _flag, otherwise=False),
        # What somebody brought along sees nothing of the host, unless that is said.
        shares=table.take("shares", _flag, otherwise=not user_images),
        end_of_life=table.take("end_of_life", _choice(OldImages), OldImages.NO_NETWORK),
        user_images=user_images,
        limits=Limits(
            machines=table.take("machines", _whole, 0),
            cpus=table.take("cpus", _whole, 0),
            memory_mib=table.take("memory", _memory, 0),
            time_s=table.take("time", _time, 0.0),
        ),
    )
    table.end(
        "who, images, lists, endorsers, networks, root, shares, end_of_life, user_images, "
        "machines, cpus, memory, time"
    )
    return allow


def _deny(table: _Table) -> Deny:
    everything: tuple[str, ...] = ("*",)
    images = table.take("images", _texts, everything)
    deny = Deny(rule=_rule(table, images), why=table.take("why", _text, ""))
    table.end("who, images, lists, endorsers, why")
    return deny


def _default(table: _Table) -> Default:
    mode = table.take("mode", _choice(Mode), Mode.DEFAULT)
    default = Default(
        line=table.spot.line(),
        who=table.must("who", _people),
        mode=mode,
        image="" if mode is Mode.OFF else table.must("image", _text),
        canary="" if mode is Mode.OFF else table.take("canary", _text, ""),
        canary_percent=0 if mode is Mode.OFF else table.take("canary_share", _percent, 0),
    )
    table.end("who, mode, image, canary, canary_share; with mode = 'off' only who")
    if bool(default.canary) != bool(default.canary_percent):
        raise table.spot.error("'canary' and 'canary_share' go together")
    return default


def _check_defaults(defaults: tuple[Default, ...]) -> None:
    """Refuse two defaults for the very same people: only their order could tell which is meant."""
    seen: dict[tuple[bool, Who], Default] = {}
    for default in defaults:
        for who in default.who:
            key = (default.mode is Mode.FORCE, who)
            if key in seen:
                raise Invalid(
                    f"{default.line}: there is a default for '{who}' at {seen[key].line} already",
                    hint="keep one of them",
                )
            seen[key] = default


# --- one value -----------------------------------------------------------------------------------


def _required(value: object, spot: _Spot) -> bool:
    if value not in ("required", "optional"):
        raise spot.error(f'must be "required" or "optional", not {value!r}')
    return value == "required"


def _choice(kind: type[S]) -> Callable[[object, _Spot], S]:
    def read(value: object, spot: _Spot) -> S:
        for choice in kind:
            if value == choice.value:
                return choice
        raise spot.error(f"must be one of {', '.join(each.value for each in kind)}, not {value!r}")

    return read


def _flag(value: object, spot: _Spot) -> bool:
    if not isinstance(value, bool):
        raise spot.error(f"must be true or false, not {value!r}")
    return value


def _text(value: object, spot: _Spot) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= 500 or not value.isprintable():
        raise spot.error(f"must be text in one line, not {value!r}")
    return value


def _texts(value: object, spot: _Spot) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise spot.error(f'must be a list such as ["a", "b*"], not {value!r}')
    return tuple(_text(each, spot) for each in value)


def _names(value: object, spot: _Spot) -> tuple[str, ...]:
    names = _texts(value, spot)
    for name in names:
        if not name.startswith(("/", "*")):
            raise spot.error(f"'{name}' is not the name of a certificate: write /C=…/CN=…")
    return names


def _people(value: object, spot: _Spot) -> tuple[Who, ...]:
    try:
        return tuple(parse_who(each) for each in _texts(value, spot))
    except Invalid as error:
        if error.message.startswith(f"{spot.file}:"):
            raise
        raise spot.error(error.message, error.hint) from error


def _networks(value: object, spot: _Spot) -> tuple[NetworkMode, ...]:
    read = _choice(NetworkMode)
    return tuple(read(each, spot) for each in _texts(value, spot))


def _whole(value: object, spot: _Spot) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= WHOLE_MOST:
        raise spot.error(f"must be a whole number from 1 on, not {value!r}")
    return value


def _percent(value: object, spot: _Spot) -> int:
    percent = _whole(value, spot)
    if percent > 100:
        raise spot.error(f"must be percent, from 1 to 100, not {percent}")
    return percent


def _memory(value: object, spot: _Spot) -> int:
    size = _measure(value, spot, parse_size, 'a size such as "8G"')
    if size < MIB:
        raise spot.error(f"must be 1M or more, not {value}")
    return int(size) // MIB


def _time(value: object, spot: _Spot) -> float:
    seconds = float(_measure(value, spot, parse_duration, 'a duration such as "8h"'))
    if seconds <= 0:
        raise spot.error(f"must be longer than nothing, not {value}")
    return seconds


def _measure(value: object, spot: _Spot, parse: Callable[[str], float], what: str) -> float:
    if not isinstance(value, str):
        raise spot.error(f"must be {what}, not {value!r}")
    try:
        return parse(value)
    except Invalid as error:
        raise spot.error(error.message, error.hint) from error


def _ends(value: object, spot: _Spot) -> tuple[EndOfLife, ...]:
    table = _Table.of(value, spot)
    return tuple(_end(key, each, spot.at(key)) for key, each in table.values.items())


def _end(pattern: str, value: object, spot: _Spot) -> EndOfLife:
    if value == "never":
        return EndOfLife(line=spot.line(), pattern=pattern, ends_on=None)
    if not isinstance(value, date) or isinstance(value, datetime):
        raise spot.error(f'must be a day such as 2024-06-30, or "never", not {value!r}')
    return EndOfLife(line=spot.line(), pattern=pattern, ends_on=value)
