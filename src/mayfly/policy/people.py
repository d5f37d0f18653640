"""Who is meant: ``user:alice``, ``group:physics & queue:short``, ``role:/cms/*``, ``*``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from mayfly.errors import Invalid

_NAME = re.compile(r"[!-~](?:[ -~]{0,198}[!-~])?")


class Kind(StrEnum):
    """What somebody is known by; the first is the narrowest."""

    USER = "user"
    ROLE = "role"
    GROUP = "group"
    QUEUE = "queue"


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Who asks, as the host and the batch system know him."""

    user: str
    groups: tuple[str, ...] = ()
    queue: str = ""
    """Of the batch system; empty: none."""
    roles: tuple[str, ...] = ()
    """In virtual organisations: ``/cms/Role=production``."""

    def names(self, kind: Kind) -> tuple[str, ...]:
        """Give what he is called, in one way of calling."""
        match kind:
            case Kind.USER:
                return (self.user,)
            case Kind.ROLE:
                return self.roles
            case Kind.GROUP:
                return self.groups
            case Kind.QUEUE:
                return (self.queue,) if self.queue else ()

    def __str__(self) -> str:
        parts = [f"user {self.user}"]
        parts += [f"group {group}" for group in self.groups]
        parts += [f"queue {self.queue}"] if self.queue else []
        return ", ".join([*parts, *(f"role {role}" for role in self.roles)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Who:
    """People who are all that is named; without terms, everybody."""

    terms: tuple[tuple[Kind, str], ...]

    def fits(self, person: Person) -> bool:
        """Tell whether somebody is meant."""
        return all(
            any(matches(pattern, name) for name in person.names(kind))
            for kind, pattern in self.terms
        )

    @property
    def narrowness(self) -> tuple[int, ...]:
        """Give how narrow it is, to be compared: a user before a role, group, queue, everybody."""
        kinds = [kind for kind, _ in self.terms]
        return tuple(kinds.count(kind) for kind in Kind)

    def __str__(self) -> str:
        return " & ".join(f"{kind.value}:{pattern}" for kind, pattern in self.terms) or "*"


def parse_who(text: str) -> Who:
    """Read one entry of a list of people; raises ``Invalid``."""
    if text.strip() == "*":
        return Who(terms=())
    return Who(terms=tuple(sorted({_term(part.strip()) for part in text.split("&")})))


def _term(text: str) -> tuple[Kind, str]:
    kind, colon, name = text.partition(":")
    if not colon or kind not in [each.value for each in Kind] or not _NAME.fullmatch(name):
        kinds = ", ".join(f"{each.value}:NAME" for each in Kind)
        raise Invalid(f"'{text[:200]}' names nobody", hint=f"write *, {kinds}; '&' joins several")
    return Kind(kind), name


def matches(pattern: str, name: str) -> bool:
    """Tell whether a name fits a pattern of ``*`` and ``?``; all else means itself."""
    signs = {"*": ".*", "?": "."}
    regex = "".join(signs.get(letter) or re.escape(letter) for letter in pattern)
    return re.fullmatch(regex, name, re.DOTALL) is not None
