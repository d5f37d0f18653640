"""Takes out of a machine what makes it itself, before its disk becomes an image for others.

What must not stay is looked for again at the end: who wants an image is told what is left, and
takes nothing while anything is.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import json
import os
import shutil
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from mayfly.guest.account import Account, Tables, claimed
from mayfly.guest.files import beneath, read_text, write_text
from mayfly.guest.prepare import SECRETS
from mayfly.guest.renew import DBUS_ID, MACHINE_ID
from mayfly.guest.system import Tool

TABLES = ("passwd", "group", "shadow", "gshadow")
RESOLV = "/etc/resolv.conf"
STATE = (
    "/etc/udev/rules.d/70-persistent-net.rules",
    "/root/.bash_history",
    "/root/.cache",
    "/root/.lesshst",
    "/root/.ssh",
    "/root/.viminfo",
    "/var/lib/NetworkManager/*.lease",
    "/var/lib/NetworkManager/secret_key",
    "/var/lib/cloud/data",
    "/var/lib/cloud/instance",
    "/var/lib/cloud/instances",
    "/var/lib/cloud/sem",
    "/var/lib/dhclient/*",
    "/var/lib/dhcp/*",
    "/var/lib/dhcpcd/*",
    "/var/lib/systemd/timers/*",
    "/var/log/journal/*",
)
"""What a machine gathers while it runs, and no other must have."""
_TEMPORARY = ("/tmp", "/var/tmp")  # noqa: S108
PASSING = (
    "/run/log/journal/*",
    *(f"{top}/{each}" for top in _TEMPORARY for each in ("*", ".[!.]*")),
)
"""What may come again at any moment; it is removed, and not looked for again."""
OLD_LOGS = (".gz", ".old", ".xz", *(f".{number}" for number in range(10)))
LONGEST_LEFT = 20
_GROUP_COLONS = 3
_FITRIM = 0xC0185879
_RANGE = struct.Struct("=QQQ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Former:
    """How it was before the machine was given to somebody."""

    account: Account
    tables: Tables
    resolv: str
    had_home: bool


def remember(account: Account, *, root: str = "/") -> Former:
    """Look at what giving the machine to somebody is about to change."""
    texts = {name: read_text(beneath(root, f"/etc/{name}")) for name in TABLES}
    return Former(
        account=account,
        tables=Tables(**texts),
        resolv=read_text(beneath(root, RESOLV)),
        had_home=os.path.lexists(beneath(root, account.home)),
    )


def strip(former: Former | None, tool: Tool, *, root: str = "/") -> bytes:
    """Do it, and report ``left``, what could not be taken out, and ``trimmed``: an assistant."""
    if os.path.isdir(beneath(root, "/run/systemd/system")):
        # What writes logs would write them anew.
        units = ("rsyslog.service", "syslog.socket", "cron.service", "systemd-random-seed.service")
        tool(["systemctl", "stop", *units], timeout_s=60)
    if former is not None:
        _restore(former, root)
    for pattern in (*SECRETS, *STATE, *PASSING):
        for path in _matching(root, pattern):
            _remove(path)
    _empty_logs(beneath(root, "/var/log"))
    _forget_names(root)
    left = [*_left(former, root)][:LONGEST_LEFT]
    os.sync()
    trimmed = root == "/" and _trim(root)
    os.sync()
    return json.dumps({"left": left, "trimmed": trimmed}).encode()


def _matching(root: str, pattern: str) -> list[str]:
    return glob.glob(beneath(glob.escape(root), pattern))


def _remove(path: str) -> None:
    # A mount point, or what somebody made immutable, stays, and is found again at the end.
    with contextlib.suppress(OSError):
        if stat.S_ISDIR(os.lstat(path).st_mode):
            shutil.rmtree(path, ignore_errors=True)
        else:
            os.unlink(path)


def _empty_logs(folder: str) -> None:
    for place, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(place, name)
            with contextlib.suppress(OSError):
                if name.endswith(OLD_LOGS):
                    os.unlink(path)
                elif stat.S_ISREG(os.lstat(path).st_mode):
                    os.truncate(path, 0)


def _forget_names(root: str) -> None:
    # Empty, not gone: it is written at the next boot, but the boot is not taken for the first.
    write_text(beneath(root, MACHINE_ID), "", mode=0o444)
    dbus = beneath(root, DBUS_ID)
    if not os.path.islink(dbus):
        _remove(dbus)
    write_text(beneath(root, "/etc/hostname"), "localhost\n")
    hosts = beneath(root, "/etc/hosts")
    lines = read_text(hosts).splitlines()
    kept = [line for line in lines if line.split()[:1] != ["127.0.1.1"]]
    write_text(hosts, "".join(f"{line}\n" for line in kept))


# --- whose it was --------------------------------------------------------------------------------


def _restore(former: Former, root: str) -> None:
    account = former.account
    after = claimed(former.tables, account)
    for name in TABLES:
        path = beneath(root, f"/etc/{name}")
        now, before = read_text(path), getattr(former.tables, name)
        text = unclaimed(now, before, getattr(after, name), account.name)
        if text != now:
            write_text(path, text)
    if not former.had_home and account.uid != 0:
        _remove(beneath(root, account.home))
    write_text(beneath(root, RESOLV), former.resolv)


def unclaimed(now: str, before: str, after: str, user: str) -> str:
    """Take back in one table what made ``after`` of ``before``; what came since stays. Pure."""
    first, changed = _by_name(before), _by_name(after)
    ours = {name for name, line in changed.items() if line != first.get(name)}
    kept = [
        _taken_back(line, first.get(name, ""), changed.get(name, "") if name in ours else "", user)
        for line in now.splitlines()
        for name in [line.partition(":")[0]]
        if name in first or name not in ours
    ]
    gone = [line for name, line in first.items() if name not in changed]
    return "".join(f"{line}\n" for line in [*kept, *gone])


def _taken_back(line: str, before: str, after: str, user: str) -> str:
    """Give the line that takes the place of this one; ``after`` as the claim left it, if it did."""
    if line.count(":") != _GROUP_COLONS:
        return before if after else line
    # Who is in a group is as it is now, as others may have joined it; but for what the claim did.
    was, became = _members(before), _members(after)
    members = [name for name in _members(line) if name != user or name in was]
    members += [name for name in was if after and name not in (*became, *members)]
    members = was if set(members) == set(was) else members
    return ":".join([*(before if after else line).split(":")[:-1], ",".join(members)])


def _members(line: str) -> list[str]:
    return [name for name in line.rpartition(":")[2].split(",") if name]


def _by_name(table: str) -> dict[str, str]:
    return {line.partition(":")[0]: line for line in table.splitlines()}


# --- what is left --------------------------------------------------------------------------------


def _left(former: Former | None, root: str) -> Iterator[str]:
    """Name what is there still, as the guest names it."""
    if read_text(beneath(root, MACHINE_ID)).strip():
        yield MACHINE_ID
    dbus = beneath(root, DBUS_ID)
    if not os.path.islink(dbus) and read_text(dbus).strip():
        yield DBUS_ID
    for pattern in (*SECRETS, *STATE):
        for path in _matching(root, pattern):
            yield "/" + os.path.relpath(path, root)
    if former is None or former.account.uid == 0:
        return
    before = _by_name(former.tables.passwd)
    if former.account.name in _by_name(read_text(beneath(root, "/etc/passwd"))).keys() - before:
        yield f"/etc/passwd: {former.account.name}"
    if not former.had_home and os.path.lexists(beneath(root, former.account.home)):
        yield former.account.home


def _trim(place: str) -> bool:
    """Give the blocks that no file has back to the host, or what was deleted could be read yet."""
    try:
        fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.ioctl(fd, _FITRIM, _RANGE.pack(0, (1 << 64) - 1, 0))
    except OSError:
        return False
    finally:
        os.close(fd)
    return True
