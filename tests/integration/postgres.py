"""A PostgreSQL of a test's own: its data in a directory, its socket beside it, no port."""

from __future__ import annotations

import contextlib
import itertools
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.integration.people import Someone, somebody
from tests.integration.waiting import wait_until

PROGRAMS = Path("/usr/lib/postgresql/15/bin")
START_LIMIT_S = 60.0


@dataclass(slots=True, kw_only=True)
class Postgres:
    """A server that runs as a user of its own."""

    top: Path
    user: Someone
    process: subprocess.Popen[bytes] | None = None
    _names: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def run(self, *words: str) -> None:
        """Run one of its programs as its user."""
        prefix = ["setpriv", f"--reuid={self.user.uid}", f"--regid={self.user.uid}"]
        program = str(PROGRAMS / words[0])
        argv = [*prefix, "--clear-groups", program, *words[1:]]
        subprocess.run(argv, check=True, capture_output=True, cwd="/", timeout=START_LIMIT_S)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        prefix = ["setpriv", f"--reuid={self.user.uid}", f"--regid={self.user.uid}"]
        options = ["-D", str(self.top / "data"), "-k", str(self.top), "-c", "listen_addresses="]
        with open(self.top / "log", "ab") as log:
            self.process = subprocess.Popen(
                [*prefix, "--clear-groups", str(PROGRAMS / "postgres"), *options, "-F"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
            )
        wait_until(self.answers, "PostgreSQL to answer", limit_s=START_LIMIT_S)

    def answers(self) -> bool:
        """Tell whether it takes connections."""
        assert self.process is not None
        assert self.process.poll() is None, (self.top / "log").read_text()
        done = subprocess.run(
            [str(PROGRAMS / "pg_isready"), "-q", "-h", str(self.top)], check=False, cwd="/"
        )
        return done.returncode == 0

    def new_database(self) -> str:
        """Make an empty database; gives its URL."""
        name = f"site{next(self._names)}"
        self.run("createdb", "-h", str(self.top), "-U", "site", name)
        return f"postgresql://site@/{name}?host={self.top}"

    def stop(self) -> None:
        """End it."""
        if self.process is not None:
            # SIGINT: do not wait for those who are connected.
            self.process.send_signal(2)
            self.process.wait(START_LIMIT_S)


@contextlib.contextmanager
def postgres() -> Iterator[Postgres]:
    """Give a server; everything of it is gone afterwards."""
    with somebody("mayfly-postgres-t") as user:
        top = Path(tempfile.mkdtemp(prefix="mayfly-pg-", dir="/var/tmp"))
        shutil.chown(top, user.uid, user.uid)
        top.chmod(0o755)
        server = Postgres(top=top, user=user)
        try:
            data = str(top / "data")
            server.run("initdb", "-D", data, "-U", "site", "-A", "trust", "-E", "UTF8", "-N")
            server.start()
            yield server
        finally:
            server.stop()
            shutil.rmtree(top, ignore_errors=True)
