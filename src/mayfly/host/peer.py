"""Who is at the other end of a unix socket: what the kernel says, never what the client says."""

from __future__ import annotations

import ctypes
import errno
import grp
import os
import pwd
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass

from mayfly.engine.caller import SHELL
from mayfly.engine.linux import checked, start_time
from mayfly.errors import Denied
from mayfly.model import Account, Group

SO_PEERGROUPS = 59
_CREDENTIALS = struct.Struct("iII")
_FIRST_GROUPS = 64
_GID_BYTES = 4

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """The process that connected, as it was then."""

    pid: int
    uid: int
    gid: int
    gids: tuple[int, ...]
    """Supplementary groups."""
    started: int
    """Start time of ``pid``, in clock ticks since boot: with it the pid names one process."""


def peer_of(connection: socket.socket) -> Peer:
    """Tell who connected; to be asked at once, while the process is there.

    Raises ``Denied`` when it has ended already, or cannot be seen from here.
    """
    # SO_PEERPIDFD, which no reused pid could fool, came with Linux 6.5.
    packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, gid = _CREDENTIALS.unpack(packed)
    started = start_time(pid) if pid > 0 else None
    if started is None:
        raise Denied(f"the client (pid {pid}, uid {uid}) is gone, or is not of this host")
    return Peer(pid=pid, uid=uid, gid=gid, gids=_groups_of(connection), started=started)


def _groups_of(connection: socket.socket) -> tuple[int, ...]:
    # Python's own getsockopt gives 1,024 bytes at most; a process may have 65,536 groups.
    count = _FIRST_GROUPS
    while True:
        groups = (ctypes.c_uint32 * count)()
        length = ctypes.c_uint32(ctypes.sizeof(groups))
        result = _libc.getsockopt(
            connection.fileno(),
            socket.SOL_SOCKET,
            SO_PEERGROUPS,
            ctypes.byref(groups),
            ctypes.byref(length),
        )
        needed = length.value // _GID_BYTES
        if result < 0 and ctypes.get_errno() == errno.ERANGE and needed > count:
            count = needed
            continue
        checked(result, "getsockopt(SO_PEERGROUPS)")
        return tuple(groups[:needed])


def account_of(peer: Peer) -> Account:
    """Give the user of a peer as a machine shall have it; a uid without a name gets one.

    Numbers are the kernel's. The names are looked up, which may hang where they are kept elsewhere.
    """
    try:
        entry = pwd.getpwuid(peer.uid)
        name, home, shell = entry.pw_name, entry.pw_dir, entry.pw_shell
        known = _all_groups(name, entry.pw_gid)
    except KeyError:
        known = ()
        name = _made_up("user", peer.uid, pwd.getpwnam)
        home, shell = f"/home/{name}", SHELL
    gids = dict.fromkeys([peer.gid, *peer.gids])
    groups = tuple(Group(name=_group_name(number), gid=number) for number in gids)
    return Account(
        name=name,
        uid=peer.uid,
        gid=peer.gid,
        groups=groups,
        home=home,
        shell=shell or SHELL,
        all_groups=known,
    )


def _all_groups(name: str, gid: int) -> tuple[str, ...]:
    """Give the groups of a user, also those that this process of his has left behind."""
    return tuple(_group_name(number) for number in os.getgrouplist(name, gid))


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return _made_up("group", gid, grp.getgrnam)


def _made_up(word: str, number: int, find: Callable[[str], object]) -> str:
    """Give a name to a number that has none; never somebody else's, for names give rights."""
    name = f"{word}{number}"
    while True:
        try:
            find(name)
        except KeyError:
            return name
        name += "x"


class Accounts:
    """Accounts that were looked up lately, for peers with the same numbers."""

    def __init__(self, *, max_age_s: float = 300.0, most: int = 1000) -> None:
        self._max_age_s = max_age_s
        self._most = most
        self._known: dict[tuple[int, int, tuple[int, ...]], tuple[float, Account]] = {}

    def get(self, peer: Peer, now: float) -> Account | None:
        """Give the account of a peer, when it was looked up less than the age ago."""
        found = self._known.get(_numbers(peer))
        # A clock that was set back makes no entry eternal.
        if found is None or not 0 <= now - found[0] < self._max_age_s:
            return None
        return found[1]

    def put(self, peer: Peer, account: Account, now: float) -> None:
        """Remember an account; the one that was put in first goes when there are too many."""
        self._known.pop(_numbers(peer), None)
        while len(self._known) >= self._most:
            del self._known[next(iter(self._known))]
        self._known[_numbers(peer)] = (now, account)


def _numbers(peer: Peer) -> tuple[int, int, tuple[int, ...]]:
    return (peer.uid, peer.gid, peer.gids)
