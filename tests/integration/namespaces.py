"""Several hosts on one computer: each has a name, an address and some files of its own.

A host is a process that keeps namespaces (mount, network, host name) and does nothing. Nothing of
it is seen from outside, and all of it is gone when that process is.
"""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

LIMIT_S = 30
NETWORK = "10.77.0"
BRIDGE = "lan0"
_KEEP = (
    'hostname "$1" && mount --bind "$2" /etc/hosts && ip link set lo up && '
    "echo there && exec sleep infinity"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lan:
    """Hosts that reach each other and nothing else; the first one holds the bridge."""

    names: tuple[str, ...]
    pids: dict[str, int]

    def at(self, name: str, cwd: Path | str = "/") -> list[str]:
        """Give what runs a command on a host, in a directory."""
        enter = ["nsenter", f"--target={self.pids[name]}", "--mount", "--net", "--uts"]
        return [*enter, "--", "env", f"--chdir={cwd}"]

    def own_file(self, name: str, own: Path, path: Path) -> None:
        """Let a host see a file of its own at a path; both are made when they are not there.

        Write to it, and do not replace it: the host would go on seeing the old one.
        """
        for file in (own, path):
            file.touch()
        self._do(name, "mount", "--bind", str(own), str(path))

    def _do(self, name: str, *argv: str) -> None:
        subprocess.run([*self.at(name), *argv], check=True, timeout=LIMIT_S)

    def connect(self) -> None:
        """Put all hosts onto one bridge."""
        first = self.names[0]
        self._do(first, "ip", "link", "add", BRIDGE, "type", "bridge")
        self._do(first, "ip", "addr", "add", f"{NETWORK}.1/24", "dev", BRIDGE)
        self._do(first, "ip", "link", "set", BRIDGE, "up")
        for number, name in enumerate(self.names[1:], 2):
            pair = ["type", "veth", "peer", "name", "eth0", "netns", str(self.pids[name])]
            self._do(first, "ip", "link", "add", f"to{number}", *pair)
            self._do(first, "ip", "link", "set", f"to{number}", "master", BRIDGE, "up")
            self._do(name, "ip", "addr", "add", f"{NETWORK}.{number}/24", "dev", "eth0")
            self._do(name, "ip", "link", "set", "eth0", "up")


@contextlib.contextmanager
def lan_of(*names: str) -> Iterator[Lan]:
    """Give hosts of these names."""
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mayfly-lan-")))
        hosts = directory / "hosts"
        lines = [f"{NETWORK}.{number} {name}" for number, name in enumerate(names, 1)]
        hosts.write_text("\n".join(["127.0.0.1 localhost", *lines, ""]))
        keepers = {name: stack.enter_context(_keeper(name, hosts)) for name in names}
        lan = Lan(names=names, pids=keepers)
        lan.connect()
        yield lan


@contextlib.contextmanager
def _keeper(name: str, hosts: Path) -> Iterator[int]:
    own = ["unshare", "--mount", "--net", "--uts", "--propagation=private"]
    argv: Sequence[str] = [*own, "sh", "-c", _KEEP, "sh", name, str(hosts)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "there\n"
            yield process.pid
        finally:
            process.kill()
