"""Gives a clone an identity of its own, before any user's code runs in it.

The order matters: random numbers first, since all else may draw on them; then the clock, since
files carry its time. The agent itself draws no random numbers.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mayfly.guest import fields
from mayfly.guest.fields import Refused
from mayfly.guest.files import beneath, make_folders, read_text, write_text
from mayfly.guest.system import BOOT_ID, System

MACHINE_ID = "/etc/machine-id"
DBUS_ID = "/var/lib/dbus/machine-id"
SEED_BYTES = 64

_KEY_FILES: Mapping[str, str] = {
    "ssh-ed25519": "ssh_host_ed25519_key",
    "ssh-rsa": "ssh_host_rsa_key",
}
_ECDSA = "ecdsa-sha2-"
_HOSTNAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,62}[A-Za-z0-9])?")
_MACHINE_ID = re.compile(r"[0-9a-f]{32}")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True, kw_only=True)
class HostKey:
    """A key of the machine's ssh server, made on the host."""

    private: str
    public: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refresh:
    """What a machine needs whose memory is that of an earlier moment."""

    seed: bytes
    time_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What makes a machine itself."""

    seed: bytes
    time_ns: int
    hostname: str
    machine_id: str
    boot_id: str
    host_key: HostKey | None


def parse_identity(message: dict[str, Any]) -> Identity:
    """Read a renew request."""
    fresh = parse_refresh(message)
    return Identity(
        seed=fresh.seed,
        time_ns=fresh.time_ns,
        hostname=_matching(message, "hostname", _HOSTNAME),
        machine_id=_matching(message, "machine_id", _MACHINE_ID),
        boot_id=_matching(message, "boot_id", _UUID),
        host_key=_host_key(message),
    )


def parse_refresh(message: dict[str, Any]) -> Refresh:
    """Read a refresh request."""
    fields.text(message, "epoch")
    try:
        seed = bytes.fromhex(fields.text(message, "seed"))
    except ValueError:
        raise Refused("'seed' must be hexadecimal") from None
    if len(seed) != SEED_BYTES:
        raise Refused(f"'seed' must be {SEED_BYTES} bytes")
    return Refresh(seed=seed, time_ns=fields.number(message, "time_ns"))


def _matching(message: dict[str, Any], key: str, pattern: re.Pattern[str]) -> str:
    value = fields.text(message, key)
    if not pattern.fullmatch(value):
        raise Refused(f"'{key}' cannot be '{value}'")
    return value


def _host_key(message: dict[str, Any]) -> HostKey | None:
    key = fields.record(message, "host_key")
    if key is None:
        return None
    return HostKey(private=fields.text(key, "private"), public=fields.text(key, "public"))


def renew(identity: Identity, system: System, *, root: str = "/") -> str:
    """Do it, in order; says how the random generator was renewed."""
    method = refresh(identity, system)
    system.set_hostname(identity.hostname)
    write_text(beneath(root, "/etc/hostname"), identity.hostname + "\n")
    hosts = beneath(root, "/etc/hosts")
    write_text(hosts, hosts_with(read_text(hosts), identity.hostname))
    _write_machine_id(identity.machine_id, root)
    system.set_boot_id(identity.boot_id)
    if identity.host_key is not None:
        _write_host_key(identity.host_key, root)
    return method


def refresh(wanted: Identity | Refresh, system: System) -> str:
    """Renew random generator and clock only; says how the former was done."""
    method = system.stir(wanted.seed)
    system.set_clock(wanted.time_ns)
    return method


def hosts_with(hosts: str, name: str) -> str:
    """Let 127.0.1.1 stand for the host name in /etc/hosts; one line does."""
    short = name.partition(".")[0]
    names = name if short == name else f"{name} {short}"
    ours = f"127.0.1.1\t{names}"
    lines = hosts.splitlines()
    others = [line for line in lines if line.split()[:1] != ["127.0.1.1"]]
    after = next((at + 1 for at, line in enumerate(others) if line.split()[:1] == ["127.0.0.1"]), 0)
    return "\n".join([*others[:after], ours, *others[after:], ""])


def _write_machine_id(machine_id: str, root: str) -> None:
    write_text(beneath(root, MACHINE_ID), machine_id + "\n", mode=0o444)
    dbus = beneath(root, DBUS_ID)
    if os.path.isfile(dbus) and not os.path.islink(dbus):
        write_text(dbus, machine_id + "\n")


def _write_host_key(key: HostKey, root: str) -> None:
    sort = key.public.partition(" ")[0]
    name = "ssh_host_ecdsa_key" if sort.startswith(_ECDSA) else _KEY_FILES.get(sort)
    if name is None:
        raise Refused(f"an ssh host key of type '{sort}' is not known")
    folder = beneath(root, "/etc/ssh")
    make_folders(folder)
    write_text(f"{folder}/{name}", key.private, mode=0o600)
    write_text(f"{folder}/{name}.pub", key.public.rstrip("\n") + "\n")


def sample(*, root: str = "/") -> dict[str, Any]:
    """Give what must differ between two machines, for the host to compare."""
    return {
        "random": os.urandom(16).hex(),
        "boot_id": read_text(BOOT_ID).strip(),
        "machine_id": read_text(beneath(root, MACHINE_ID)).strip(),
        "hostname": os.uname().nodename,
        "time_ns": time.time_ns(),
    }
