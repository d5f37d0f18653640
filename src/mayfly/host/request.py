"""A request for a machine that was found permissible: it waits, or is being fulfilled."""

from __future__ import annotations

from dataclasses import dataclass

from mayfly.host.caller import Caller
from mayfly.host.rights import Right
from mayfly.host.wish import Wish
from mayfly.model import Account, Image, Shape


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Request:
    """A wish that was found permissible."""

    caller: Caller
    wish: Wish
    image: Image
    shape: Shape
    account: Account
    right: Right | None
    since: float
    """By the monotonic clock."""
    key: str
    """Its name in the line."""
    may_root: bool = True
    """Whether its owner may be root in the machine."""
