"""Frozen dataclasses to JSON and back, strictly: what is not as it was written is not taken."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from mayfly.images.lists.model import TIME_FORMAT, show_time

T = TypeVar("T")
Reader = Callable[[Any], Any]


class Damaged(ValueError):
    """The JSON is not that of such a value."""


def plain(value: object) -> Any:
    """Give a value as what JSON can hold."""
    if is_dataclass(value) and not isinstance(value, type):
        return {item.name: plain(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, tuple | list):
        return [plain(each) for each in value]
    if isinstance(value, Mapping):
        return {key: plain(each) for key, each in value.items()}
    return show_time(value) if isinstance(value, datetime) else value


def build(kind: type[T], value: object) -> T:
    """Make a value of this kind again; raises ``Damaged``. Unknown keys are left out."""
    return cast(T, _reader(cast(Any, kind))(value))


@cache
def _reader(kind: Any) -> Reader:
    origin, inner = get_origin(kind), get_args(kind)
    if origin is tuple:
        return _tuple_of(_reader(inner[0]))
    if origin in (Union, types.UnionType):
        return _union(inner)
    if origin is not None and issubclass(origin, Mapping):
        return _mapping
    if is_dataclass(kind):
        return _record(kind)
    if issubclass(kind, StrEnum):
        return _enum(kind)
    return _time if kind is datetime else _exactly(kind)


def _record(kind: Any) -> Reader:
    hints = get_type_hints(kind)
    needed = {item.name for item in fields(kind) if _has_no_default(item)}
    readers = {item.name: _reader(hints[item.name]) for item in fields(kind)}

    def read(value: Any) -> Any:
        if not isinstance(value, dict) or not needed <= value.keys():
            raise Damaged(f"it is no {kind.__name__}")
        return kind(**{name: read(value[name]) for name, read in readers.items() if name in value})

    return read


def _has_no_default(item: Any) -> bool:
    return item.default is MISSING and item.default_factory is MISSING


def _tuple_of(inner: Reader) -> Reader:
    def read(value: Any) -> Any:
        if not isinstance(value, list):
            raise Damaged("it is no array")
        return tuple(inner(each) for each in value)

    return read


def _union(kinds: tuple[Any, ...]) -> Reader:
    others = [each for each in kinds if each is not type(None)]
    if len(others) != 1:
        return lambda value: value
    inner = _reader(others[0])
    return lambda value: None if value is None else inner(value)


def _mapping(value: Any) -> Any:
    if not isinstance(value, dict):
        raise Damaged("it is no object")
    return value


def _enum(kind: Any) -> Reader:
    def read(value: Any) -> Any:
        try:
            return kind(value)
        except ValueError as error:
            raise Damaged(f"{value!r} is no {kind.__name__}") from error

    return read


def _time(value: Any) -> datetime:
    try:
        return datetime.strptime(value, TIME_FORMAT).replace(tzinfo=UTC)
    except (TypeError, ValueError) as error:
        raise Damaged(f"{value!r} is no time") from error


def _exactly(kind: Any) -> Reader:
    def read(value: Any) -> Any:
        if type(value) is not kind:
            raise Damaged(f"{value!r} is no {kind.__name__}")
        return value

    return read
