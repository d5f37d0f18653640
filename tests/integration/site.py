"""A site server of a test's own: its process, its settings, its clients."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGTERM, Signals

from mayfly.client import Client
from mayfly.errors import MayflyError
from tests.integration.people import Someone
from tests.integration.waiting import wait_until

START_LIMIT_S = 60.0


@dataclass(slots=True, kw_only=True)
class Server:
    """One site server, which runs as a user of its own."""

    top: Path
    user: Someone
    process: subprocess.Popen[bytes] | None = None
    environ: dict[str, str] = field(default_factory=dict)

    @property
    def socket(self) -> Path:
        """Where it listens."""
        return self.top / "run" / "server.sock"

    @property
    def url(self) -> str:
        """Where clients find it."""
        return f"unix://{self.socket}"

    @property
    def config(self) -> Path:
        """Give its settings."""
        return self.top / "server.toml"

    @property
    def log(self) -> Path:
        """What it has said."""
        return self.top / "log"

    def write_config(self, settings: str) -> None:
        """Say what the next server does; a database or an interval in ``settings`` wins."""
        own = f'socket = "{self.socket}"\n'
        if "interval" not in settings:
            own += 'interval = "1s"\n'
        if "database" not in settings:
            own += f'database = "sqlite:///{self.top}/site.db"\n'
        self.config.write_text(own + settings)

    def argv(self, *words: str) -> list[str]:
        """Give the arguments of a command, which its user runs."""
        prefix = ["setpriv", f"--reuid={self.user.uid}", f"--regid={self.user.uid}"]
        own = [sys.executable, "-I", "-m", "mayfly.cli.entry", *words]
        return [*prefix, "--clear-groups", *own]

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                self.argv("server", "serve", "--config", str(self.config)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env={**os.environ, "HOME": str(self.user.home), **self.environ},
            )
        wait_until(self.answers, "the site server to answer", limit_s=START_LIMIT_S)

    def answers(self) -> bool:
        """Tell whether it takes requests; fails when it has ended."""
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()
        with contextlib.suppress(MayflyError), self.client() as client:
            client.me()
            return True
        return False

    def client(self) -> Client:
        """Give a client that is this process's user."""
        return Client(self.url)

    def end(self, which: Signals = SIGTERM) -> int:
        """End it by a signal; gives its exit status."""
        assert self.process is not None
        self.process.send_signal(which)
        return self.process.wait(START_LIMIT_S)

    def close(self) -> None:
        """End it, if it runs."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


@contextlib.contextmanager
def server_of(user: Someone, settings: str, *, start: bool = True) -> Iterator[Server]:
    """Give a server with these settings; everything of it is gone afterwards."""
    top = Path(tempfile.mkdtemp(prefix="mayfly-site-", dir="/var/tmp"))
    top.chmod(0o755)
    shutil.chown(top, user.uid, user.uid)
    server = Server(top=top, user=user)
    server.write_config(settings)
    try:
        if start:
            server.start()
        yield server
    finally:
        server.close()
        shutil.rmtree(top, ignore_errors=True)
