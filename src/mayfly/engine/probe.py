"""What this host's QEMU can do: found by asking it, never by its version or the distribution.

The answer is remembered per QEMU file (path, size, time).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from mayfly.config import Settings
from mayfly.engine.monitor import Monitor
from mayfly.errors import Failed, Missing

PROBE_FORMAT = 1
PROBE_TIMEOUT_S = 30.0

NEEDED_TYPES = (
    "virtio-blk-pci",
    "virtio-serial-pci",
    "virtserialport",
    "virtio-net-pci",
    "virtio-rng-pci",
    "isa-serial",
    "memory-backend-file",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Qemu:
    """One QEMU program and what it can do."""

    path: str
    """As seen from ``root``."""
    root: str
    """Tree that it lives in with its libraries; "" is the host itself."""
    identity: str
    """Changes whenever the program file does."""
    version: str
    machine_type: str
    """Newest versioned q35."""
    has_kvm: bool
    has_tcg: bool
    has_sandbox: bool
    has_ignore_shared: bool
    has_rom_option: bool
    has_vmgenid: bool
    missing: tuple[str, ...]
    """Device and object types that a machine needs and this QEMU lacks."""


def find_qemu(settings: Settings) -> tuple[str, str]:
    """Give the path of QEMU within its tree, and the tree ("" for the host).

    The setting ``qemu`` is a path, or ``TREE:PATH`` for a QEMU with libraries of its own.
    """
    root, _, path = settings.qemu.rpartition(":")
    found = path or shutil.which("qemu-system-x86_64") or "/usr/libexec/qemu-kvm"
    if not (os.path.isfile(root + found) and os.access(root + found, os.X_OK)):
        raise Missing(
            f"no QEMU: {root + found} is not there or cannot be executed",
            hint="apt-get install qemu-system-x86",
        )
    return found, root


def identity_of(path: str) -> str:
    """Name a program file by what changes when it is replaced."""
    real = os.path.realpath(path)
    stat = os.stat(real)
    text = f"{real} {stat.st_size} {stat.st_mtime_ns}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def probe_qemu(settings: Settings, cache: Path) -> Qemu:
    """Give what QEMU can do, from memory when this very program was asked before."""
    path, root = find_qemu(settings)
    identity = identity_of(root + path)
    file = cache / "probe" / f"qemu-{identity}.json"
    try:
        stored = json.loads(file.read_text())
        if stored.pop("format") == PROBE_FORMAT and stored["root"] == root:
            return Qemu(**{**stored, "missing": tuple(stored["missing"])})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass  # Never asked, or by another version of this program: ask.
    qemu = _ask(path, root, identity)
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_suffix(f".{os.getpid()}")
    fresh.write_text(json.dumps({"format": PROBE_FORMAT, **asdict(qemu)}))
    fresh.replace(file)
    return qemu


def _ask(path: str, root: str, identity: str) -> Qemu:
    with questioned(path, root) as monitor:
        return _interview(monitor, path, root, identity)


@contextlib.contextmanager
def questioned(path: str, root: str, *, machine: str = "none") -> Iterator[Monitor]:
    """Run a QEMU without a guest, to ask what it can do; raises ``Failed`` when it does not run."""
    ours, theirs = socket.socketpair()
    argv = [path, "-nodefaults", "-no-user-config", "-display", "none", "-machine", machine]
    argv += ["-chardev", f"socket,id=qmp,fd={theirs.fileno()}"]
    argv += ["-mon", "chardev=qmp,mode=control"]
    if root:
        argv = ["/usr/sbin/chroot", root, *argv]
    try:
        process = subprocess.Popen(
            argv, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
    except OSError as error:
        ours.close()
        raise Failed(f"{root}{path} does not run: {error.strerror}") from error
    finally:
        theirs.close()
    try:
        with Monitor(ours, timeout_s=PROBE_TIMEOUT_S) as monitor:
            monitor.negotiate()
            yield monitor
    except Failed as error:
        process.kill()
        said = process.communicate()[1].decode("utf-8", "replace").strip()
        raise Failed(
            f"{root}{path} does not run: {said or error}", hint="try 'qemu-system-x86_64 --version'"
        ) from error
    finally:
        process.kill()
        process.wait()
        if process.stderr is not None:
            process.stderr.close()


def _interview(monitor: Monitor, path: str, root: str, identity: str) -> Qemu:
    version = monitor.call("query-version")["qemu"]
    machines = [machine["name"] for machine in monitor.call("query-machines")]
    types = {item["name"] for item in monitor.call("qom-list-types")}
    abilities = {item["capability"] for item in monitor.call("query-migrate-capabilities")}
    options = {item["option"] for item in monitor.call("query-command-line-options")}
    memory = monitor.call("qom-list-properties", {"typename": "memory-backend-file"})
    return Qemu(
        path=path,
        root=root,
        identity=identity,
        version=f"{version['major']}.{version['minor']}.{version['micro']}",
        machine_type=newest_q35(machines),
        has_kvm="kvm-accel" in types,
        has_tcg="tcg-accel" in types,
        has_sandbox="sandbox" in options,
        has_ignore_shared="x-ignore-shared" in abilities,
        has_rom_option=any(item["name"] == "rom" for item in memory),
        has_vmgenid="vmgenid" in types,
        missing=tuple(name for name in NEEDED_TYPES if name not in types),
    )


def newest_q35(names: list[str]) -> str:
    """Pick the newest versioned q35 machine type; "" when there is none."""
    versions = [
        (tuple(map(int, match[1].split("."))), name)
        for name in names
        # Some distributions have versions of their own: pc-q35-rhel9.4.0.
        if (match := re.fullmatch(r"pc-q35-[a-z]*([0-9]+(?:\.[0-9]+)*)", name))
    ]
    return max(versions)[1] if versions else ""
