"""Makes a renewed machine somebody's: account, home, network, shared directories."""

from __future__ import annotations

import os
import re
import socket
from dataclasses import dataclass, replace
from typing import Any

from mayfly.guest import fields
from mayfly.guest.account import Account, Group, Tables, claimed
from mayfly.guest.fields import Refused
from mayfly.guest.files import beneath, make_folders, read_text, write_text
from mayfly.guest.job import Credentials
from mayfly.guest.jobfeatures import Features, parse_features, write_features
from mayfly.guest.mounts import Share
from mayfly.guest.network import Network
from mayfly.guest.system import System
from mayfly.guest.workdir import make_folder

ID_LIMIT = (1 << 32) - 2
SHELLS = ("/bin/bash", "/bin/sh")
_NAME = re.compile(r"[^-+#:,/\s\x00-\x1f][^:,/\s\x00-\x1f]{0,255}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Whom the machine is for, and what it shall have."""

    account: Account
    root: bool
    """Whether jobs may run as root."""
    network: Network | None
    shares: tuple[Share, ...]
    time_ns: int | None
    grow_disk: bool
    features: Features


def parse_claim(message: dict[str, Any]) -> Claim:
    """Read a claim request."""
    account = fields.record(message, "account")
    if account is None:
        raise Refused("'account' is missing")
    return Claim(
        account=_account(account),
        root=fields.flag(message, "root"),
        network=_network(fields.record(message, "network")),
        shares=tuple(_share(share) for share in fields.records(message, "shares")),
        time_ns=fields.number(message, "time_ns") if message.get("time_ns") is not None else None,
        grow_disk=fields.flag(message, "grow_disk"),
        features=parse_features(fields.record(message, "features")),
    )


def _account(record: dict[str, Any]) -> Account:
    return Account(
        name=_name(record),
        uid=fields.number(record, "uid", high=ID_LIMIT),
        gid=fields.number(record, "gid", high=ID_LIMIT),
        groups=tuple(
            Group(name=_name(group), gid=fields.number(group, "gid", high=ID_LIMIT))
            for group in fields.records(record, "groups")
        ),
        home=_table_path(record, "home"),
        login_shell=_table_path(record, "shell"),
    )


def _name(record: dict[str, Any]) -> str:
    name = fields.text(record, "name")
    if not _NAME.fullmatch(name):
        raise Refused(f"'{name}' cannot be a name")
    return name


def _table_path(record: dict[str, Any], key: str) -> str:
    value = fields.text(record, key)
    fields.path(record, key)
    if ":" in value or "\n" in value:
        raise Refused(f"'{key}' cannot stand in a table")
    return value


def _network(record: dict[str, Any] | None) -> Network | None:
    if record is None:
        return None
    return Network(
        address=_ip(fields.text(record, "address")),
        prefix=fields.number(record, "prefix", high=32),
        gateway=_ip(fields.text(record, "gateway")) if record.get("gateway") else "",
        dns=tuple(_ip(fields.text({"dns": one}, "dns")) for one in fields.items(record, "dns")),
        mtu=fields.number(record, "mtu", high=65536) if record.get("mtu") else 0,
    )


def _ip(value: str) -> str:
    try:
        socket.inet_pton(socket.AF_INET, value)
    except OSError:
        raise Refused(f"'{value}' is no IPv4 address") from None
    return value


def _share(record: dict[str, Any]) -> Share:
    return Share(path=fields.path(record, "path"), read_only=fields.flag(record, "read_only"))


def claim(wanted: Claim, system: System, *, root: str = "/") -> Credentials:
    """Do it; give whom the jobs run as."""
    if wanted.time_ns is not None:
        system.set_clock(wanted.time_ns)
    credentials = credentials_of(wanted.account, root=root)
    write_tables(wanted.account, root=root)
    _make_home(credentials, root)
    write_features(wanted.features, root=root)
    if wanted.grow_disk:
        system.grow_root()
    if wanted.network is not None:
        system.bring_up(wanted.network)
    if wanted.shares:
        top = root.encode()
        system.mount_shares(wanted.shares, lambda path: make_folder(path, credentials, root=top))
    return replace(credentials, variables=wanted.features.variables())


def credentials_of(account: Account, *, root: str = "/") -> Credentials:
    """Give what a process of the account has; an agent that is not root cannot change its own."""
    may_change = os.geteuid() == 0
    gids = dict.fromkeys([account.gid, *(group.gid for group in account.groups)])
    return Credentials(
        uid=account.uid if may_change else None,
        gid=account.gid if may_change else None,
        groups=tuple(gids),
        name=fields.raw(account.name, "name"),
        home=fields.raw(account.home, "home"),
        login_shell=fields.raw(usable_shell(account.login_shell, root), "shell"),
    )


def usable_shell(shell: str, root: str = "/") -> str:
    """Give the shell, or one that this guest has."""
    for one in (shell, *SHELLS):
        if os.access(beneath(root, one), os.X_OK):
            return one
    return SHELLS[-1]


def write_tables(account: Account, *, root: str = "/") -> None:
    """Put the account into the tables of users and groups."""
    names = ("passwd", "group", "shadow", "gshadow")
    before = Tables(**{name: read_text(beneath(root, f"/etc/{name}")) for name in names})
    ours = replace(account, login_shell=usable_shell(account.login_shell, root))
    after = claimed(before, ours)
    for name in names:
        text = getattr(after, name)
        if text != getattr(before, name):
            make_folders(beneath(root, "/etc"))
            secret = name in ("shadow", "gshadow")
            write_text(beneath(root, f"/etc/{name}"), text, mode=0o600 if secret else 0o644)


def _make_home(credentials: Credentials, root: str) -> None:
    home = beneath(root, fields.shown(credentials.home))
    if os.path.lexists(home.rstrip("/")) or not home.strip("/"):
        return
    make_folders(os.path.dirname(home.rstrip("/")))
    os.mkdir(home, 0o700)
    if credentials.uid is not None and credentials.gid is not None:
        os.chown(home, credentials.uid, credentials.gid)
