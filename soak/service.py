"""The service that is tried, kept running by a supervisor as systemd would."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CONFIG = """\
socket = "{top}/sock"
state = "{top}/state"
allow_emulation = true
uid_first = {uid_first}

[[standby]]
image = "debian-12"
least = 2
most = 4
"""
UID_FIRST = 0x6D63_0000
UIDS = 65_536
LISTENS_S = 60.0
POLL_S = 0.05


@dataclass(slots=True)
class Supervised:
    """A service that is started again whenever it ends."""

    home: Path
    """Images and templates."""
    top: Path
    process: subprocess.Popen[bytes] | None = None
    starts: int = 0
    _log: list[Any] = field(default_factory=list)

    @property
    def socket(self) -> Path:
        """Where it listens."""
        return self.top / "sock"

    @property
    def machines(self) -> list[Path]:
        """The directories of its machines."""
        return [path for path in self.top.glob("state/machines/*/*") if len(path.name) == 8]

    def environment(self) -> dict[str, str]:
        """Give the environment that makes clients ask it."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MAYFLY_")}
        return {**kept, "MAYFLY_HOME": str(self.home), "MAYFLY_HOST_SOCKET": str(self.socket)}

    def keep_up(self) -> None:
        """Start it, if it does not run."""
        if self.process is not None and self.process.poll() is None:
            return
        config = self.top / "host.toml"
        config.write_text(CONFIG.format(top=self.top, uid_first=UID_FIRST))
        with open(self.top / "service.log", "ab") as log:
            self.process = subprocess.Popen(
                command("host", "serve", "--config", str(config)),
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.starts += 1

    def begin(self) -> None:
        """Start it, and wait until it listens: a client that finds no socket does without it."""
        self.keep_up()
        deadline = time.monotonic() + LISTENS_S
        while not self.socket.exists():
            if self.process is None or self.process.poll() is not None:
                raise RuntimeError(f"the service ended: {(self.top / 'service.log').read_text()}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"the service does not listen after {LISTENS_S:.0f} s")
            time.sleep(POLL_S)

    def ask(self, *words: str, timeout_s: float = 60) -> Any:
        """Run a command that prints JSON; None when it failed."""
        done = subprocess.run(
            command(*words, "--json"),
            check=False,
            env=self.environment(),
            capture_output=True,
            timeout=timeout_s,
        )
        return json.loads(done.stdout) if done.returncode == 0 else None

    def stop(self) -> None:
        """End it and every machine that it has left."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(timeout=30)
        for pid in qemus():
            os.kill(pid, signal.SIGKILL)


@contextmanager
def supervised(home: Path, top: Path) -> Iterator[Supervised]:
    """Have a service in a directory of its own."""
    service = Supervised(home=home, top=top)
    try:
        service.begin()
        yield service
    finally:
        service.stop()


def command(*words: str) -> list[str]:
    """Give the argument list of a ``mayfly`` command."""
    return [sys.executable, "-I", "-m", "mayfly.cli.entry", *words]


def qemus() -> list[int]:
    """Give the QEMUs that run as one of the service's machines; nobody else uses those uids."""
    found = []
    for path in Path("/proc").iterdir():
        if path.name.isdecimal():
            try:
                owner = path.stat().st_uid
                name = (path / "comm").read_text().strip()
            except OSError:
                continue
            if UID_FIRST <= owner < UID_FIRST + UIDS and name.startswith("qemu"):
                found.append(int(path.name))
    return found


def children(pid: int) -> list[int]:
    """Give the children of a process."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(word) for word in text.split()]
