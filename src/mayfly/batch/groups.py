"""The groups that a user of a batch system is in, as this host knows them."""

from __future__ import annotations

import contextlib
import grp
import os


def groups_of(user: str, gid: int) -> tuple[str, ...]:
    """Give the names of a user's groups; those that have no name here are left out."""
    found = []
    for number in os.getgrouplist(user, gid):
        with contextlib.suppress(KeyError):
            found.append(grp.getgrgid(number).gr_name)
    return tuple(found)
