"""Typed access to the fields of a received message; a field that is wrong is refused by name."""

from __future__ import annotations

from typing import Any


class Refused(ValueError):
    """A request that cannot be done as it stands; the text says why."""


def text(message: dict[str, Any], key: str) -> str:
    """Give a string that could be an argument or a file name."""
    value = message.get(key)
    if not isinstance(value, str):
        raise Refused(f"'{key}' must be text")
    raw(value, key)
    return value


def number(message: dict[str, Any], key: str, *, low: int = 0, high: int = (1 << 63) - 1) -> int:
    """Give a whole number within bounds."""
    value = message.get(key)
    if type(value) is not int or not low <= value <= high:
        raise Refused(f"'{key}' must be a whole number from {low} to {high}")
    return value


def seconds(message: dict[str, Any], key: str, *, high: float) -> float:
    """Give a duration."""
    value = message.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= high:
        raise Refused(f"'{key}' must be a number of seconds, at most {high:g}")
    return float(value)


def flag(message: dict[str, Any], key: str) -> bool:
    """Give a truth value; false when it is missing."""
    value = message.get(key, False)
    if type(value) is not bool:
        raise Refused(f"'{key}' must be true or false")
    return value


def record(message: dict[str, Any], key: str) -> dict[str, Any] | None:
    """Give an object, or None when it is missing or null."""
    value = message.get(key)
    if value is not None and not isinstance(value, dict):
        raise Refused(f"'{key}' must be an object or null")
    return value


def items(message: dict[str, Any], key: str) -> list[Any]:
    """Give a list; empty when it is missing."""
    value = message.get(key, [])
    if not isinstance(value, list):
        raise Refused(f"'{key}' must be a list")
    return value


def records(message: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """Give a list of objects; empty when it is missing."""
    found = items(message, key)
    if not all(isinstance(item, dict) for item in found):
        raise Refused(f"'{key}' must be a list of objects")
    return found


def path(message: dict[str, Any], key: str) -> bytes:
    """Give an absolute path."""
    value = raw(text(message, key), key)
    if not value.startswith(b"/"):
        raise Refused(f"'{key}' must be an absolute path")
    return value


def raw(value: object, key: str) -> bytes:
    """Give the bytes that a string stands for; those that were not UTF-8 travel as surrogates."""
    if not isinstance(value, str):
        raise Refused(f"'{key}' must be text")
    try:
        found = value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise Refused(f"'{key}' holds what stands for no bytes") from None
    if b"\0" in found:
        raise Refused(f"'{key}' holds a zero byte")
    return found


def shown(value: bytes) -> str:
    """Give bytes as a string that can travel in a message."""
    return value.decode("utf-8", "surrogateescape")
