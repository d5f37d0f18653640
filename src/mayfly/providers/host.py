"""Machines of this host, had from its host service in the name of users.

What takes a session in the machine is done by a process of its own (``providers.session``).
"""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mayfly.command import run
from mayfly.errors import Failed, Missing
from mayfly.host import client, protocol
from mayfly.model import State
from mayfly.ports import LaunchSpec, Offer, Ref, Seen

LAUNCH_LIMIT_S = 600.0
VERIFY_LIMIT_S = 60.0
HOST_ALIAS = "machine"
REFUSED = "Permission denied"
"""What a server says that was found, proved to be the right one, and let nobody in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostPlace:
    """The host service behind a socket."""

    socket: Path = client.SOCKET

    def offers(self) -> Sequence[Offer]:
        """Give the images of this host."""
        _, items = self._ask("images")
        return [Offer(image=str(item["name"]), pin=str(item["pin"])) for item in items]

    def machines(self) -> Sequence[Seen]:
        """Give the machines that carry a lease."""
        _, items = self._ask("list")
        return [
            Seen(
                key=str(item["lease"]),
                id=str(item["id"]),
                state=State(item["state"]),
                reason=str(item["reason"]),
            )
            for item in items
            if item.get("lease")
        ]

    def launch(self, spec: LaunchSpec, key: str) -> Ref:
        """Claim the machine of this lease, or find it; put the keys in, start its ssh server."""
        order = {
            "image": spec.image,
            "cpus": spec.shape.cpus,
            "memory_mib": spec.shape.memory_mib,
            "network": spec.network.value,
            "user": spec.user,
            "ssh_keys": list(spec.ssh_keys),
        }
        there = next((one.id for one in self.machines() if one.key == key), "")
        verb, name = ("finish", there) if there else ("launch", key)
        words = self._session(verb, name, order)
        return Ref(id=words["id"], host_keys=tuple(words["host_keys"]))

    def terminate(self, machine: str) -> None:
        """End a machine."""
        with contextlib.suppress(Missing):
            self._ask("delete", machine=machine)

    def suspend(self, machine: str) -> None:
        """Put a machine on disk."""
        self._ask("suspend", machine=machine)

    def resume(self, machine: str) -> None:
        """Bring it back."""
        self._ask("resume", machine=machine)

    def reach(self, machine: str) -> Sequence[str]:
        """Give the command that connects to its ssh server."""
        return self._argv("reach", machine)

    def verify(self, machine: str, host_keys: Sequence[str]) -> None:
        """Let ssh come in from outside: it proves the server's key, and is then turned away."""
        with tempfile.TemporaryDirectory() as folder:
            known = Path(folder) / "known_hosts"
            known.write_text("".join(f"{HOST_ALIAS} {key}\n" for key in host_keys))
            done = run(self._probe(machine, known), timeout_s=VERIFY_LIMIT_S, check=False)
        if REFUSED not in done.stderr.decode("utf-8", "replace"):
            raise Failed(f"machine '{machine}' cannot be reached by ssh: {done.complaint()}")

    def _probe(self, machine: str, known: Path) -> list[str]:
        options = {
            "ProxyCommand": shlex.join(self.reach(machine)).replace("%", "%%"),
            "UserKnownHostsFile": str(known),
            "GlobalKnownHostsFile": "/dev/null",
            "StrictHostKeyChecking": "yes",
            "HostKeyAlias": HOST_ALIAS,
            "PreferredAuthentications": "publickey",
            "IdentityFile": "none",
            "IdentityAgent": "none",
            "BatchMode": "yes",
        }
        words = [f"-o{name}={value}" for name, value in options.items()]
        return ["ssh", "-F", "none", "-T", *words, f"nobody@{HOST_ALIAS}", "true"]

    def _ask(self, op: str, **fields: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        with contextlib.closing(client.require(self.socket)) as connection:
            return client.call(connection, op, fields)

    def _session(self, verb: str, name: str, order: dict[str, Any]) -> dict[str, Any]:
        argv = self._argv(verb, name)
        done = run(argv, timeout_s=LAUNCH_LIMIT_S, stdin=json.dumps(order).encode(), check=False)
        try:
            if done.code == 0:
                return dict(json.loads(done.stdout))
            raise protocol.error_of(json.loads(done.complaint()))
        except ValueError as error:
            raise Failed(f"the session in machine '{name}' broke: {done.complaint()}") from error

    def _argv(self, verb: str, name: str) -> list[str]:
        # As this process itself was started: isolated, from wherever Mayfly lies.
        top = str(Path(__file__).parents[2])
        code = f"import sys; sys.path.insert(0, {top!r}); "
        code += "from mayfly.providers.session import main; main()"
        return [sys.executable, "-I", "-c", code, str(self.socket), verb, name]
