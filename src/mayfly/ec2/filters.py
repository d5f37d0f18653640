"""Filters of the Describe actions: ``*`` and ``?`` in values, ``tag:NAME`` among names.

Format: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_Filtering.html. Values of one
filter are alternatives, filters all have to hold, letters count as they are written.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from mayfly.ec2.fault import Fault
from mayfly.ec2.query import Query

FILTERS = 50
VALUES = 200

Facts = Mapping[str, Sequence[str]]
"""What a filter can ask about one thing; ``tag:NAME`` for each of its tags among them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """One of them."""

    name: str
    values: tuple[str, ...]


def read_filters(query: Query, known: Collection[str]) -> tuple[Filter, ...]:
    """Read them from the parameters.

    :raises Fault: a name that this action does not know, no value, too many
    """
    return tuple(_read(each, known) for each in query.structures("Filter", most=FILTERS))


def _read(query: Query, known: Collection[str]) -> Filter:
    name = query.require("Name")
    values = query.texts("Value", most=VALUES)
    if name not in known and not (name.startswith("tag:") and "tag-key" in known):
        raise Fault("InvalidParameterValue", f"The filter '{name}' is invalid")
    if not values:
        raise Fault("InvalidParameterValue", f"The filter '{name}' has no value")
    return Filter(name=name, values=values)


def holds(filters: Sequence[Filter], facts: Facts) -> bool:
    """Tell whether all filters hold for one thing."""
    return all(
        any(like(wanted, fact) for wanted in each.values for fact in facts.get(each.name, ()))
        for each in filters
    )


def like(pattern: str, text: str) -> bool:
    r"""Match ``*`` (anything), ``?`` (one character), ``\`` (the next one as it is).

    Goes back to the last star only, so that no pattern takes longer than its length times the
    text's.
    """
    tokens = _tokens(pattern)
    at, here, star, resume = 0, 0, -1, 0
    while here < len(text):
        if at < len(tokens) and tokens[at] == "*":
            star, resume, at = at, here, at + 1
        elif at < len(tokens) and tokens[at] in ("?", "=" + text[here]):
            at, here = at + 1, here + 1
        elif star >= 0:
            resume += 1
            at, here = star + 1, resume
        else:
            return False
    return set(tokens[at:]) <= {"*"}


def _tokens(pattern: str) -> list[str]:
    tokens: list[str] = []
    characters = iter(pattern)
    for character in characters:
        if character == "\\":
            tokens.append("=" + next(characters, "\\"))
        elif character in "*?":
            tokens.append(character)
        else:
            tokens.append("=" + character)
    return tokens


def tag_facts(tags: Sequence[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    """Give what filters can ask about tags."""
    return {
        "tag-key": tuple(key for key, _ in tags),
        "tag-value": tuple(value for _, value in tags),
        **{f"tag:{key}": (value,) for key, value in tags},
    }
