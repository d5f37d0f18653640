"""Which version of a list is the newer: the order that vmcatcher has, so that both agree."""

from __future__ import annotations

import re
from datetime import datetime
from itertools import zip_longest

_PARTS = re.compile(r"[-,./]|[^-,./]+")
_RUNS = re.compile(r"[0-9]+|[^0-9]+")
_LAST_NUMBER = re.compile(r"[0-9]+(?=[^0-9]*$)")


def compare(left: str, right: str) -> int:
    """Give -1 when ``left`` is the older, 1 when it is the newer, 0 when neither is.

    Versions are compared part by part, parted by ``-``, ``,``, ``.`` and ``/``: numbers as
    numbers, a number above a word, the longer one above the shorter.
    """
    return _compare(_PARTS.findall(left), _PARTS.findall(right), split_words=True)


def _compare(left: list[str], right: list[str], *, split_words: bool) -> int:
    for one, other in zip_longest(left, right):
        if one is None or other is None:
            return -1 if one is None else 1
        if one != other:
            order = _compare_parts(one, other, split_words=split_words)
            # Two words of which neither is above the other, such as 1x and 01x, decide nothing.
            if order or (_is_number(one) and _is_number(other)):
                return order
    return 0


def _compare_parts(one: str, other: str, *, split_words: bool) -> int:
    if _is_number(one) and _is_number(other):
        return (int(one) > int(other)) - (int(one) < int(other))
    if _is_number(one) != _is_number(other):
        return 1 if _is_number(one) else -1
    if split_words:
        return _compare(_RUNS.findall(one), _RUNS.findall(other), split_words=False)
    return 1 if one > other else -1


def _is_number(part: str) -> bool:
    return part.isascii() and part.isdigit()


def following(version: str, now: datetime) -> str:
    """Give the version after this one: the time, or where that is not higher, one more."""
    stamp = now.strftime("%Y%m%d%H%M%S")
    if not version or compare(stamp, version) > 0:
        return stamp
    raised = _LAST_NUMBER.sub(lambda found: str(int(found[0]) + 1), version, count=1)
    return raised if compare(raised, version) > 0 else f"{version}.1"
