"""The queues of LSF, ``lsb.queues``: sections of ``NAME = VALUE`` between Begin and End Queue."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mayfly.batch.changes import BEGIN, END, without_block

_BEGIN = re.compile(r"\s*begin\s+queue\b", re.IGNORECASE)
_END = re.compile(r"\s*end\s+queue\b", re.IGNORECASE)
_SETTING = re.compile(r"\s*([A-Za-z_]+)\s*=\s*(.*?)\s*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """One section, without what is ours."""

    name: str
    settings: Mapping[str, str]
    end: int
    """The line that ends it."""


def parse_queues(text: str) -> list[Queue]:
    """Give the queues of a text that has none of our blocks."""
    found: list[Queue] = []
    settings: dict[str, str] | None = None
    for number, line in enumerate(text.splitlines()):
        plain = line.split("#", 1)[0]
        if _BEGIN.match(plain):
            settings = {}
        elif _END.match(plain) and settings is not None:
            name = settings.get("QUEUE_NAME", "")
            found.append(Queue(name=name, settings=settings, end=number))
            settings = None
        elif settings is not None and (match := _SETTING.fullmatch(plain)):
            settings[match[1].upper()] = match[2]
    return found


def with_settings(text: str, wanted: Mapping[str, Sequence[str]]) -> str:
    """Give a text with lines of ours at the end of the queues that are named."""
    lines = without_block(text).splitlines(keepends=True)
    for queue in reversed(parse_queues("".join(lines))):
        ours = wanted.get(queue.name)
        if ours:
            lines[queue.end : queue.end] = [f"{line}\n" for line in (BEGIN, *ours, END)]
    return "".join(lines)
