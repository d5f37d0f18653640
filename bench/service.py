"""A host service of the bench's own: its socket, its state, and what it says of itself."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.client import MAYFLY, BenchError, Child, Children
from bench.setting import Setting
from mayfly.errors import MayflyError, Unavailable
from mayfly.host import client

START_LIMIT_S = 60.0
FULL_LIMIT_S = 120.0
LOOK_S = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """How many machines of an image shall stand by."""

    image: str
    least: int = 2
    most: int = 4

    def table(self) -> str:
        """Write it as the service reads it."""
        return f'\n[[standby]]\nimage = "{self.image}"\nleast = {self.least}\nmost = {self.most}\n'


@dataclass(slots=True, kw_only=True)
class HostService:
    """A service that runs, and the setting in which ``mayfly`` asks it."""

    setting: Setting
    child: Child
    socket: Path
    state: Path

    @property
    def pid(self) -> int:
        """Its process."""
        return self.child.process.pid

    def ask(self, op: str, **fields: Any) -> dict[str, Any]:
        """Ask it one thing on a connection of its own."""
        return self.ask_all(op, **fields)[0]

    def ask_all(self, op: str, **fields: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Ask it one thing; gives the answer and the items before it."""
        connection = client.require(self.socket)
        with contextlib.closing(connection):
            return client.call(connection, op, fields)

    def status(self) -> dict[str, Any]:
        """Give what ``mayfly host status --json`` prints."""
        return self.ask("status")

    def await_full(self) -> None:
        """Wait until as many machines stand by as it wants, and none is on its way or out."""
        deadline = time.monotonic() + FULL_LIMIT_S
        while not is_full(said := self.status()):
            if self.child.process.poll() is not None:
                raise BenchError(f"the service ended: {self.child.complained()[-2000:]}")
            if time.monotonic() > deadline:
                raise BenchError(f"the standbys did not get ready: {said}")
            time.sleep(LOOK_S)

    def memory_mib(self) -> float:
        """Give the memory that the service itself has for its own."""
        return private_mib(self.pid)

    def open_files(self) -> int:
        """Give how many files it has open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))


def is_full(said: Mapping[str, Any]) -> bool:
    """Tell from a status whether everything that shall stand by does, and nothing else is there."""
    machines = said.get("machines", {})
    standing = sum(item["ready"] for item in said["standby"])
    return (
        all(item["ready"] >= item["wanted"] for item in said["standby"])
        and not said.get("waiting")
        and not said.get("starting")
        and sum(machines.values()) == standing
    )


def private_mib(pid: int) -> float:
    """Give the private memory of a process, in MiB."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = re.findall(r"^Private_(?:Dirty|Clean): +([0-9]+) kB$", text, re.MULTILINE)
    return sum(map(int, found)) / 1024


@contextlib.contextmanager
def serving(setting: Setting, ready: Sequence[Ready], *, more: str = "") -> Iterator[HostService]:
    """Run a service with its own state, and the images and templates of the setting's home.

    ``more``: further lines of its settings. At the end its machines are ended too.
    """
    if os.geteuid() != 0:
        raise BenchError("only root can run the host service")
    with setting.directory() as place:
        # Users ask it too: only what it keeps is closed to them.
        place.chmod(0o755)
        socket, state = place / "host.sock", place / "state"
        config = place / "host.toml"
        config.write_text(configuration(socket, state, ready, more))
        child = setting.children.start([str(MAYFLY), "host", "serve", "--config", str(config)])
        with Children({**setting.children.env, "MAYFLY_HOST_SOCKET": str(socket)}) as children:
            ours = replace(setting, children=children)
            service = HostService(setting=ours, child=child, socket=socket, state=state)
            try:
                _await_answer(service)
                service.await_full()
                yield service
                if child.process.poll() is not None:
                    raise BenchError(f"the service ended: {child.complained()[-2000:]}")
            finally:
                children.end()
                _end_machines(service)
                setting.children.stop(child)
                end_qemus(state)


def configuration(socket: Path, state: Path, ready: Sequence[Ready], more: str = "") -> str:
    """Write the settings of a service."""
    first = f'socket = "{socket}"\nstate = "{state}"\nallow_emulation = true\n'
    return first + more + "".join(one.table() for one in ready)


def _await_answer(service: HostService) -> None:
    deadline = time.monotonic() + START_LIMIT_S
    while True:
        try:
            service.status()
        except Unavailable:
            if service.child.process.poll() is not None or time.monotonic() > deadline:
                words = service.child.complained()[-2000:]
                raise BenchError(f"the service does not answer: {words}") from None
            time.sleep(LOOK_S)
        else:
            return


def _end_machines(service: HostService) -> None:
    """Delete the machines that outlive the service."""
    with contextlib.suppress(MayflyError):
        for item in service.ask_all("list")[1]:
            if item["state"] != "standby":
                service.ask("delete", machine=item["id"])


def qemus_of(state: Path) -> list[int]:
    """Give the QEMUs whose disks lie in a service's state directory."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{name}/comm").read_text().startswith("qemu-system") and any(
                os.readlink(entry.path).startswith(f"{state}/")
                for entry in os.scandir(f"/proc/{name}/fd")
            ):
                found.append(int(name))
    return found


def end_qemus(state: Path) -> None:
    """Kill what should not be there any more once the service is stopped."""
    for pid in qemus_of(state):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def as_user(uid: int, words: Sequence[str], env: Mapping[str, str]) -> list[str]:
    """Give a command line that runs as another user, with just these variables."""
    change = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
    return [*change, "env", "-i", *(f"{name}={value}" for name, value in env.items()), *words]
