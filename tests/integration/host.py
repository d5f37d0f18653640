"""A real host service of a test's own, and its clients: root, and users without a name.

Users are made of numbers alone: their clients run by setpriv(1), and connections of a test's own
are made as them.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGKILL, SIGTERM, Signals
from typing import Any

import pytest

from mayfly.errors import MayflyError
from mayfly.host import client
from tests.integration.faults import machines_dir, machines_of, qemus_of
from tests.integration.waiting import gone, wait_until

IMAGE = "debian-12"
ALICE, BOB = 54_321, 54_322
"""Users of these tests: nobody has these uids."""
START_LIMIT_S = 30
JOB_LIMIT_S = 90
MARKS = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="the host service runs as root"),
    pytest.mark.skipif(shutil.which("setpriv") is None, reason="acts as other users"),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Who a client is."""

    uid: int
    groups: tuple[int, ...] = ()

    def prefix(self) -> list[str]:
        """Give what makes of a command this user's."""
        if self.uid == 0:
            return []
        names = [f"--groups={','.join(map(str, self.groups))}"] if self.groups else []
        ids = [f"--reuid={self.uid}", f"--regid={self.uid}"]
        return ["setpriv", *ids, *(names or ["--clear-groups"])]


ROOT = User(uid=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A client that runs."""

    process: subprocess.Popen[bytes]

    @property
    def pid(self) -> int:
        """Its process: setpriv(1) becomes the client."""
        return self.process.pid

    def line(self) -> str:
        """Wait for one line of the job's output."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().decode()

    def heard(self, words: str) -> str:
        """Wait for a line of the client's own that has these words."""
        assert self.process.stderr is not None
        for line in iter(self.process.stderr.readline, b""):
            if words in line.decode():
                return line.decode()
        raise AssertionError(f"the client ended without saying '{words}'")

    def end(self, typed: bytes | None = None) -> tuple[int, bytes, str]:
        """Wait for its end; gives exit status, output and what the client said."""
        output, said = self.process.communicate(typed, timeout=JOB_LIMIT_S)
        return self.process.returncode, output, said.decode("utf-8", "replace")

    def kill(self) -> None:
        """End it, whatever it is doing, and collect it."""
        self.process.kill()
        with contextlib.suppress(ValueError):
            self.process.communicate()


@dataclass(slots=True, kw_only=True)
class Host:
    """A service; everything of its own lies beneath one directory."""

    home: Path
    """Root's images and templates."""
    top: Path
    code: Path | None = None
    """Where the program is taken from, when it is not the one that is tested."""
    process: subprocess.Popen[bytes] | None = None
    jobs: list[Job] = field(default_factory=list)

    @property
    def socket(self) -> Path:
        """Where it listens."""
        return self.top / "host.sock"

    @property
    def config(self) -> Path:
        """Give its settings."""
        return self.top / "host.toml"

    @property
    def log(self) -> Path:
        """What all services here have said."""
        return self.top / "log"

    @property
    def state(self) -> Path:
        """Where its machines lie."""
        return self.top / "state"

    # --- the service -----------------------------------------------------------------------------

    def write_config(self, settings: str = "", *, emulation: bool = True) -> None:
        """Say what the next service does."""
        own = f'socket = "{self.socket}"\nstate = "{self.state}"\n'
        may = f"allow_emulation = {str(emulation).lower()}\n"
        self.config.write_text(own + may + settings)

    def argv(self, *words: str) -> list[str]:
        """Give the arguments of a command."""
        if self.code is not None:
            begin = f"import sys; sys.path.insert(0, {str(self.code)!r}); "
            begin += "from mayfly.cli.entry import main; main()"
            return [sys.executable, "-I", "-c", begin, *words]
        return [sys.executable, "-I", "-m", "mayfly.cli.entry", *words]

    def serve(self, *, config: Path | None = None) -> subprocess.Popen[bytes]:
        """Start a service and leave it to itself."""
        with open(self.log, "ab") as log:
            return subprocess.Popen(
                self.argv("host", "serve", "--config", str(config or self.config)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env={**os.environ, "MAYFLY_HOME": str(self.home)},
            )

    def start(self) -> None:
        """Start the service, and wait until it answers."""
        self.process = self.serve()
        wait_until(self.answers, "the service to answer", limit_s=START_LIMIT_S)

    def answers(self) -> bool:
        """Tell whether it takes requests; fails when it has ended."""
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()
        with contextlib.suppress(MayflyError):
            self.ask("status")
            return True
        return False

    def signal(self, which: Signals) -> None:
        """Send the service a signal."""
        assert self.process is not None
        self.process.send_signal(which)

    def end(self, which: Signals) -> int:
        """End the service by a signal; gives its exit status."""
        assert self.process is not None
        self.signal(which)
        return self.process.wait(START_LIMIT_S)

    def restart(self, which: Signals) -> None:
        """End it and start another one."""
        self.end(which)
        self.start()

    def said(self, words: str) -> bool:
        """Tell whether it has logged this."""
        return words in self.log.read_text()

    # --- asking it -------------------------------------------------------------------------------

    def connect(self, user: User = ROOT) -> client.Connection:
        """Connect as a user: the kernel tells the service who asks, and that this process does."""
        with acting_as(user):
            return client.require(self.socket)

    def ask(self, op: str, user: User = ROOT, **fields: Any) -> dict[str, Any]:
        """Ask one thing and give the answer; raises what the service answered."""
        with contextlib.closing(self.connect(user)) as connection:
            return client.call(connection, op, fields)[0]

    def items(self, op: str, user: User = ROOT, **fields: Any) -> list[dict[str, Any]]:
        """Ask for a list."""
        with contextlib.closing(self.connect(user)) as connection:
            return client.call(connection, op, fields)[1]

    def machines(self, *states: str, user: User = ROOT) -> list[dict[str, Any]]:
        """Give the machines that a user sees, standbys left out unless asked for."""
        found = self.items("list", user)
        if states:
            return [one for one in found if one["state"] in states]
        return [one for one in found if one["owner"] is not None]

    def standbys(self) -> list[dict[str, Any]]:
        """Give the machines that wait for a job."""
        return self.machines("standby")

    def refilled(self, count: int = 1) -> None:
        """Wait until so many standbys are ready, and no more is being made."""
        wait_until(
            lambda: sum(one["ready"] for one in self.ask("status")["standby"]) == count,
            f"{count} standbys",
            limit_s=JOB_LIMIT_S,
        )

    def forget_jobs(self) -> None:
        """End the clients that a test has left."""
        for job in self.jobs:
            job.kill()
        self.jobs.clear()

    def clear(self) -> None:
        """Delete what users have left, and wait until it is gone.

        A machine may end of itself between the look and the deletion: its client was killed.
        """
        for one in self.machines():
            with contextlib.suppress(MayflyError):
                self.ask("delete", machine=one["id"])
        self.emptied()

    def emptied(self) -> None:
        """Wait until no machine of a user is there."""
        wait_until(lambda: self.machines() == [], "the machines to be gone", limit_s=START_LIMIT_S)

    # --- clients ---------------------------------------------------------------------------------

    def client(self, *words: str, user: User = ROOT, **env: str) -> Job:
        """Start a command of a user."""
        process = subprocess.Popen(
            [*user.prefix(), *self.argv(*words)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd="/",
            env={**self.environment(), **env},
        )
        job = Job(process=process)
        self.jobs.append(job)
        return job

    def environment(self) -> dict[str, str]:
        """Give the environment of clients: of the service they know the socket, no files."""
        own = {"MAYFLY_HOME": str(self.top / "nobody"), "MAYFLY_HOST_SOCKET": str(self.socket)}
        return {**os.environ, **own, "HOME": "/"}

    def run(self, *words: str, user: User = ROOT, **env: str) -> tuple[int, str, str]:
        """Run a command of a user to its end; gives exit status, output, what the client said."""
        code, output, said = self.client(*words, user=user, **env).end(b"")
        return code, output.decode("utf-8", "replace"), said

    def job(self, *words: str, user: User = ROOT, **env: str) -> tuple[int, str, str]:
        """Run a job without a work directory to its end; ``words``: options, ``--``, command."""
        return self.run("run", IMAGE, "--no-workdir", *words, user=user, **env)

    def begin(self, *words: str, user: User = ROOT, **env: str) -> Job:
        """Start a job whose first line of output is ``ready``, and wait for that."""
        job = self.client("run", IMAGE, "--no-workdir", *words, user=user, **env)
        assert job.line() == "ready\n", job.end()
        return job

    # --- what there is ---------------------------------------------------------------------------

    def qemus(self) -> list[int]:
        """Give the QEMUs of all machines."""
        return qemus_of(self.top)

    def places(self) -> list[str]:
        """Give the names of what lies where the machines are, hidden things too."""
        return sorted(path.name for path in machines_of(self.top))

    def record(self, name: str) -> dict[str, Any]:
        """Give what is written down of a machine."""
        stored: dict[str, Any] = json.loads(
            (machines_dir(self.top) / name / "record.json").read_text()
        )
        return stored

    def close(self) -> None:
        """End all that is left, and see that nothing stays."""
        self.forget_jobs()
        if self.process is not None and self.process.poll() is None:
            self._end_all()
        with contextlib.suppress(ProcessLookupError):
            for pid in self.qemus():
                os.kill(pid, SIGKILL)

    def _end_all(self) -> None:
        self.clear()
        assert self.end(SIGTERM) == 0
        left = self.places(), self.qemus()
        assert left == ([], []), (left, self.log.read_text())


def policy_of_queue(queue: str) -> str:
    """Give a policy by which everybody may have the image, and the jobs of a queue do."""
    return f"""\
[policy]
endorsed = "optional"
[[policy.allow]]
who = ["*"]
images = ["{IMAGE}"]
[[policy.default]]
who = ["queue:{queue}"]
image = "{IMAGE}"
"""


@contextlib.contextmanager
def acting_as(user: User) -> Iterator[None]:
    """Be another user as far as the kernel tells those whom this process connects to."""
    groups = os.getgroups()
    os.setgroups(user.groups)
    os.setegid(user.uid)
    os.seteuid(user.uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


@contextlib.contextmanager
def host_of(home: Path, settings: str = "", *, start: bool = True) -> Iterator[Host]:
    """Give a service with these settings; everything of it is gone afterwards."""
    # Not where pytest's are: users must get there, and a socket's path is short.
    top = Path(tempfile.mkdtemp(prefix="mayfly-host-", dir="/var/tmp"))
    top.chmod(0o755)
    host = Host(home=home, top=top)
    host.write_config(settings)
    try:
        if start:
            host.start()
        yield host
        host.close()
    finally:
        _clear(host)


def _clear(host: Host) -> None:
    """Remove what a test that failed has left."""
    with contextlib.suppress(OSError, MayflyError, AssertionError):
        host.close()
    if host.process is not None:
        host.process.kill()
        host.process.wait()
    shutil.rmtree(host.top, ignore_errors=True)


def claim_fields(**changes: Any) -> dict[str, Any]:
    """Give a request for a machine."""
    fields = {"image": IMAGE, "cpus": 1, "memory_mib": 512, "network": "none", "label": "a test"}
    return {**fields, **changes}


def processes_with(words: bytes) -> list[int]:
    """Give the processes whose command line has these words."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and words in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return [pid for pid in found if not gone(pid)]


def packet_socket(path: Path) -> socket.socket:
    """Connect to the service with nothing in between."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.connect(str(path))
    connection.settimeout(START_LIMIT_S)
    return connection


def show_all(words: Sequence[object]) -> str:
    """Give values in lines, for a message."""
    return "\n".join(map(str, words))
