"""Who asks, and what he may do with whose leases."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Role(StrEnum):
    """What somebody is, beyond a user."""

    USER = "user"
    MANAGER = "manager"
    """Sees and ends the leases of the groups that he manages."""
    OPERATOR = "operator"
    """Sees and ends all leases."""
    AUDITOR = "auditor"
    """Sees all leases and events, and changes nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asker:
    """Somebody who was recognised."""

    name: str
    groups: tuple[str, ...]
    """The first is the one that his leases count for, unless he says another."""
    manages: tuple[str, ...] = ()
    operator: bool = False
    auditor: bool = False
    source: str = "local"
    """From where: an address, or ``local``."""

    @property
    def roles(self) -> tuple[Role, ...]:
        """Give all that he is."""
        more = [
            role
            for role, there in (
                (Role.MANAGER, bool(self.manages)),
                (Role.OPERATOR, self.operator),
                (Role.AUDITOR, self.auditor),
            )
            if there
        ]
        return (Role.USER, *more)


@dataclass(frozen=True, slots=True, kw_only=True)
class Roles:
    """Who is what: names of users, or ``@GROUP``."""

    operators: frozenset[str] = frozenset()
    auditors: frozenset[str] = frozenset()
    managers: dict[str, frozenset[str]] = field(default_factory=dict)
    """By group."""


def asker_of(name: str, groups: tuple[str, ...], roles: Roles, source: str) -> Asker:
    """Give somebody with the roles that the site gave him."""
    names = {name, *(f"@{group}" for group in groups)}
    return Asker(
        name=name,
        groups=groups or (name,),
        manages=tuple(sorted(g for g, who in roles.managers.items() if names & who)),
        operator=bool(names & roles.operators),
        auditor=bool(names & roles.auditors),
        source=source,
    )
