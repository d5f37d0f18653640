"""How far this machine has come: renewed, claimed, or beyond use."""

from __future__ import annotations

import os
from dataclasses import replace

from mayfly.guest.claim import usable_shell
from mayfly.guest.fields import Refused, raw
from mayfly.guest.job import Credentials


class Machine:
    """The steps must be taken in order; after a failed renewal none is possible any more."""

    def __init__(self) -> None:
        self._renewed = False
        self._failure = ""
        self._user: Credentials | None = None
        self._root_allowed = False

    def check_usable(self) -> None:
        """Refuse when a renewal has failed."""
        if self._failure:
            raise Refused(f"this machine is not unique, and must not be used: {self._failure}")

    def check_renewed(self) -> None:
        """Refuse what may only be done to a renewed machine."""
        self.check_usable()
        if not self._renewed:
            raise Refused("this machine was not renewed yet")

    def renewed(self) -> None:
        """The machine has an identity of its own."""
        self._renewed = True

    def renewal_failed(self, reason: str) -> None:
        """The machine is not unique, or what it draws at random is not, and never will be."""
        self._failure = reason

    def claimed(self, user: Credentials, *, root_allowed: bool) -> None:
        """The machine is somebody's."""
        self._user = user
        self._root_allowed = root_allowed

    def user(self, *, as_root: bool) -> Credentials:
        """Give whom a job runs as, or refuse."""
        self.check_usable()
        if self._user is None:
            raise Refused("this machine was not claimed yet")
        if not as_root:
            return self._user
        if not self._root_allowed:
            raise Refused("jobs may not run as root in this machine")
        return replace(superuser(), variables=self._user.variables)


def superuser() -> Credentials:
    """Give what a process of root has."""
    may_change = os.geteuid() == 0
    return Credentials(
        uid=0 if may_change else None,
        gid=0 if may_change else None,
        groups=(0,),
        name=b"root",
        home=b"/root",
        login_shell=raw(usable_shell("/bin/bash"), "shell"),
    )


def oneself() -> Credentials:
    """Give the user that the agent itself is, for trying it outside of a machine."""
    return Credentials(
        uid=None,
        gid=None,
        groups=(),
        name=raw(os.environ.get("USER", "nobody"), "USER"),
        home=raw(os.environ.get("HOME", "/"), "HOME"),
        login_shell=b"/bin/sh",
    )
